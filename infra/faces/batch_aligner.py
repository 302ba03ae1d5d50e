"""Align faces that a detector elsewhere finds: pictures go there in batches, fitted and ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from infra.faces.decoder import Decoder
from infra.faces.detector import Faces, fitted, usable
from infra.faces.onnx_faces import aligned, no_face
from ironmask.arrays import F64
from ironmask.errors import ImageError
from pipelines.ports import U8, AlignedFace
from pipelines.spec.faces import FaceSettings

Answer = Callable[[], list[Faces]]
Detect = Callable[[U8, F64], Answer]
"""Begins to find the faces of k pictures, (k, size, size, 3) and (k,); gives what waits."""

# Pictures that are decoded and wait: at most two batches, each of so many or so many bytes.
_BATCH: Final = 16
_BATCH_BYTES: Final = 64 << 20
_AHEAD: Final = 2


@dataclass
class _Picture:
    """number: the caller's. pixels: None where it could not be decoded. found: of the detector."""

    number: int
    pixels: U8 | None = None
    fault: ImageError | None = None
    found: Faces | None = None


@dataclass
class _Batch:
    """Pictures whose faces are looked for. first: waits for the answer at the first size."""

    pictures: list[_Picture] = field(default_factory=list)
    bytes: int = 0
    first: Callable[[], None] = lambda: None

    @property
    def is_full(self) -> bool:
        return len(self.pictures) >= _BATCH or self.bytes >= _BATCH_BYTES


class BatchAligner:
    """Aligns faces without a model of its own. It gives what `FaceAligner` gives.

    decoder: of this process; it is not closed here.
    """

    def __init__(self, settings: FaceSettings, decoder: Decoder, detect: Detect) -> None:
        self._settings = settings
        self._decoder = decoder
        self._detect = detect

    def align_many(
        self, contents: Iterable[tuple[int, bytes]]
    ) -> Iterator[tuple[int, AlignedFace | ImageError]]:
        """The face of each image, or why it cannot be used, in their order.

        While the detector looks at one batch the next one is decoded.
        """
        waiting: deque[_Batch] = deque()
        for batch in self._batches(contents):
            waiting.append(batch)
            if len(waiting) == _AHEAD:
                yield from self._faces(waiting.popleft())
        for batch in waiting:
            yield from self._faces(batch)

    def _batches(self, contents: Iterable[tuple[int, bytes]]) -> Iterator[_Batch]:
        batch = _Batch()
        for number, content in contents:
            picture = self._decoded(number, content)
            batch.pictures.append(picture)
            batch.bytes += 0 if picture.pixels is None else picture.pixels.nbytes
            if batch.is_full:
                yield self._begun(batch)
                batch = _Batch()
        if batch.pictures:
            yield self._begun(batch)

    def _decoded(self, number: int, content: bytes) -> _Picture:
        try:
            # The decoder writes its next picture to the same place.
            return _Picture(number, self._decoder.decode(content).copy())
        except ImageError as error:
            return _Picture(number, fault=error)

    def _begun(self, batch: _Batch) -> _Batch:
        batch.first = self._ask(batch, self._settings.det_sizes[0])
        return batch

    def _ask(self, batch: _Batch, size: int) -> Callable[[], None]:
        """Look for faces where none was found so far. Returns what waits for the answer."""
        asked = [one for one in batch.pictures if _fits(one, size)]
        if not asked:
            return lambda: None
        squares = [fitted(one.pixels, size) for one in asked if one.pixels is not None]
        pixels = np.stack([square.pixels for square in squares])
        answer = self._detect(pixels, np.array([square.scale for square in squares]))

        def settle() -> None:
            for one, faces in zip(asked, map(usable, answer()), strict=True):
                one.found = faces if len(faces[0]) else None

        return settle

    def _faces(self, batch: _Batch) -> Iterator[tuple[int, AlignedFace | ImageError]]:
        batch.first()
        for size in self._settings.det_sizes[1:]:
            self._ask(batch, size)()
        for one in batch.pictures:
            yield one.number, self._face(one)

    def _face(self, one: _Picture) -> AlignedFace | ImageError:
        if one.pixels is None:
            assert one.fault is not None  # noqa: S101
            return one.fault
        if one.found is None:
            return no_face()
        try:
            return aligned(one.pixels, *one.found, self._settings)
        except ImageError as error:
            return error


def _fits(one: _Picture, size: int) -> bool:
    if one.pixels is None or one.found is not None:
        return False
    short, long = sorted(one.pixels.shape[:2])
    # Scaled, it would be less than one pixel wide.
    return bool(size * short >= long)
