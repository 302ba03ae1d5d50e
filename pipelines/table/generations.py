"""Generations: whole issues of a destination's templates, and which one readers see.

::

    preparing ──► live ──► retired ──► destroyed
        └───────────────────────────────┘ abandoned

A generation is written under its own keys while the one before it is live. One commit to the table
`generations` retires the old one and makes the new one live. So exactly one is live at any time:
the highest that ever was. A retired generation is then destroyed, keys first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import pyarrow as pa

from ironmask.errors import TableError
from pipelines.ports import Tables
from pipelines.spec.template_job import Purpose
from pipelines.table.held import Destination
from pipelines.table.layout import FIRST_GENERATION
from pipelines.table.schemas import GENERATIONS

FIRST: Final = FIRST_GENERATION


class State(StrEnum):
    """The states of a generation, in their order."""

    PREPARING = "preparing"
    LIVE = "live"
    RETIRED = "retired"
    DESTROYED = "destroyed"


_ORDER: Final = {state: place for place, state in enumerate(State)}


@dataclass(frozen=True)
class Generation:
    """The furthest state of one generation in the table.

    parent: the generation that it replaces. at: the time of that state. proof: for a destroyed one,
    of its destruction; for a live one, the losses at its switch.
    """

    number: int
    state: State
    purpose: Purpose
    parent: int | None
    key_id: str
    at: datetime
    proof: dict[str, Any] = field(default_factory=dict)


def read(tables: Tables) -> dict[int, Generation]:
    """The generations of a destination by number; none before the first run.

    Raises `TableError` where the table cannot be read, or where not exactly one is live.
    """
    stored = tables.table("generations").rows()
    try:
        rows = stored.to_pylist()
        rows.sort(key=lambda row: _ORDER[State(row["state"])])
        found = {row["generation"]: _parsed(row) for row in rows}
    except (LookupError, RecursionError, TypeError, ValueError) as error:
        raise TableError(
            f"{tables.dest}: a row of its generations cannot be read ({type(error).__name__}): "
            "restore the table from a backup"
        ) from None
    alive = [one.number for one in found.values() if one.state is State.LIVE]
    if len(alive) > 1 or (found and not alive):
        raise TableError(
            f"{tables.dest}: {len(alive)} generations are live where one must be: restore the "
            "table from a backup"
        )
    return dict(sorted(found.items()))


def _parsed(row: dict[str, Any]) -> Generation:
    proof = json.loads(row["proof"]) if row["proof"] else {}
    if not isinstance(proof, dict):
        raise TypeError
    return Generation(
        number=row["generation"],
        state=State(row["state"]),
        purpose=Purpose(row["purpose"]),
        parent=row["parent"],
        key_id=row["key_id"],
        at=row["at"],
        proof=proof,
    )


def live(tables: Tables) -> int:
    """The generation that readers see; the first one before any run."""
    return live_of(read(tables))


def live_of(found: dict[int, Generation]) -> int:
    """The live one of these generations."""
    return next((one.number for one in found.values() if one.state is State.LIVE), FIRST)


def in_state(found: dict[int, Generation], state: State) -> list[Generation]:
    """The generations in a state, in their order."""
    return [one for one in found.values() if one.state is state]


def begin(dest: Destination) -> None:
    """Make the first generation live. Does nothing if the destination has a generation."""
    if not read(dest.tables):
        first = Generation(
            FIRST, State.LIVE, Purpose.ENROL, None, dest.keys.key_id, datetime.now(UTC)
        )
        _write(dest, [first], f"live/{FIRST}")


def prepare(dest: Destination, number: int, parent: int, purpose: Purpose) -> None:
    """Record that a generation is being written; only the first time."""
    row = Generation(number, State.PREPARING, purpose, parent, dest.keys.key_id, datetime.now(UTC))
    _write(dest, [row], f"preparing/{number}")


def switch(dest: Destination, number: int, facts: dict[str, Any]) -> None:
    """Make a prepared generation live and retire the one before it, in one commit.

    facts: kept in its `proof`. Raises `TableError` where it is in another state.
    """
    found = read(dest.tables)
    new = found[number]
    if new.state is State.LIVE:
        return
    if new.state is not State.PREPARING:
        raise TableError(f"{dest.tables.dest}: generation {number} is {new.state}, not preparing")
    old = found[live_of(found)]
    rows = [_moved(old, State.RETIRED), _moved(new, State.LIVE, facts)]
    _write(dest, rows, f"live/{number}")


def destroyed(dest: Destination, number: int, proof: dict[str, Any]) -> None:
    """Record that a generation is gone, with its proof. Raises `TableError` for a live one."""
    one = read(dest.tables)[number]
    if one.state is State.LIVE:
        raise TableError(f"{dest.tables.dest}: generation {number} is live and stays")
    _write(dest, [_moved(one, State.DESTROYED, proof)], f"destroyed/{number}")


def _moved(one: Generation, state: State, proof: dict[str, Any] | None = None) -> Generation:
    return Generation(
        one.number, state, one.purpose, one.parent, one.key_id, datetime.now(UTC), proof or {}
    )


def _write(dest: Destination, some: Sequence[Generation], once: str) -> None:
    dest.check()
    rows = [
        {
            "generation": one.number,
            "state": one.state.value,
            "purpose": one.purpose.value,
            "parent": one.parent,
            "key_id": one.key_id,
            "at": one.at,
            "proof": json.dumps(one.proof, sort_keys=True) if one.proof else "",
        }
        for one in some
    ]
    dest.append("generations", pa.Table.from_pylist(rows, GENERATIONS), once)
