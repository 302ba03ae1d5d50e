"""The nodes of a Ray cluster as they are now: what they have room for, which of them get no work.

A node that lacks keys, models, a provider, the store or this program is excluded by its id: tasks
and actors are kept off it by a label that Ray gives each node. It is tried again after a while,
since somebody may have mended it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import ray
from ray.exceptions import RayError, RaySystemError

from ironmask.errors import IronmaskError, WorkerError
from pipelines.run.events import HERE
from pipelines.run.work import Standing

WORK: Final = "work"
MODELS: Final = "models"
_LABEL: Final = "ray.io/node-id"
_LOOK_S: Final = 2.0
# How long one waits for an answer: where the work can go on without one, and where it cannot.
_GLANCE_S: Final = 0.2
_ANSWER_S: Final = 10.0
_BACK_S: Final = 600.0
_DIGITS: Final = 12
# What Ray says of a worker whose Python has no such module or function, and where the worker is.
_NOT_LOADED: Final = "failed to import on the worker"
_NOT_READ: Final = re.compile("ModuleNotFoundError|ImportError|Can't get attribute")
_WHERE: Final = re.compile(r"\bip=([0-9a-fA-F.:]+)")


class NodeError(Exception):
    """What a node lacks. role: of the process that found out. node: its id."""

    def __init__(self, role: str, node: str, error: IronmaskError) -> None:
        # All go to the base class, so that it survives a trip between processes.
        super().__init__(role, node, error)
        self.role, self.node, self.error = role, node, error

    @property
    def why(self) -> str:
        """What it lacks, without names."""
        return type(self.error).__name__


@dataclass(frozen=True)
class Node:
    """A living node. resources: all that it has, in use or not."""

    id: str
    address: str
    resources: Mapping[str, float]

    @property
    def name(self) -> str:
        """As people know it."""
        return f"{self.address}, id {self.id[:_DIGITS]}"

    def room(self, needs: Mapping[str, float]) -> int:
        """How often it has what something needs."""
        # Shares of a GPU are no exact numbers.
        fit = (self.resources.get(name, 0.0) / some + 1e-9 for name, some in needs.items() if some)
        return int(min(fit, default=0.0))


class Nodes:
    """Looks at the cluster again and again. standing: where excluded nodes are noted."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self._alive: dict[str, Node] = {}
        self._looked = float("-inf")
        self._excluded: dict[tuple[str, str], float] = {}
        self._asked: _Asked | None = None

    def look(self, *, now: bool = False) -> None:
        """See who is there, unless that was seen a moment ago."""
        at = time.monotonic()
        if not now and at - self._looked < _LOOK_S:
            return
        self._looked = at
        if self._asked is None:
            self._asked = _Asked()
        found = self._asked.answer(_ANSWER_S if now else _GLANCE_S)
        if found is not None:
            self._alive = {node.id: node for node in found}
        if self._asked.has_ended:
            self._asked = None
        self._excluded = {who: until for who, until in self._excluded.items() if at < until}

    def usable(self, role: str) -> list[Node]:
        """Those that are there, are not about to leave, and are not excluded."""
        return [node for node in self._alive.values() if (role, node.id) not in self._excluded]

    def is_usable(self, role: str, node: str) -> bool:
        """Whether one of them still gets work."""
        return node in self._alive and (role, node) not in self._excluded

    def room(self, role: str, needs: Mapping[str, float]) -> int:
        """How many of something have room on all of them together."""
        return sum(node.room(needs) for node in self.usable(role))

    def memory(self) -> int:
        """Bytes that the smallest node with a CPU has for tasks; 0 where it is not known."""
        sizes = (one.resources for one in self.usable(WORK) if one.resources.get("CPU"))
        return min((int(size.get("memory", 0)) for size in sizes), default=0)

    def name(self, node: str) -> str:
        """A node as people know it, also one that is gone."""
        found = self._alive.get(node)
        return found.name if found else f"id {node[:_DIGITS]}"

    def lacking(self, role: str, error: RayError) -> NodeError | None:
        """The fault of a node whose workers cannot load this program; None for other errors."""
        told = str(error)
        where = _WHERE.search(told)
        # Ray's own error is of what a worker is given; a stage's error is of what it does.
        is_rays = isinstance(getattr(error, "cause", None), RaySystemError)
        if where is None or not (_NOT_LOADED in told or (is_rays and _NOT_READ.search(told))):
            return None
        found = [node.id for node in self._alive.values() if node.address == where[1]]
        if len(found) != 1:
            return None
        why = "its Python cannot load ironmask: install the same release on every node"
        return NodeError(role, found[0], WorkerError(why))

    def exclude(self, fault: NodeError, needs: Mapping[str, float]) -> None:
        """Give a node no more work of a role. needs: of this work.

        Raises what the node has said where no other one has room for the work.
        """
        self.look(now=True)
        who, why = self.name(fault.node), str(fault.error)
        several = len(self._alive) > 1
        if (fault.role, fault.node) not in self._excluded:
            self._excluded[fault.role, fault.node] = time.monotonic() + _BACK_S
            if several:
                self._standing.excluded[who] = why
                HERE.excluded(who, fault.why)
        if self.room(fault.role, needs):
            return
        needed = "every node needs the same release, keys, models and access"
        where = f" (on the Ray node {who}; {needed})" if several else ""
        raise type(fault.error)(why + where) from None

    def selector(self, role: str) -> dict[str, Any]:
        """The option of a task or actor that keeps it off excluded nodes."""
        off = [node for known, node in self._excluded if known == role and node in self._alive]
        return {"label_selector": {_LABEL: f"!in({','.join(off)})"}} if off else {}


class _Asked:
    """A question for the nodes that are there. A head that is gone lets one wait without end."""

    def __init__(self) -> None:
        self._found: list[Node] | None = None
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        return not self._thread.is_alive()

    def _ask(self) -> None:
        with suppress(RayError, OSError, RuntimeError):
            self._found = _there()

    def answer(self, seconds: float) -> list[Node] | None:
        """Wait so long at most; None where there is no answer yet."""
        self._thread.join(seconds)
        return self._found


def _there() -> list[Node]:
    leaving = _leaving()
    told: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [
        Node(one["NodeID"], one["NodeManagerAddress"], one["Resources"])
        for one in told
        if one["Alive"] and one["NodeID"] not in leaving
    ]


def _leaving() -> set[str]:
    """Ids of nodes that were told to leave: of spot instances that got a notice, for one."""
    # A client of a cluster does not learn this.
    if ray.util.client.ray.is_connected():  # type: ignore[no-untyped-call]
        return set()
    found: dict[str, int] = ray._private.state.state.get_draining_nodes()
    return set(found)
