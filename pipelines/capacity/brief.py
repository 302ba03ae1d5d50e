"""What a job would take, told in a second: the short form that a dry run prints."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

from threadpoolctl import threadpool_limits

from infra.models.packs import ModelPack
from infra.settings import StorageSettings
from ironmask.errors import IronmaskError
from ironmask.random import secure_generator
from ironmask.template import Protector
from pipelines.capacity.estimate import Load, Requests, requests
from pipelines.capacity.measure import embed_some
from pipelines.setup.worker import WorkerSpec
from pipelines.spec.template_job import TemplateJob

_SECONDS: Final = 0.3
_PHOTOS: Final = 6
# What comes to a row beside its helper and digests, and to an input: bytes.
_ROW: Final = 1 << 10
_INPUT: Final = 1 << 9
# Reading, encrypting and writing, beside what is measured here.
_BESIDE: Final = 1.15


@dataclass(frozen=True)
class Brief:
    """cpu_seconds: of one processor, start apart. here: seconds by the clock on `workers` workers.
    stored: bytes. Both times are None where photos could not be measured.
    """

    cpu_seconds: float | None
    here: float | None
    workers: int
    stored: int
    requests: Requests


def brief(
    job: TemplateJob,
    load: Load,
    template_bytes: int,
    workers: int,
    photo: float | None,
) -> Brief:
    """What a job would take. template_bytes: of all helpers and digests. photo: seconds of one."""
    stored = template_bytes + load.subjects * _ROW + load.inputs * _INPUT
    if load.photos and load.todo and photo is None:
        return Brief(None, None, workers, stored, requests(load))
    template = _BESIDE * _template(job) if load.subjects else 0.0
    work = load.subjects * template + load.todo * (photo or 0.0)
    rounds = ceil(load.shards / workers) / max(load.shards, 1)
    here = work * rounds + load.planning
    return Brief(work + load.planning_cpu, here, workers, stored, requests(load))


def photo_seconds(
    job: TemplateJob, pack: ModelPack | None, storage: StorageSettings, sample: tuple[str, ...]
) -> float | None:
    """CPU seconds of a photo on this machine; None without a model, a photo or a provider."""
    if pack is None or not sample:
        return None
    spec = WorkerSpec(storage.public(), Path(), "", pack)
    with suppress(IronmaskError), threadpool_limits(1):
        # The first one loads the models.
        embed_some(spec, job, sample, 1, 0)
        begun = time.process_time()
        embed_some(spec, job, sample, _PHOTOS, 0)
        return (time.process_time() - begun) / _PHOTOS
    return None


def _template(job: TemplateJob) -> float:
    """CPU seconds of a template, of nobody's."""
    rng, done = secure_generator(), 0
    with threadpool_limits(1), Protector(job.params, job.encoding) as protector:
        begun = time.process_time()
        while (taken := time.process_time() - begun) < _SECONDS or done < 2:
            protector.protect(rng.standard_normal(job.params.n), bytes(32))
            done += 1
    return taken / done
