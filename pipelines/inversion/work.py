"""What a process needs for a unit of inversion, made once in it; and batches of photos to embed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from infra.faces.onnx_faces import FaceAligner, FaceRecogniser
from infra.models.packs import ModelPack
from ironmask.errors import ImageError, SourceError
from pipelines.inversion import photos
from pipelines.inversion.frozen import Fit, Inversion
from pipelines.inversion.kept import Failure, Kept
from pipelines.inversion.photos import Listing, Photo, PhotoReader
from pipelines.ports import F32, U8, Recogniser
from pipelines.run.work import Work
from pipelines.setup import ports
from pipelines.spec.faces import FaceSettings

Storage = tuple[tuple[str, Any], ...]
"""`StorageSettings.public()`."""

_BATCH: Final = 64


@dataclass(frozen=True)
class Spec:
    """What travels to a worker, without a secret. out: for results. what: the frozen definition.
    packs: of the recognisers, the attacked one first; faces are found by its detector.
    """

    storage: Storage
    out: str
    what: Fit | Inversion
    packs: tuple[ModelPack, ...]


@dataclass(frozen=True)
class Surroundings:
    """What units of one definition share in a process."""

    spec: Spec
    listing: Listing = field(repr=False)
    photos: tuple[Photo, ...]
    reader: PhotoReader = field(repr=False)
    aligner: FaceAligner = field(repr=False)
    kept: Kept = field(repr=False)

    def crops(self, places: NDArray[np.intp] | Sequence[int]) -> Iterator[U8 | ImageError]:
        """The aligned faces of photos, (112, 112, 3) BGR, or why there is none."""
        for found in self.reader.read([self.photos[place] for place in places]):
            yield found if isinstance(found, ImageError) else self._crop(found)

    def _crop(self, data: bytes) -> U8 | ImageError:
        try:
            return self.aligner.crop(data)
        except ImageError as error:
            return error

    @property
    def batches(self) -> int:
        """Batches for one recogniser."""
        return -(-len(self.photos) // _BATCH)

    @property
    def units(self) -> range:
        """Batches for all recognisers, those of the attacked one first."""
        return range(self.batches * len(self.spec.packs))

    def embedded(self, model: int = 0) -> F32:
        """The kept embeddings of all photos by a recogniser, (k, n), NaN where there is none."""
        first = model * self.batches
        return np.concatenate([self.kept.read(first + b)[0] for b in range(self.batches)])

    def failures(self) -> list[Failure]:
        """The photos that cannot be used, by place."""
        return list(chain.from_iterable(self.kept.read(b)[1] for b in range(self.batches)))


def kept(spec: Spec) -> Kept:
    """The embeddings that a job keeps meanwhile."""
    return Kept(spec.out, spec.what.name, ports.shared_store(spec.storage))


@lru_cache(maxsize=2)
def surroundings(spec: Spec) -> Surroundings:
    """What units need, once a process. Raises `SourceError` where the faces have changed."""
    store, what = ports.shared_store(spec.storage), spec.what
    listing = photos.listed(what.faces, store)
    if listing.digest != what.listing:
        raise SourceError(f"{what.faces} has changed since the job began: begin anew")
    settings = FaceSettings()
    return Surroundings(
        spec=spec,
        listing=listing,
        photos=what.photos(listing),
        reader=PhotoReader(what.faces, store, settings.max_bytes),
        aligner=FaceAligner(spec.packs[0], settings),
        kept=kept(spec),
    )


@lru_cache(maxsize=2)
def recogniser(pack: ModelPack) -> Recogniser:
    """Load a recogniser, once a process."""
    return FaceRecogniser(pack, FaceSettings())


def embedding_work(spec: Spec) -> Work:
    """Batches of photos as units of work."""
    return Work(whole_batch, (spec,))


def whole_batch(spec: Spec, number: int) -> int:
    """Embed one batch of photos by one recogniser, and keep it. Returns its number."""
    around = surroundings(spec)
    model, batch = divmod(number, around.batches)
    places = range(batch * _BATCH, min((batch + 1) * _BATCH, len(around.photos)))
    network = recogniser(spec.packs[model])
    rows = np.full((len(places), network.n), np.nan, dtype=np.float32)
    failures: list[Failure] = []
    with threadpool_limits(1):
        for row, (place, crop) in enumerate(zip(places, around.crops(places), strict=True)):
            if isinstance(crop, ImageError):
                failures.append((place, str(crop.reason), str(crop)))
            else:
                rows[row] = network.embed(crop[None])[0]
    around.kept.write(number, rows, failures)
    return number
