"""The stages on Ray: whole shards in CPU tasks, or with a pool of embedding actors between them.

Where a shard's faces are embedded on the CPU that aligned them nothing travels. With actors, on
GPUs, aligned crops and sealed embeddings do; helpers and plain embeddings never enter the object
store. Shards in flight are bounded, so memory does not grow with the dataset. A shard that was lost
with a worker or a node, or is overdue, is submitted again, a few times.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, Protocol

import numpy as np
import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from ironmask.errors import IronmaskError, WorkerError
from pipelines import stages, wiring
from pipelines.auditing.job import Audit, Finding
from pipelines.evaluation.job import Evaluation
from pipelines.finish import finish
from pipelines.job import EnrolJob
from pipelines.plan import Plan
from pipelines.ports import U8
from pipelines.run_local import whole_block, whole_shard, whole_unit
from pipelines.stages import Prepared, ShardResult
from pipelines.wiring import Spec

_log = logging.getLogger("ironmask.enrol")

_ATTEMPTS: Final = 3
# Ray's own retries, by which it makes lost objects again.
_RETRIES: Final = 1
_DEADLINE_S: Final = 1800.0
_POLL_S: Final = 5.0
_FAREWELL_S: Final = 10.0
_PAUSE_S: Final = 1.0


@dataclass(frozen=True)
class RayExecutor:
    """Runs shards on the Ray cluster that this process is connected to.

    workers: CPU workers. embedders: embedding actors apart from them; 0: each worker embeds what it
    aligned. on_gpu: each of these actors has a GPU of its own. memory: bytes for tasks on the
    smallest node, so that none takes more shards than it can hold; 0: not known. deadline: seconds
    after which a shard is given to somebody else, from when all but as many others as there are
    workers had ended that were submitted before it. check: raises `WorkerError` once the cluster is
    gone.
    """

    spec: Spec
    workers: int
    embedders: int = 0
    on_gpu: bool = False
    memory: int = 0
    deadline: float = _DEADLINE_S
    check: Callable[[], None] = lambda: None

    def needs(self, job: EnrolJob) -> dict[str, int]:
        """What Ray must keep free for one task, beside its CPU."""
        # What no node has would be waited for without end.
        return {"memory": min(stages.bytes_in_memory(job), self.memory)} if self.memory else {}

    def run(self, job: EnrolJob, plan: Plan, shards: Iterable[int]) -> Iterator[ShardResult]:
        stage: _Stage
        if stages.is_stored(job) or job.purpose.rewrites or not self.embedders:
            stage = _Alone(_whole.options(**self.needs(job)), (self.spec, job, plan))
        else:
            stage = _Pool(self, job, plan)
        yield from _fly(stage, self, shards)


@dataclass(frozen=True)
class RayBlocks:
    """Runs an evaluation's blocks on the Ray cluster that this process is connected to.

    storage: `StorageSettings.public()`. The rest as of `RayExecutor`.
    """

    storage: tuple[tuple[str, Any], ...]
    workers: int
    deadline: float = _DEADLINE_S
    check: Callable[[], None] = lambda: None

    def run(self, evaluation: Evaluation, blocks: Iterable[int]) -> Iterator[int]:
        """Yield the blocks as they are done."""
        yield from _fly(_Alone(_block, (self.storage, evaluation)), self, blocks)


@dataclass(frozen=True)
class RayUnits:
    """Runs an audit's units on the Ray cluster of this process; see `RayBlocks`."""

    storage: tuple[tuple[str, Any], ...]
    workers: int
    deadline: float = _DEADLINE_S
    check: Callable[[], None] = lambda: None

    def run(self, audit: Audit, numbers: Iterable[int]) -> Iterator[Finding]:
        """Yield the findings as they are made."""
        yield from _fly(_Alone(_unit, (self.storage, audit)), self, numbers)


_Limits = RayExecutor | RayBlocks | RayUnits


