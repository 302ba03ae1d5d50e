"""Units of work on Ray: whole in CPU tasks, or in parts with a pool of actors that hold models.

Units in flight are bounded, so memory does not grow with the dataset. One that was lost with a
worker or a node, or is overdue, is submitted again, a few times.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Protocol

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from ironmask.errors import IronmaskError, KeyStoreError, ModelError, WorkerError
from pipelines.run import stop
from pipelines.run.events import HERE
from pipelines.run.work import Common, Parts, Work

_log = logging.getLogger("ironmask.enrol")

_ATTEMPTS: Final = 3
# Ray's own retries, by which it makes lost objects again.
_RETRIES: Final = 1
_DEADLINE_S: Final = 1800.0
_POLL_S: Final = 1.0
_FAREWELL_S: Final = 10.0
_PAUSE_S: Final = 1.0
_ADDRESS: Final = re.compile(r"\(pid=\d+, ip=([^\s,)]+)")


@dataclass(frozen=True)
class RayEngine:
    """Runs units of work on the Ray cluster that this process is connected to.

    workers: CPU workers. embedders: actors that hold a model, apart from them; 0: each worker does
    whole units. on_gpu: each of these actors has a GPU of its own. memory: bytes for tasks on the
    smallest node, so that none takes more units than it can hold; 0: not known. deadline: seconds
    after which a unit is given to somebody else, from when all but as many others as there are
    workers had ended that were submitted before it. check: raises `WorkerError` once the cluster is
    gone.
    """

    workers: int
    embedders: int = 0
    on_gpu: bool = False
    memory: int = 0
    deadline: float = _DEADLINE_S
    check: Callable[[], None] = lambda: None

    def needs(self, work: Work) -> dict[str, int]:
        """What Ray must keep free for one task, beside its CPU."""
        # What no node has would be waited for without end.
        known = work.memory and self.memory
        return {"memory": min(work.memory, self.memory)} if known else {}

    def run(self, work: Work, units: Iterable[int]) -> Iterator[Any]:
        """Yield the results as they come: so many units at a time that workers never wait.

        Ends early where a signal waits, with what ends by itself within a moment.
        """
        flight = _Flight(self._stage(work), self.workers, max(self.deadline, work.seconds))
        waiting = iter(units)
        try:
            for unit in islice(waiting, 2 * self.workers):
                flight.submit(unit)
            while flight:
                self.check()
                for result in flight.results():
                    for unit in islice(waiting, 1):
                        flight.submit(unit)
                    yield result
                if stop.wanted():
                    yield from flight.last_results()
                    return
        finally:
            # What goes on after a failure would write files that nobody waits for.
            flight.cancel()

    def _stage(self, work: Work) -> _Stage:
        needs = self.needs(work)
        if not (work.parts and self.embedders):
            return _Alone(_task(work.function).options(**needs), work.common)
        # The actors take turns with the tasks on the CPUs; only a GPU is reserved.
        reserved = {"num_gpus": 1 if self.on_gpu else 0, "num_cpus": 0}
        return _Pool(work.parts, work.common, self.embedders, needs, reserved)


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


def _task(function: Callable[..., Any]) -> Any:
    """A function as Ray's task. Its type hints know neither several returns nor options."""
    return ray.remote(num_cpus=1, max_retries=_RETRIES)(function)


class _Alone:
    """Units of work of one task each."""

    def __init__(self, task: Any, common: Common) -> None:
        self._task, self._common = task, common

    def submit(self, shard: int) -> Submitted:
        return [self._task.remote(*self._common, shard)], lambda _: None


class _Pool:
    """Units in parts: actors that hold a model, each unit going to the one with the least to do."""

    def __init__(
        self,
        parts: Parts,
        common: Common,
        embedders: int,
        needs: dict[str, int],
        reserved: dict[str, int],
    ) -> None:
        self._common = common
        self._kind: Any = ray.remote(parts.embedder).options(
            **reserved, max_restarts=-1, max_task_retries=_ATTEMPTS
        )
        self._actors = [self._actor() for _ in range(embedders)]
        self._prepare = _task(parts.prepare).options(num_returns=2, **needs)
        self._finish = _task(parts.finish).options(**needs)
        self._busy: Counter[Any] = Counter()

    def _actor(self) -> Any:
        return self._kind.remote(*self._common)

    def submit(self, shard: int) -> Submitted:
        actor = min(self._actors, key=lambda known: self._busy[known])
        self._busy[actor] += 1
        prepared, given = self._prepare.remote(*self._common, shard)
        embedded = actor.embed.remote(shard, given)
        finished = self._finish.remote(*self._common, shard, prepared, embedded)
        return [prepared, finished], lambda loss: self._ended(actor, loss)

    def _ended(self, actor: Any, loss: RayError | None) -> None:
        self._busy[actor] -= 1
        # Its node may be gone for longer than a restart there is waited for; or it hangs.
        if isinstance(loss, RayActorError) and actor in self._actors:
            self._actors[self._actors.index(actor)] = self._actor()
            ray.kill(actor)


class _Flight:
    """Units that are being worked on."""

    def __init__(self, stage: _Stage, workers: int, deadline: float) -> None:
        self._stage = stage
        self._workers = workers
        self._deadline = deadline
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

    def last_results(self) -> Iterator[Any]:
        """Wait a moment for what can be running, and yield what has ended well by then."""
        yield from self._ended_well()
        running = list(islice(self._tries, self._workers))
        for tried in list(self._tries.values())[self._workers :]:
            _cancel(tried.tasks)
        if running:
            ray.wait(running, num_returns=len(running), timeout=_FAREWELL_S)
        yield from self._ended_well()

    def _ended_well(self) -> Iterator[Any]:
        for reference in list(filter(_has_ended, self._tries)):
            del self._tries[reference]
            try:
                result = _result(reference)
            except (RayError, IronmaskError):
                continue
            yield result

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
        if stop.wanted():
            return
        if tried.number == _ATTEMPTS:
            raise WorkerError(
                f"shard {tried.shard} was lost {_ATTEMPTS} times ({why}); what was committed is "
                "safe: run the same command to continue, with fewer --workers if memory was short"
            )
        HERE.again(tried.shard, why)
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
        if isinstance(error.cause, KeyStoreError | ModelError):
            # What one machine lacks is for that machine to be given.
            raise type(error.cause)(f"{error.cause}{_where(error)}") from None
        if isinstance(error.cause, IronmaskError | RayError):
            raise error.cause from None
        _log.error("a stage failed: %s", error.traceback_str)
        raise WorkerError(f"a stage failed: {type(error.cause).__name__}") from None


def _where(error: RayTaskError) -> str:
    """The node whose worker has failed, in brackets; empty where there is only one."""
    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    # An error that is of its cause's class as well keeps addresses in its text alone. The last one
    # is of whoever failed first; those before it waited for a part of the unit.
    told = _ADDRESS.findall(str(error))
    if len(nodes) < 2 or not told:
        return ""
    address = told[-1]
    known = {node["NodeManagerAddress"]: node["NodeID"] for node in nodes}
    return (
        f" (on the Ray node {address}, id {known.get(address, 'unknown')[:12]}; every node needs "
        "the same keys and models)"
    )
