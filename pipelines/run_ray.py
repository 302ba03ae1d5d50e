"""The stages on Ray: detection in CPU tasks, a pool of embedding actors, one fused last stage.

Shards in flight are bounded, so memory does not grow with the dataset. Between stages travel
aligned crops and sealed embeddings; helpers and plain embeddings never enter the object store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from ironmask.errors import IronmaskError, WorkerError
from pipelines import stages, wiring
from pipelines.finish import finish
from pipelines.job import EnrolJob
from pipelines.plan import Plan
from pipelines.ports import U8
from pipelines.stages import Prepared, ShardResult
from pipelines.wiring import Spec

_RETRIES = 3


@dataclass(frozen=True)
class RayExecutor:
    """Runs shards on the Ray cluster that this process is connected to.

    workers: CPU workers, and embedding actors where these run on CPU. gpus: embedding actors where
    they run on GPU, one each.
    """

    spec: Spec
    workers: int
    gpus: int = 0

    def run(self, job: EnrolJob, plan: Plan, shards: Iterable[int]) -> Iterator[ShardResult]:
        submit = self._submit_stored if stages.is_stored(job) else _Pool(self, job, plan).submit
        args = (self.spec, job, plan)
        waiting = iter(shards)
        running = [submit(*args, shard) for shard in islice(waiting, 2 * self.workers)]
        try:
            while running:
                finished, running = ray.wait(running, num_returns=1)
                running += [submit(*args, shard) for shard in islice(waiting, 1)]
                yield _result(finished[0])
        finally:
            # What goes on after a failure would write files that nobody waits for.
            for reference in running:
                ray.cancel(reference)

    @staticmethod
    def _submit_stored(spec: Spec, job: EnrolJob, plan: Plan, shard: int) -> Any:
        return _protect_stored.remote(spec, job, plan, shard)


class _Pool:
    """Embedding actors, each shard going to the next one."""

    def __init__(self, executor: RayExecutor, job: EnrolJob, plan: Plan) -> None:
        # The actors take turns with the tasks on the CPUs; only a GPU is reserved.
        options = {"num_gpus": 1 if executor.gpus else 0, "num_cpus": 0}
        size = executor.gpus or executor.workers
        self._actors = [
            _embedder.options(**options, max_restarts=-1, max_task_retries=-1).remote(
                executor.spec, job, plan
            )
            for _ in range(size)
        ]
        self._next = 0

    def submit(self, spec: Spec, job: EnrolJob, plan: Plan, shard: int) -> Any:
        actor = self._actors[self._next % len(self._actors)]
        self._next += 1
        prepared, crops = _remote_prepare.remote(spec, job, plan, shard)
        sealed = actor.embed.remote(shard, crops)
        return _finish.remote(spec, job, plan, shard, prepared, sealed)


def _result(reference: Any) -> ShardResult:
    try:
        result: ShardResult = ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, IronmaskError):
            raise error.cause from None
        if isinstance(error.cause, RayError):
            raise _lost(error.cause) from None
        raise
    except RayError as error:
        raise _lost(error) from None
    return result


def _lost(error: RayError) -> WorkerError:
    return WorkerError(
        f"a worker was lost ({type(error).__name__}); what was committed is safe: run the same "
        "command to continue, with fewer --workers if memory was short"
    )


def _transit(plan: Plan, shard: int) -> bytes:
    return f"ironmask embeddings in transit {plan.run_id} {shard}".encode()


def _prepare(spec: Spec, job: EnrolJob, plan: Plan, shard: int) -> tuple[Prepared, U8]:
    context = wiring.context(spec, job, plan)
    prepared = stages.prepare(context, shard, wiring.aligner(spec, job))
    return replace(prepared, crops=prepared.crops[:0]), prepared.crops


class _Embedder:
    """Holds the recogniser in one process."""

    def __init__(self, spec: Spec, job: EnrolJob, plan: Plan) -> None:
        self._context = wiring.context(spec, job, plan)
        self._recogniser = wiring.recogniser(spec, job)

    def embed(self, shard: int, crops: U8) -> tuple[bytes, float]:
        """Return the shard's embeddings, sealed for the journey, and the seconds it took."""
        prepared = Prepared([], [], crops)
        with stages.clock(prepared.timings, "embed"):
            embeddings = stages.embed(prepared, self._recogniser)
        plan = self._context.plan
        sealed = self._context.keys.seal(embeddings.tobytes(), _transit(plan, shard))
        return sealed, prepared.timings["embed"]


@ray.remote(num_cpus=1, max_retries=_RETRIES)
def _finish(
    spec: Spec, job: EnrolJob, plan: Plan, shard: int, prepared: Prepared, sent: tuple[bytes, float]
) -> ShardResult:
    context = wiring.context(spec, job, plan)
    sealed, seconds = sent
    plain = context.keys.open(sealed, _transit(plan, shard))
    embeddings = np.frombuffer(plain, dtype=np.float32).reshape(-1, job.params.n)
    prepared.timings["embed"] = seconds
    return finish(context, shard, prepared, embeddings)


@ray.remote(num_cpus=1, max_retries=_RETRIES)
def _protect_stored(spec: Spec, job: EnrolJob, plan: Plan, shard: int) -> ShardResult:
    context = wiring.context(spec, job, plan)
    prepared, embeddings = stages.load_embeddings(context, shard)
    return finish(context, shard, prepared, embeddings)


# Ray's type hints know neither several returns nor options of actors.
_remote_prepare: Any = ray.remote(num_cpus=1, num_returns=2, max_retries=_RETRIES)(_prepare)
_embedder: Any = ray.remote(_Embedder)
