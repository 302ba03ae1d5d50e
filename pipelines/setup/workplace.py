"""Where the work is done: in this process, or on a Ray cluster."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from infra.models.packs import ModelPack
from infra.ray_cluster import cluster, cluster_size
from infra.settings import Settings
from pipelines.plan.plans import Plan
from pipelines.run.local import LocalEngine
from pipelines.run.work import Engine, Work
from pipelines.setup.ports import forget_keys
from pipelines.setup.worker import WorkerSpec, shard_work, try_models
from pipelines.shard.context import ShardResult
from pipelines.spec.faces import FaceSettings
from pipelines.spec.template_job import TemplateJob
from pipelines.spec.workplace import Workplace


@dataclass(frozen=True)
class ShardExecutor:
    """Runs a plan's shards on an engine."""

    engine: Engine
    spec: WorkerSpec

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
    with engine(place, settings, gpus=faces.provider != "cpu") as found:
        if pack:
            deque(found.run(Work(try_models, (pack, faces)), [0]), maxlen=0)
        yield found


@contextmanager
def engine(place: Workplace, settings: Settings, *, gpus: bool = False) -> Iterator[Engine]:
    """What runs units of work: this process, or a Ray cluster that is held meanwhile.

    gpus: each GPU of the cluster gets a process that embeds, unless `place` says how many do.
    """
    if place.executor == "local":
        yield LocalEngine()
        return
    address = place.ray_address or settings.ray_address
    with cluster(address, place.workers or os.cpu_count() or 1) as check:
        from pipelines.run.ray import RayEngine

        size = cluster_size()
        # Without a GPU the workers themselves find that the provider is not active, and say so.
        found = size.gpus if gpus else 0
        yield RayEngine(
            # A cluster that scales from nothing has no CPU yet.
            workers=place.workers or max(1, size.cpus),
            embedders=found if place.embedders is None else place.embedders,
            on_gpu=found > 0,
            memory=size.memory,
            check=check,
        )
