"""A destination that this process holds against other runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pipelines.ports import GenerationKeys, Store, Tables


@dataclass(frozen=True)
class Destination:
    """Its tables, where they lie, its keys, and the hold on it.

    check: raises `BusyError` once another run has taken over; asked before each commit and before
    anything is destroyed.
    """

    tables: Tables
    store: Store
    keys: GenerationKeys = field(repr=False)
    check: Callable[[], None] = field(repr=False)