def _fly(stage: _Stage, limits: _Limits, units: Iterable[int]) -> Iterator[Any]:
    """Results of units of work, so many at a time that workers never wait."""
    flight = _Flight(stage, limits)
    waiting = iter(units)
    try:
        for unit in islice(waiting, 2 * limits.workers):
            flight.submit(unit)
        while flight:
            limits.check()
            for result in flight.results():
                for unit in islice(waiting, 1):
                    flight.submit(unit)
                yield result
    finally:
        # What goes on after a failure would write files that nobody waits for.
        flight.cancel()


@dataclass
class _Try:
    """One attempt at a shard. tasks: what can be cancelled. since: when it could have started.

    done: called once it has ended, with the loss that ended it, if one did.
    """

    shard: int
    number: int
    tasks: list[Any]
    done: Callable[[RayError | None], None]
    since: float | None = None


Submitted = tuple[list[Any], Callable[[RayError | None], None]]
"""The tasks of a shard, that of its result last; and what to call once they have ended."""


class _Stage(Protocol):
    """What makes tasks of a unit of work."""

    def submit(self, shard: int) -> Submitted: ...


class _Alone:
    """Units of work of one task each."""

    def __init__(self, task: Any, common: tuple[Any, ...]) -> None:
        self._task, self._common = task, common

    def submit(self, shard: int) -> Submitted:
        return [self._task.remote(*self._common, shard)], lambda _: None


class _Pool:
    """Shards of images: embedding actors, each shard going to the one with the least to do."""

    def __init__(self, executor: RayExecutor, job: EnrolJob, plan: Plan) -> None:
        self._common = executor.spec, job, plan
        # The actors take turns with the tasks on the CPUs; only a GPU is reserved.
        self._options = {"num_gpus": 1 if executor.on_gpu else 0, "num_cpus": 0}
        self._actors = [self._actor() for _ in range(executor.embedders)]
        self._prepare = _remote_prepare.options(**executor.needs(job))
        self._finish = _remote_finish.options(**executor.needs(job))
        self._busy: Counter[Any] = Counter()

    def _actor(self) -> Any:
        kind = _embedder.options(**self._options, max_restarts=-1, max_task_retries=_ATTEMPTS)
        return kind.remote(*self._common)

    def submit(self, shard: int) -> Submitted:
        actor = min(self._actors, key=lambda known: self._busy[known])
        self._busy[actor] += 1
        prepared, crops = self._prepare.remote(*self._common, shard)
        sealed = actor.embed.remote(shard, crops)
        finished = self._finish.remote(*self._common, shard, prepared, sealed)
        return [prepared, finished], lambda loss: self._ended(actor, loss)

    def _ended(self, actor: Any, loss: RayError | None) -> None:
        self._busy[actor] -= 1
        # Its node may be gone for longer than a restart there is waited for; or it hangs.
        if isinstance(loss, RayActorError) and actor in self._actors:
            self._actors[self._actors.index(actor)] = self._actor()
            ray.kill(actor)


class _Flight:
    """Shards that are being worked on."""

    def __init__(self, stage: _Stage, limits: _Limits) -> None:
        self._stage = stage
        self._workers = limits.workers
        self._deadline = limits.deadline
        self._tries: dict[Any, _Try] = {}

    def __bool__(self) -> bool:
        return bool(self._tries)

    def submit(self, shard: int, number: int = 1) -> None:
        tasks, done = self._stage.submit(shard)
        self._tries[tasks[-1]] = _Try(shard, number, tasks, done)

    def results(self) -> Iterator[Any]:
        """Wait a little; yield what has ended well, submit again what was lost or is overdue."""
        ended, _ = ray.wait(list(self._tries), num_returns=1, timeout=_POLL_S)
        for reference in ended:
            tried = self._tries.pop(reference)
            try:
                result = _result(reference)
            except RayError as error:
                tried.done(error)
                self._again(tried, type(error).__name__)
                continue
            tried.done(None)
            yield result
        self._replace_overdue()

    def _replace_overdue(self) -> None:
        now = time.monotonic()
        # The oldest are those that can run; the others wait for them.
        for reference, tried in list(islice(self._tries.items(), self._workers)):
            tried.since = now if tried.since is None else tried.since
            if now - tried.since > self._deadline and not _has_ended(reference):
                del self._tries[reference]
                _cancel(tried.tasks)
                # Whoever was to embed it may hang as well.
                tried.done(RayActorError())
                self._again(tried, "its deadline has passed")

    def _again(self, tried: _Try, why: str) -> None:
        if tried.number == _ATTEMPTS:
            raise WorkerError(
                f"shard {tried.shard} was lost {_ATTEMPTS} times ({why}); what was committed is "
                "safe: run the same command to continue, with fewer --workers if memory was short"
            )
        _log.warning("shard %d is submitted again: %s", tried.shard, why)
        time.sleep(_PAUSE_S * tried.number)
        self.submit(tried.shard, tried.number + 1)

    def cancel(self) -> None:
        """End what is still running, and wait a moment until it has."""
        for tried in self._tries.values():
            _cancel(tried.tasks)
        if self._tries:
            with contextlib.suppress(RayError):
                ray.wait(list(self._tries), num_returns=len(self._tries), timeout=_FAREWELL_S)
        self._tries.clear()


