"""Units of work one after another in this process: the same results, no cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from threadpoolctl import threadpool_limits

from pipelines.run import stop
from pipelines.run.work import Standing, Work


@dataclass(frozen=True)
class LocalEngine:
    """Runs every unit here."""

    standing: Standing = field(default_factory=Standing)

    def run(self, work: Work, units: Iterable[int]) -> Iterator[Any]:
        """Yield the results in the order of the units; end early where a signal waits."""
        for unit in units:
            try:
                result = stop.fragile(partial(_done, work, unit))
            except stop.BrokenOff:
                return
            yield result


def _done(work: Work, unit: int) -> Any:
    # Matrices of this size are too small for threads, which only get in each other's way.
    with threadpool_limits(1):
        return work.function(*work.common, unit)
