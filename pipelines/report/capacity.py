"""What a job would take, on a terminal."""

from __future__ import annotations

from rich.console import Console

from pipelines.capacity.brief import Brief
from pipelines.capacity.estimate import Capacity, Outlook
from pipelines.report.sheets import Sheet
from pipelines.report.terminal import pairs, print_sheets, size

_COLUMNS = ["nodes", "of", "workers", "hours", "bound by", "price"]


def print_capacity(found: Capacity, console: Console) -> None:
    """Show what a job would take."""
    console.print(pairs("What there is to do", facts(found)))
    rows = [_row(outlook, found.currency) for outlook in found.outlooks]
    print_sheets([Sheet("Where it could be done", _note(found), _COLUMNS, rows)], console)


def facts(found: Capacity) -> list[tuple[str, str]]:
    """What a job takes wherever it is done, as (what, value) pairs."""
    load, asked = found.load, found.requests
    rows = [
        ("inputs", f"{load.inputs:,}, of which {load.todo:,} need work"),
        ("subjects", f"{load.subjects:,} in {load.shards:,} shards"),
        ("processors", f"{hours(found.cpu_seconds)} of one"),
        ("storage", size(found.stored)),
        ("requests", f"about {asked.reads:,} to read, {asked.writes:,} to write and list"),
    ]
    if found.month is not None:
        rows.append(("storage a month", money(found.month, found.currency)))
    if found.requests_price is not None:
        rows.append(("requests cost", money(found.requests_price, found.currency)))
    return rows


def brief_facts(found: Brief) -> list[tuple[str, str]]:
    """The short form of what a job takes, as (what, value) pairs."""
    rows = []
    if found.cpu_seconds is not None and found.here is not None:
        rows.append(("processors", f"about {hours(found.cpu_seconds)} of one"))
        rows.append(("here", f"about {hours(found.here)} with {found.workers:,} workers"))
    asked = found.requests
    rows.append(("storage", f"about {size(found.stored)}"))
    rows.append(("requests", f"about {asked.reads:,} to read, {asked.writes:,} to write and list"))
    return rows


def hours(seconds: float) -> str:
    """A time that may be short or long."""
    if seconds < 90:
        return f"{seconds:,.1f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def money(value: float, currency: str) -> str:
    """A price in a currency, which may have no name."""
    return f"{value:,.2f} {currency}".rstrip()


def _row(outlook: Outlook, currency: str) -> list[str]:
    price = "" if outlook.price is None else money(outlook.price, currency)
    count, workers = f"{outlook.count:,}", f"{outlook.workers:,}"
    return [count, outlook.node.name, workers, f"{outlook.hours:,.2f}", outlook.bound, price]


def _note(found: Capacity) -> str:
    if not found.left_out:
        return ""
    return f"Without figures of a GPU nothing is said of {', '.join(found.left_out)}."
