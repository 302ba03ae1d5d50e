"""What an engine needs to know of a job: the function of one unit of work, and what it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

Common = tuple[Any, ...]
"""What all units of a job share, as plain values that can travel to any process."""


class Embedder(Protocol):
    """Holds a model in a process of its own."""

    def embed(self, unit: int, given: Any) -> Any: ...


@dataclass(frozen=True)
class Parts:
    """A unit of work in three parts, the middle one done by whoever holds a model.

    prepare: (*common, unit) to what `finish` needs, and what is to be embedded. embedder: made of
    common, once a process. finish: (*common, unit, prepared, embedded) to the result.
    """

    prepare: Callable[..., tuple[Any, Any]]
    embedder: Callable[..., Embedder]
    finish: Callable[..., Any]


@dataclass(frozen=True)
class Work:
    """Units of work of one kind. function: (*common, unit) to the result, of a module's top level.

    memory: bytes that a process takes for one unit; 0: not known. seconds: that a unit may take
    where this is longer than an engine would wait for a lost one. parts: the same, for an engine
    that has processes with models apart from its workers; None: it cannot be parted.
    """

    function: Callable[..., Any]
    common: Common
    memory: int = 0
    parts: Parts | None = None
    seconds: float = 0.0


class Engine(Protocol):
    """Runs units of work, anywhere, in any order."""

    def run(self, work: Work, units: Iterable[int]) -> Iterator[Any]:
        """Yield the results as they come."""
        ...
