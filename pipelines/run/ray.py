"""Units of work on Ray: whole in CPU tasks, or asking actors that hold models on GPUs.

What is handed out follows the nodes that are there, with a bound, so that memory does not grow with
the dataset. A unit that was lost with a worker or a node, or is overdue, is handed out again, a few
times. A node that cannot work is left out.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import ray
from ray.exceptions import NodeDiedError, RayActorError, RayError, RayTaskError

from ironmask.errors import IronmaskError, StorageError, WorkerError
from pipelines.run import stop
from pipelines.run.events import HERE
from pipelines.run.ray_nodes import WORK, NodeError, Nodes
from pipelines.run.ray_stages import Alone, Crowd, Ended, Hosts, Pool, Stage
from pipelines.run.ray_tasks import Done
from pipelines.run.work import Standing, Work

_log = logging.getLogger("ironmask.enrol")

_ATTEMPTS: Final = 3
# A unit that went down with a node, or with an actor that others asked as well, may be innocent.
_FELLOW_ATTEMPTS: Final = 10
_DEADLINE_S: Final = 1800.0
_POLL_S: Final = 1.0
_FAREWELL_S: Final = 10.0
_PAUSE_S: Final = 1.0


@dataclass(frozen=True)
class RayEngine:
    """Runs units of work on the Ray cluster that this process is connected to.

    workers: units that run at a time at most; None: as many as the nodes that are there have room
    for. hosts: of models, apart from the workers; None: each worker holds its own. grows: nodes may
    join, so some units wait even where nobody can do them. deadline: seconds after which a unit is
    given to somebody else, from when all but as many others as can run had ended that were handed
    out before it. check: raises `WorkerError` once the cluster is gone.
    """

    workers: int | None = None
    hosts: Hosts | None = None
    grows: bool = False
    deadline: float = _DEADLINE_S
    check: Callable[[], None] = lambda: None
    standing: Standing = field(default_factory=Standing)
    nodes: Nodes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", Nodes(self.standing))

    def run(self, work: Work, units: Iterable[int]) -> Iterator[Any]:
        """Yield the results as they come: so many units at a time that workers never wait.

        Ends early where a signal waits, with what ends by itself within a moment. Raises what a
        node lacks where no other one is left.
        """
        stage = self._stage(work)
        flight = _Flight(stage, self.nodes, self.standing, max(self.deadline, work.seconds))
        waiting = iter(units)
        try:
            while True:
                self.check()
                self.nodes.look()
                is_last = not flight.fill(waiting)
                if is_last and not flight:
                    return
                for result in flight.results():
                    flight.fill(waiting)
                    yield result
                if stop.wanted():
                    yield from flight.last_results()
                    return
        finally:
            # What goes on after a failure would write files that nobody waits for.
            flight.cancel()
            stage.close()
            if self.grows and self.standing.done:
                _log.info("units by node", extra={"done": dict(self.standing.done)})

    def _stage(self, work: Work) -> Stage:
        self.nodes.look(now=True)
        crowd = Crowd(self.workers, self.grows)
        if work.hosted and self.hosts:
            return Pool(work, work.hosted, self.hosts, self.nodes, crowd)
        return Alone(work, self.nodes, crowd)


@dataclass
class _Losses:
    """How often a unit was lost: alone, together with others, and because a node had no store."""

    alone: int = 0
    fellows: int = 0
    refused: int = 0


@dataclass
class _Try:
    """One attempt at a unit. ended: called once it has. since: when it could have started."""

    unit: int
    task: Any
    ended: Ended
    losses: _Losses
    since: float | None = None


class _Flight:
    """Units that are handed out. Those that were lost wait until there is room for them."""

    def __init__(self, stage: Stage, nodes: Nodes, standing: Standing, deadline: float) -> None:
        self._stage, self._nodes, self._standing = stage, nodes, standing
        self._deadline = deadline
        self._tries: dict[Any, _Try] = {}
        self._again: list[tuple[int, _Losses]] = []

    def __bool__(self) -> bool:
        return bool(self._tries or self._again)

    def fill(self, waiting: Iterator[int]) -> bool:
        """Hand out as many units as may be. Returns whether there may be more."""
        free = self._stage.free(len(self._tries))
        while free and self._again:
            self._submit(*self._again.pop(0))
            free -= 1
        taken = 0
        for unit in islice(waiting, free):
            self._submit(unit, _Losses())
            taken += 1
        return taken == free

    def _submit(self, unit: int, losses: _Losses) -> None:
        task, ended = self._stage.submit(unit)
        self._tries[task] = _Try(unit, task, ended, losses)

    def results(self) -> Iterator[Any]:
        """Wait a little; yield what has ended well; what was lost or is overdue comes again."""
        if not self._tries:
            time.sleep(_POLL_S)
            return
        every = list(self._tries)
        ray.wait(every, num_returns=1, timeout=_POLL_S)
        ended, _ = ray.wait(every, num_returns=len(every), timeout=0)
        for reference in ended:
            tried = self._tries.pop(reference)
            try:
                node, result = _result(reference, self._nodes)
            except NodeError as fault:
                tried.ended(None)
                self._unable(tried, fault)
                continue
            except RayError as error:
                tried.ended(error)
                self._lost(tried, error, type(error).__name__)
                continue
            tried.ended(None)
            self._standing.done[self._nodes.name(node)] += 1
            yield result
        self._replace_overdue()

    def last_results(self) -> Iterator[Any]:
        """Wait a moment for what can be running, and yield what has ended well by then."""
        yield from self._ended_well()
        room = self._stage.room()
        running = list(islice(self._tries, room))
        for tried in list(self._tries.values())[room:]:
            _cancel(tried.task)
        if running:
            ray.wait(running, num_returns=len(running), timeout=_FAREWELL_S)
        yield from self._ended_well()

    def _ended_well(self) -> Iterator[Any]:
        for reference in list(filter(_has_ended, self._tries)):
            del self._tries[reference]
            try:
                _, result = _result(reference, self._nodes)
            except (RayError, IronmaskError, NodeError):
                continue
            yield result

    def _replace_overdue(self) -> None:
        now = time.monotonic()
        # The oldest are those that can run; the others wait for them.
        for reference, tried in list(islice(self._tries.items(), self._stage.room())):
            tried.since = now if tried.since is None else tried.since
            if now - tried.since > self._deadline and not _has_ended(reference):
                del self._tries[reference]
                _cancel(tried.task)
                # Whoever it asks may hang as well.
                tried.ended(RayActorError())
                self._lost(tried, None, "its deadline has passed")

    def _unable(self, tried: _Try, fault: NodeError) -> None:
        """A node could not do a unit. What a store refuses to several nodes is not their fault."""
        if isinstance(fault.error, StorageError):
            tried.losses.refused += 1
            if tried.losses.refused == _ATTEMPTS:
                raise fault.error
        self._stage.failed(fault)
        self._hand_back(tried, fault.why, self._nodes.name(fault.node))

    def _lost(self, tried: _Try, error: RayError | None, why: str) -> None:
        losses = tried.losses
        if isinstance(error, NodeDiedError | RayActorError):
            losses.fellows += 1
        else:
            losses.alone += 1
        if losses.alone == _ATTEMPTS or losses.fellows == _FELLOW_ATTEMPTS:
            raise WorkerError(
                f"shard {tried.unit} was lost {losses.alone + losses.fellows} times ({why}); what "
                "was committed is safe: run the same command to continue, with fewer --workers if "
                "memory was short"
            )
        self._hand_back(tried, why)
        time.sleep(_PAUSE_S * losses.alone)

    def _hand_back(self, tried: _Try, why: str, node: str = "") -> None:
        if not stop.wanted():
            HERE.again(tried.unit, why, node)
            self._again.append((tried.unit, tried.losses))

    def cancel(self) -> None:
        """End what is still running, and wait a moment until it has."""
        for tried in self._tries.values():
            _cancel(tried.task)
        if self._tries:
            with contextlib.suppress(RayError):
                ray.wait(list(self._tries), num_returns=len(self._tries), timeout=_FAREWELL_S)
        self._tries.clear()
        self._again.clear()


def _has_ended(reference: Any) -> bool:
    return bool(ray.wait([reference], timeout=0)[0])


def _cancel(task: Any) -> None:
    with contextlib.suppress(RayError, ValueError):
        ray.cancel(task, force=True)


def _result(reference: Any, nodes: Nodes) -> Done:
    """The result of a unit, and the node that did it.

    Raises `RayError` where it was lost, `NodeError` where a node could not work, else the unit's
    own error.
    """
    try:
        found: Done = ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, IronmaskError | NodeError):
            raise error.cause from None
        if fault := nodes.lacking(WORK, error):
            raise fault from None
        if isinstance(error.cause, RayError):
            raise error.cause from None
        _log.error("a stage failed: %s", error.traceback_str)
        raise WorkerError(f"a stage failed: {type(error.cause).__name__}") from None
    return found
