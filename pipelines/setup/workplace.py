"""Where the work is done: in this process, or on a Ray cluster."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from infra.models.packs import ModelPack
from infra.ray_cluster import cluster, resource
from infra.settings import Settings
from pipelines.plan.plans import Plan
from pipelines.run.local import LocalEngine
from pipelines.run.work import Engine, Hosted, Standing, Work
from pipelines.setup.hosted import TriedModels, shard_work, tried_from_afar
from pipelines.setup.ports import forget_keys
from pipelines.setup.worker import WorkerSpec, try_models
from pipelines.shard.context import ShardResult
from pipelines.spec.faces import FaceSettings, Provider
from pipelines.spec.template_job import TemplateJob
from pipelines.spec.workplace import Workplace

if TYPE_CHECKING:
    from pipelines.run.ray_stages import Hosts

GPU: Final = "GPU"
"""What Ray calls the resource that a process with models reserves."""


def needs_gpu(provider: Provider) -> bool:
    """Whether models run where a GPU is."""
    return provider != "cpu"


@dataclass(frozen=True)
class ShardExecutor:
    """Runs a plan's shards on an engine."""

    engine: Engine
    spec: WorkerSpec

    @property
    def standing(self) -> Standing:
        return self.engine.standing

    def run(self, job: TemplateJob, plan: Plan, shards: Iterable[int]) -> Iterator[ShardResult]:
        """Yield what each shard gave, in any order."""
        try:
            yield from self.engine.run(shard_work(self.spec, job, plan), shards)
        finally:
            forget_keys()


@contextmanager
def tried_engine(
    place: Workplace, settings: Settings, pack: ModelPack | None, faces: FaceSettings
) -> Iterator[Engine]:
    """As `engine`, once one of its processes has loaded the detector, and has the recogniser.

    pack: None where no model is needed. Raises `ModelError` where it lacks files or the provider.
    """
    with engine(place, settings, gpus=needs_gpu(faces.provider)) as found:
        if pack:
            hosted = Hosted(tried_from_afar, TriedModels)
            tried = Work(try_models, (pack, faces), hosted=hosted)
            deque(found.run(tried, [0]), maxlen=0)
        yield found


@contextmanager
def engine(place: Workplace, settings: Settings, *, gpus: bool = False) -> Iterator[Engine]:
    """What runs units of work: this process, or a Ray cluster that is held meanwhile.

    gpus: models need GPUs; each share of one gets a process that holds them, unless `place` says
    how many do.
    """
    if place.executor == "local":
        yield LocalEngine()
        return
    address = place.ray_address or settings.ray_address
    with cluster(address, place.workers or os.cpu_count() or 1) as check:
        from pipelines.run.ray import RayEngine

        grows = address is not None
        yield RayEngine(
            workers=place.workers, hosts=_hosts(place, gpus, grows), grows=grows, check=check
        )


def _hosts(place: Workplace, gpus: bool, grows: bool) -> Hosts | None:
    """Who holds the models; None where each worker does."""
    from pipelines.run.ray_stages import Hosts

    # A machine without a GPU gets none. Its workers find that the provider is not active.
    reserved = {GPU: place.gpu_fraction} if gpus and (grows or resource(GPU)) else {}
    if place.embedders is None:
        return Hosts(None, reserved) if reserved else None
    return Hosts(place.embedders, reserved) if place.embedders else None
