"""How units of work become tasks: whole ones, or such that ask an actor which holds models."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from ironmask.errors import IronmaskError, WorkerError
from pipelines.run import ray_tasks
from pipelines.run.ray_nodes import MODELS, WORK, NodeError, Nodes
from pipelines.run.work import Hosted, Work

_log = logging.getLogger("ironmask.enrol")

# As many units wait as can run. On a cluster that may grow they are never fewer than the first of
# these, so that it sees what is wanted; the second bounds what the driver holds.
LEAST_WAITING: Final = 16
MOST_WAITING: Final = 512
# Units that ask one host at a time: about the CPUs that one GPU keeps busy.
UNITS_A_HOST: Final = 32
_PATIENCE_S: Final = 1800.0
_REMIND_S: Final = 60.0


@dataclass(frozen=True)
class Hosts:
    """How many hosts of models there are. count: None for as many as have room. reserved: what Ray
    keeps for one of them: `GPU`, or another resource, and how much of it.
    """

    count: int | None
    reserved: dict[str, float]

    @property
    def options(self) -> dict[str, Any]:
        rest = {name: some for name, some in self.reserved.items() if name != "GPU"}
        return {"num_gpus": self.reserved.get("GPU", 0), "resources": rest}


@dataclass(frozen=True)
class Crowd:
    """Bounds of what is handed out. workers: units that run at a time at most; None for as many as
    have room. grows: nodes may join.
    """

    workers: int | None
    grows: bool

    def window(self, room: int) -> int:
        """How many units are handed out while so many can run."""
        least = LEAST_WAITING if self.grows else 0
        wanted = room + min(max(room, least), MOST_WAITING)
        if self.workers is None:
            return wanted
        return self.workers if room > self.workers else min(wanted, 2 * self.workers)


class _Patience:
    """Says that no node is there that could do something, and gives up after a while."""

    def __init__(self, needs: dict[str, float], what: str) -> None:
        self._needs = " and ".join(f"{some:g} {name}" for name, some in needs.items()) or "room"
        self._what = what
        self._since = self._reminded = time.monotonic()

    def note(self, is_served: bool) -> None:
        """Raises `WorkerError` where nobody was there for `_PATIENCE_S` seconds."""
        now = time.monotonic()
        if is_served:
            self._since = self._reminded = now
        elif now - self._since > _PATIENCE_S:
            raise WorkerError(
                f"the Ray cluster had no node with {self._needs} to {self._what} for "
                f"{_PATIENCE_S / 60:.0f} minutes; what was committed is safe: add nodes, and run "
                "the same command to continue"
            )
        elif now - self._reminded > _REMIND_S:
            self._reminded = now
            _log.warning("no node can %s yet: one needs %s", self._what, self._needs)


Ended = Callable[[Exception | None], None]
"""Called once a unit's task has ended, with the loss that ended it, if one did."""


class Stage(Protocol):
    """Makes tasks of units of work."""

    def room(self) -> int:
        """How many units can run now."""
        ...

    def free(self, in_flight: int) -> int:
        """How many more may be handed out."""
        ...

    def submit(self, unit: int) -> tuple[Any, Ended]: ...

    def failed(self, fault: NodeError) -> None:
        """Raises where no node is left for the work."""
        ...

    def close(self) -> None: ...


class Alone:
    """Units of work of one task each, with all that they need."""

    def __init__(self, work: Work, nodes: Nodes, crowd: Crowd) -> None:
        self._work, self._nodes, self._crowd = work, nodes, crowd
        self._workers = _Patience({"CPU": 1.0}, "work")

    def needs(self) -> dict[str, float]:
        """What Ray must keep free for one task."""
        known = self._nodes.memory()
        # What no node has would be waited for without end.
        memory = min(self._work.memory, known) if known else self._work.memory
        return {"CPU": 1.0, **({"memory": float(memory)} if memory else {})}

    def room(self) -> int:
        return self._nodes.room(WORK, self.needs())

    def free(self, in_flight: int) -> int:
        room = self.room()
        self._workers.note(room > 0)
        return max(0, self._crowd.window(room) - in_flight)

    def submit(self, unit: int) -> tuple[Any, Ended]:
        made = ray_tasks.task(ray_tasks.whole, self._work.function, self._options())
        return made.remote(self._work.function, self._work.common, unit), lambda _: None

    def failed(self, fault: NodeError) -> None:
        self._nodes.exclude(fault, self.needs())

    def close(self) -> None:
        """Nothing is left."""

    def _options(self) -> dict[str, Any]:
        memory = self.needs().get("memory")
        needs = {"memory": int(memory)} if memory else {}
        return {**needs, **self._nodes.selector(WORK)}


