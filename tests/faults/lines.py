"""What a fault suite has seen, line by line, against what must hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One fact: what was counted or measured, what was seen, what is wanted, and whether it is."""

    what: str
    seen: str
    wanted: str
    holds: bool


def exactly(what: str, seen: int, wanted: int) -> Line:
    return Line(what, f"{seen:,}", f"{wanted:,}", seen == wanted)


def at_most(what: str, seen: float, wanted: float, unit: str = "") -> Line:
    return Line(what, f"{seen:,.4g}{unit}", f"at most {wanted:,.4g}{unit}", seen <= wanted)


def at_least(what: str, seen: float, wanted: float, unit: str = "") -> Line:
    return Line(what, f"{seen:,.4g}{unit}", f"at least {wanted:,.4g}{unit}", seen >= wanted)


def table(title: str, lines: Sequence[Line]) -> str:
    """A table in Markdown."""
    head = [f"## {title}", "", "| what | seen | wanted | |", "| --- | --- | --- | --- |"]
    rows = [f"| {x.what} | {x.seen} | {x.wanted} | {'ok' if x.holds else 'NOT'} |" for x in lines]
    return "\n".join([*head, *rows, ""])
