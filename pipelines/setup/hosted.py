"""A shard of photos whose models are elsewhere: a host with a GPU serves workers that have none.

A worker reads, decodes, aligns, protects and writes, and keeps its photos to itself. What goes to
the host is each photo fitted into the detector's square, then the aligned face.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import count
from typing import Any, Final

import numpy as np

from infra.faces.batch_aligner import BatchAligner
from infra.faces.decoder import Decoder
from infra.faces.detector import BatchDetector, Faces
from infra.models.packs import ModelPack
from ironmask.arrays import F64
from ironmask.errors import ParameterError
from pipelines.plan.plans import Plan
from pipelines.ports import F32, U8
from pipelines.run.work import Answer, Ask, Hosted, Work
from pipelines.setup.ports import kept_keys
from pipelines.setup.worker import WorkerSpec, context, recogniser, whole_shard
from pipelines.shard import photos
from pipelines.shard.context import ShardResult, bytes_in_memory, clock, is_stored
from pipelines.shard.protect import protect_shard
from pipelines.shard.transit import DETECT, EMBED, Channel
from pipelines.spec.faces import FaceSettings
from pipelines.spec.template_job import TemplateJob

# Crops in one question.
_CROPS: Final = 64


def shard_work(spec: WorkerSpec, job: TemplateJob, plan: Plan) -> Work:
    """A plan's shards as units of work; those of photos may have their models elsewhere."""
    photographs = not (is_stored(job) or job.purpose.rewrites)
    hosted = Hosted(hosted_shard, ShardModels) if photographs else None
    return Work(whole_shard, (spec, job, plan), bytes_in_memory(job), hosted)


def hosted_shard(
    spec: WorkerSpec, job: TemplateJob, plan: Plan, ask: Ask, shard: int
) -> ShardResult:
    """All stages of one shard, the models asked from afar."""
    around = context(spec, job, plan)
    models = DistantModels(Channel(around.keys, plan.run_id, shard), ask, job.params.n)
    aligner = BatchAligner(job.faces, _decoder(job.faces), models.detect)
    aligned = photos.prepare(around, shard, aligner)
    with clock(aligned.timings, "embed"):
        embedded = photos.embed(aligned, models)
    return protect_shard(around, shard, aligned, embedded)


class DistantModels:
    """A detector and a `Recogniser` that a host has; what passes to it and back is encrypted."""

    def __init__(self, channel: Channel, ask: Ask, n: int) -> None:
        self.n = n
        self._channel = channel
        self._ask = ask
        self._numbers = count()

    def detect(self, pixels: U8, scales: F64) -> Callable[[], list[Faces]]:
        """Begin to find faces; as `BatchDetector.detect` once it is asked for."""
        wait = self._put(DETECT, pixels, scales)

        def faces() -> list[Faces]:
            counts, found, points = wait()
            ends = np.cumsum(counts)[:-1]
            return list(zip(np.split(found, ends), np.split(points, ends), strict=True))

        return faces

    def embed(self, crops: U8) -> F32:
        """Map (k, 112, 112, 3) uint8 BGR to (k, n) float32, not normalised."""
        starts = range(0, len(crops), _CROPS)
        waiting = [self._put(EMBED, crops[start : start + _CROPS]) for start in starts]
        return np.concatenate([wait()[0] for wait in waiting])

    def _put(self, what: str, *arrays: Any) -> Callable[[], list[Any]]:
        number = next(self._numbers)
        sealed = self._channel.question(what, number, *arrays)
        answer: Answer = self._ask(self._channel.shard, what, number, sealed)
        return lambda: self._channel.answered(what, number, answer())


class ShardModels:
    """Holds detector and recogniser in one process, and answers `DistantModels`."""

    def __init__(self, spec: WorkerSpec, job: TemplateJob, plan: Plan) -> None:
        self._common = spec, job, plan

    def load(self) -> None:
        """Load the models. Raises `ModelError`, `ProviderError` or `KeyStoreError`."""
        spec, job, _ = self._common
        assert spec.pack is not None  # noqa: S101
        self._channel(0)
        _detector(spec.pack, job.faces)
        recogniser(spec, job)

    def answer(self, shard: int, what: str, number: int, sealed: bytes) -> bytes:
        """The encrypted answer to an encrypted question. Raises `TamperedError`."""
        channel = self._channel(shard)
        given = channel.asked(what, number, sealed)
        return channel.answer(what, number, *self._found(what, given))

    def _found(self, what: str, given: list[Any]) -> list[Any]:
        spec, job, _ = self._common
        assert spec.pack is not None  # noqa: S101
        if what == EMBED:
            return [recogniser(spec, job).embed(*given)]
        if what != DETECT:
            raise ParameterError(f"no question {what!r}")
        faces = _detector(spec.pack, job.faces).detect(*given)
        counts = np.array([len(found) for found, _ in faces])
        return [counts, *(np.concatenate(some) for some in zip(*faces, strict=True))]

    def _channel(self, shard: int) -> Channel:
        spec, job, plan = self._common
        keys = kept_keys(spec.keys, spec.table_id, job.generation)
        return Channel(keys, plan.run_id, shard)


@lru_cache(maxsize=1)
def _detector(pack: ModelPack, faces: FaceSettings) -> BatchDetector:
    return BatchDetector(pack, faces)


@lru_cache(maxsize=1)
def _decoder(faces: FaceSettings) -> Decoder:
    return Decoder(faces)


class TriedModels:
    """A host that is only there to see whether the models load."""

    def __init__(self, pack: ModelPack, faces: FaceSettings) -> None:
        self._common = pack, faces

    def load(self) -> None:
        """Raises `ModelError` or `ProviderError` where they do not."""
        _detector(*self._common)

    def answer(self, *_question: Any) -> None:
        """It has none."""


def tried_from_afar(_pack: ModelPack, _faces: FaceSettings, _ask: Ask, _unit: int) -> None:
    """A unit that needs a host, and nothing of it."""