@dataclass(eq=False)
class _Host:
    """An actor. loading: its answer to `load`. node: where it is, once it is ready. units: that
    ask it now.
    """

    actor: Any
    loading: Any
    node: str = ""
    units: int = 0


class Pool(Alone):
    """Units whose models are in actors. Each unit asks the actor that has the least to do."""

    def __init__(
        self, work: Work, hosted: Hosted, hosts: Hosts, nodes: Nodes, crowd: Crowd
    ) -> None:
        super().__init__(work, nodes, crowd)
        self._hosted, self._hosts = hosted, hosts
        self._known: list[_Host] = []
        self._patience = _Patience(hosts.reserved, "hold the models")

    def free(self, in_flight: int) -> int:
        self._follow()
        ready = sum(1 for host in self._known if host.node)
        return min(super().free(in_flight), max(0, UNITS_A_HOST * ready - in_flight))

    def submit(self, unit: int) -> tuple[Any, Ended]:
        host = min((one for one in self._known if one.node), key=lambda one: one.units)
        host.units += 1
        made = ray_tasks.task(ray_tasks.hosted, self._hosted.function, self._options())
        task = made.remote(self._hosted.function, self._work.common, host.actor, unit)
        return task, lambda loss: self._ended(host, loss)

    def failed(self, fault: NodeError) -> None:
        if fault.role == WORK:
            super().failed(fault)
            return
        for host in [one for one in self._known if one.node == fault.node]:
            self._drop(host)
        self._nodes.exclude(fault, self._hosts.reserved or {"CPU": 1.0})

    def close(self) -> None:
        for host in list(self._known):
            self._drop(host)

    def _ended(self, host: _Host, loss: Exception | None) -> None:
        host.units -= 1
        if isinstance(loss, RayActorError) and host in self._known:
            self._drop(host)

    def _drop(self, host: _Host) -> None:
        self._known.remove(host)
        with contextlib.suppress(RayError, ValueError):
            ray.kill(host.actor)

    def _follow(self) -> None:
        """Have as many actors as there is room for, and ask for one more where all are busy."""
        for host in [one for one in self._known if one.node]:
            if not self._nodes.is_usable(MODELS, host.node):
                self._known.remove(host)
        for host in [one for one in self._known if not one.node]:
            self._welcome(host)
        while len(self._known) < self._wanted():
            self._start()
        self._patience.note(any(host.node for host in self._known))

    def _wanted(self) -> int:
        if self._hosts.count is not None:
            return self._hosts.count
        room = self._nodes.room(MODELS, self._hosts.reserved)
        busy = all(host.units >= UNITS_A_HOST for host in self._known if host.node)
        return room + int(self._crowd.grows and busy)

    def _start(self) -> None:
        options = {**self._hosts.options, **self._nodes.selector(MODELS)}
        actor = ray_tasks.host(self._hosted.host, self._work.common, options)
        self._known.append(_Host(actor, actor.load.remote()))

    def _welcome(self, host: _Host) -> None:
        """See whether an actor is ready by now, or will never be."""
        if not ray.wait([host.loading], timeout=0)[0]:
            return
        try:
            host.node = ray.get(host.loading)
        except RayTaskError as error:
            self._drop(host)
            if isinstance(error.cause, NodeError):
                self.failed(error.cause)
            elif isinstance(error.cause, IronmaskError):
                raise error.cause from None
            else:
                raise WorkerError(f"no host of models: {type(error.cause).__name__}") from None
        except RayError as error:
            self._drop(host)
            if fault := self._nodes.lacking(MODELS, error):
                self.failed(fault)
