"""What an engine needs to know of a job: the function of one unit of work, and what it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

Common = tuple[Any, ...]
"""What all units of a job share, as plain values that can travel to any process."""


Answer = Callable[[], Any]
"""Waits for an answer, and gives it."""

Ask = Callable[..., Answer]
"""Puts a question to a host, (*question), and goes on at once."""


class Host(Protocol):
    """Holds models in a process of its own. Several threads call it."""

    def load(self) -> None:
        """Load them. Raises `ModelError` or `KeyStoreError` where it cannot serve."""
        ...

    def answer(self, *question: Any) -> Any: ...


@dataclass(frozen=True)
class Hosted:
    """A unit of work whose models are elsewhere, for an engine that has hosts of models.

    function: (*common, ask, unit) to the result. host: made of common, once a process.
    """

    function: Callable[..., Any]
    host: Callable[..., Host]


@dataclass
class Standing:
    """How an engine's work stands, for whoever looks on. A dictionary's keys are nodes as people
    know them.

    done: units by the node that did them. excluded: why a node gets no work, or got none for a
    time.
    """

    done: Counter[str] = field(default_factory=Counter)
    excluded: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """Units of work of one kind. function: (*common, unit) to the result, of a module's top level.

    memory: bytes that a process takes for one unit; 0: not known. seconds: that a unit may take
    where this is longer than an engine would wait for a lost one. hosted: the same, for an engine
    that has hosts of models; None: it needs no model.
    """

    function: Callable[..., Any]
    common: Common
    memory: int = 0
    hosted: Hosted | None = None
    seconds: float = 0.0


class Engine(Protocol):
    """Runs units of work, anywhere, in any order."""

    @property
    def standing(self) -> Standing: ...

    def run(self, work: Work, units: Iterable[int]) -> Iterator[Any]:
        """Yield the results as they come."""
        ...