def _has_ended(reference: Any) -> bool:
    return bool(ray.wait([reference], timeout=0)[0])


def _cancel(tasks: list[Any]) -> None:
    for task in tasks:
        with contextlib.suppress(RayError, ValueError):
            ray.cancel(task, force=True)


def _result(reference: Any) -> Any:
    """The result of a shard. Raises `RayError` where it was lost, else the stage's own error."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, IronmaskError | RayError):
            raise error.cause from None
        _log.error("a stage failed: %s", error.traceback_str)
        raise WorkerError(f"a stage failed: {type(error.cause).__name__}") from None


def _transit(plan: Plan, shard: int) -> bytes:
    return f"ironmask embeddings in transit {plan.run_id} {shard}".encode()


def _prepare(spec: Spec, job: EnrolJob, plan: Plan, shard: int) -> tuple[Prepared, U8]:
    context = wiring.context(spec, job, plan)
    prepared = stages.prepare(context, shard, wiring.aligner(spec, job))
    return replace(prepared, crops=prepared.crops[:0]), prepared.crops


class _Embedder:
    """Holds the recogniser in one process, from the first shard on: its errors are a shard's."""

    def __init__(self, spec: Spec, job: EnrolJob, plan: Plan) -> None:
        self._common = spec, job, plan

    def embed(self, shard: int, crops: U8) -> tuple[bytes, float]:
        """Return the shard's embeddings, sealed for the journey, and the seconds it took."""
        spec, job, plan = self._common
        context = wiring.context(spec, job, plan)
        prepared = Prepared([], [], crops)
        with stages.clock(prepared.timings, "embed"):
            embeddings = stages.embed(prepared, wiring.recogniser(spec, job))
        sealed = context.keys.seal(embeddings.tobytes(), _transit(plan, shard))
        return sealed, prepared.timings["embed"]


def _finish(
    spec: Spec, job: EnrolJob, plan: Plan, shard: int, prepared: Prepared, sent: tuple[bytes, float]
) -> ShardResult:
    context = wiring.context(spec, job, plan)
    sealed, seconds = sent
    plain = context.keys.open(sealed, _transit(plan, shard))
    embeddings = np.frombuffer(plain, dtype=np.float32).reshape(-1, job.params.n)
    prepared.timings["embed"] = seconds
    return finish(context, shard, prepared, embeddings)


# Ray's type hints know neither several returns nor options of actors.
_block: Any = ray.remote(num_cpus=1, max_retries=_RETRIES)(whole_block)
_unit: Any = ray.remote(num_cpus=1, max_retries=_RETRIES)(whole_unit)
_whole: Any = ray.remote(num_cpus=1, max_retries=_RETRIES)(whole_shard)
_remote_prepare: Any = ray.remote(num_cpus=1, num_returns=2, max_retries=_RETRIES)(_prepare)
_remote_finish: Any = ray.remote(num_cpus=1, max_retries=_RETRIES)(_finish)
_embedder: Any = ray.remote(_Embedder)
