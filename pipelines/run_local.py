"""The stages one after another in this process: same rows, no cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from threadpoolctl import threadpool_limits

from pipelines import stages, vault, wiring
from pipelines.auditing import units
from pipelines.auditing.job import Audit, Finding
from pipelines.auditing.surroundings import surroundings
from pipelines.evaluation import blocks
from pipelines.evaluation.job import Evaluation
from pipelines.finish import finish
from pipelines.job import EnrolJob, SourceKind
from pipelines.plan import Plan
from pipelines.rewrite import rewrite
from pipelines.stages import ShardResult
from pipelines.wiring import Spec


@dataclass(frozen=True)
class LocalExecutor:
    """Runs every shard here."""

    spec: Spec

    def run(self, job: EnrolJob, plan: Plan, shards: Iterable[int]) -> Iterator[ShardResult]:
        for shard in shards:
            # Matrices of this size are too small for threads, which only get in each other's way.
            with threadpool_limits(1):
                result = whole_shard(self.spec, job, plan, shard)
            yield result


@dataclass(frozen=True)
class LocalBlocks:
    """Runs an evaluation's blocks here. storage: `StorageSettings.public()`."""

    storage: tuple[tuple[str, Any], ...]

    def run(self, evaluation: Evaluation, numbers: Iterable[int]) -> Iterator[int]:
        """Yield the blocks as they are done."""
        for number in numbers:
            yield whole_block(self.storage, evaluation, number)


@dataclass(frozen=True)
class LocalUnits:
    """Runs an audit's units here. storage: `StorageSettings.public()`."""

    storage: tuple[tuple[str, Any], ...]

    def run(self, audit: Audit, numbers: Iterable[int]) -> Iterator[Finding]:
        """Yield the findings as they are made."""
        for number in numbers:
            yield whole_unit(self.storage, audit, number)


def whole_unit(storage: tuple[tuple[str, Any], ...], audit: Audit, number: int) -> Finding:
    """One unit of an audit: on one thread, so that times are those of one core."""
    with threadpool_limits(1):
        return units.run(surroundings(storage, audit), audit.units[number])


def whole_block(storage: tuple[tuple[str, Any], ...], evaluation: Evaluation, number: int) -> int:
    """One block of an evaluation: on one thread, so that sums come out the same anywhere."""
    with threadpool_limits(1):
        return blocks.run(evaluation, wiring.sources(storage, evaluation.issued), number)


def whole_shard(spec: Spec, job: EnrolJob, plan: Plan, shard: int) -> ShardResult:
    """All stages of one shard."""
    context = wiring.context(spec, job, plan)
    if job.purpose.rewrites:
        return rewrite(context, shard)
    if stages.is_stored(job):
        load = vault.load if job.kind is SourceKind.VAULT else stages.load_embeddings
        prepared, embeddings = load(context, shard)
        return finish(context, shard, prepared, embeddings)
    prepared = stages.prepare(context, shard, wiring.aligner(spec, job))
    recogniser = wiring.recogniser(spec, job)
    with stages.clock(prepared.timings, "embed"):
        embeddings = stages.embed(prepared, recogniser)
    return finish(context, shard, prepared, embeddings)
