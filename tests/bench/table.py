"""Rows of the table, and how one is measured.

Every ratio is the median over rounds in which both sides were timed one after the other, so that
a noisy machine disturbs both.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Row:
    """One comparison of a figure with a reference, both in the same unit.

    goal: what the ratio should be at most, or at least.
    """

    what: str
    against: str
    ratio: float
    low: float
    high: float
    figure: float
    reference: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def goal(self) -> str:
        if self.at_most is not None:
            return f"{'met' if self.ratio <= self.at_most else 'missed'}: at most {self.at_most:g}"
        if self.at_least is not None:
            met = "met" if self.ratio >= self.at_least else "missed"
            return f"{met}: at least {self.at_least:g}"
        return ""


def timed(work: Callable[[], object], repeat: int) -> float:
    """Milliseconds a call."""
    start = time.perf_counter()
    for _ in range(repeat):
        work()
    return 1e3 * (time.perf_counter() - start) / repeat


def compare(
    what: str,
    subject: Callable[[], object],
    against: str,
    other: Callable[[], object],
    rounds: int = 15,
    repeat: int = 8,
    **goal: float,
) -> Row:
    """How many times the other's time the subject takes."""
    subject(), other()
    pairs = [(timed(subject, repeat), timed(other, repeat)) for _ in range(rounds)]
    return paired(what, against, pairs, "ms", **goal)


def paired(
    what: str, against: str, pairs: Sequence[tuple[float, float]], unit: str, **goal: float
) -> Row:
    """A row from figures of both sides, taken pair by pair."""
    ratios = sorted(a / b for a, b in pairs)
    return Row(
        what,
        against,
        statistics.median(ratios),
        ratios[len(ratios) // 10],
        ratios[-1 - len(ratios) // 10],
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        unit,
        **goal,
    )


def markdown(sections: dict[str, list[Row]], notes: Sequence[str]) -> str:
    lines = [
        f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}; "
        "medians over pairs (10 % and 90 % quantiles).",
    ]
    for title, rows in sections.items():
        lines += [
            "",
            f"## {title}",
            "",
            "| what | against | ratio | range | figure | reference | unit | goal |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        lines += [
            f"| {r.what} | {r.against} | {r.ratio:.3f} | {r.low:.3f} to {r.high:.3f} "
            f"| {r.figure:,.2f} | {r.reference:,.2f} | {r.unit} | {r.goal} |"
            for r in rows
        ]
    return "\n".join([*lines, "", *notes]) + "\n"


def write(folder: Path, sections: dict[str, list[Row]], notes: Sequence[str]) -> str:
    """Write `bench.md` and `bench.parquet`; return the Markdown."""
    folder.mkdir(exist_ok=True)
    text = markdown(sections, notes)
    (folder / "bench.md").write_text(text)
    plain: list[dict[str, Any]] = [
        {"section": title, **vars(row), "goal": row.goal}
        for title, rows in sections.items()
        for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(plain), folder / "bench.parquet")
    return text
