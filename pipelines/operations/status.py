"""The progress of a destination's newest run, and when it will end."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow.compute as pc

from ironmask.errors import TableError
from pipelines.plan import plans
from pipelines.ports import Store, Tables
from pipelines.run.live_note import Note, last_note
from pipelines.spec.outcomes import Outcome
from pipelines.table import layout, run_records
from pipelines.table.data_files import together
from pipelines.table.layout import run_of, shards_in
from pipelines.table.log_seal_file import NOT_CHECKED
from pipelines.table.run_records import RunRecord

_COLUMNS: Final = ["run_id", "outcome", "reason"]
# Notes are written every few seconds while shards end; an older one does not count.
_FRESH_S: Final = 600.0


# Flat, since it is printed and written as JSON field by field.
@dataclass(frozen=True)
class Status:
    """The progress of the newest run, in shards and inputs.

    holder: who is working on it now, None if nobody is. in_flight: shards in work. waiting:
    finished shards that wait for their commit. inputs_done: inputs with a committed outcome.
    inputs_waiting: finished inputs that wait for their commit, as of the last note. failed:
    committed failures by reason. per_second: inputs settled a second by the working process.
    ends_at: UTC, at that rate; None if nobody works on the run. oldest_seconds: since the oldest
    shard in work was handed out. resubmitted: how often a lost shard was handed out again.
    nodes_excluded: nodes that get no more work. These three are the working process's.
    scheme_version, code_width, structure: of the templates that the run makes. seal: the seal's
    state, as far as it can be seen without keys.
    """

    dest: str
    run_id: str
    state: str
    holder: str | None
    shards: int
    shards_done: int
    in_flight: int
    waiting: int
    inputs: int
    inputs_done: int
    inputs_left: int
    inputs_waiting: int
    outcomes: dict[str, int]
    failed: dict[str, int]
    per_second: float | None
    ends_at: datetime | None
    oldest_seconds: float = 0.0
    resubmitted: int = 0
    nodes_excluded: int = 0
    scheme_version: int | None = None
    code_width: int | None = None
    structure: str | None = None
    seal: str = NOT_CHECKED


def status(tables: Tables, store: Store, holder: str | None) -> Status:
    """Find out how far the newest run of a destination has come.

    Raises `TableError` where no run has been planned.
    """
    records = run_records.runs(tables)
    if not records:
        raise TableError(f"{tables.dest} has no run yet: enrol into it first")
    record = records[-1]
    outcomes, failed = _counts(tables, record)
    done = sum(outcomes.values())
    shards_done = _shards_done(tables, record)
    shards, inputs = shards_done, done
    # If a subject of an ended run was erased, the run's plan may be gone as well.
    if record.fingerprint.get("plan"):
        frozen, _ = plans.load(layout.plan_folder(tables.dest, record.run_id), store)
        shards, inputs = frozen.shards, frozen.inputs
    found = Status(
        dest=tables.dest,
        run_id=record.run_id,
        state=record.state,
        holder=holder,
        shards=shards,
        shards_done=shards_done,
        in_flight=0,
        waiting=0,
        inputs=inputs,
        inputs_done=done,
        inputs_left=inputs - done,
        inputs_waiting=0,
        outcomes=dict(outcomes),
        failed=dict(failed.most_common()),
        per_second=None,
        ends_at=None,
        **_scheme(record),
    )
    note = live_note(tables.dest, store, found)
    return with_note(found, note) if note else found


def with_note(found: Status, note: Note) -> Status:
    """A status, and what the last note of whoever works on the run adds; it takes nothing back."""
    done = max(found.inputs_done, note.committed)
    settled = max(done, note.settled)
    rate = note.inputs / note.seconds if note.seconds else None
    return replace(
        found,
        shards_done=max(found.shards_done, note.shards_committed),
        in_flight=note.in_flight,
        waiting=note.waiting,
        inputs_done=done,
        inputs_left=found.inputs - done,
        inputs_waiting=settled - done,
        per_second=rate,
        ends_at=_end(note, rate, found.inputs - settled),
        oldest_seconds=note.oldest,
        resubmitted=note.resubmitted,
        nodes_excluded=note.excluded,
    )


def _scheme(record: RunRecord) -> dict[str, Any]:
    found = run_records.traits(record)
    return {name: found.get(name) for name in ("scheme_version", "code_width", "structure")}


def live_note(dest: str, store: Store, found: Status) -> Note | None:
    """The run's last note, if somebody works on the run and the note is recent."""
    note = last_note(dest, store) if found.holder else None
    fresh = note and note.run_id == found.run_id and time.time() - note.at < _FRESH_S
    return note if fresh else None


def _end(note: Note, rate: float | None, left: int) -> datetime | None:
    return datetime.fromtimestamp(note.at + left / rate, UTC) if rate else None


def _counts(tables: Tables, record: RunRecord) -> tuple[Counter[str], Counter[str]]:
    """Committed inputs of a run by outcome, and its failures by reason."""
    outcomes, failed = Counter[str](), Counter[str]()
    for rows in together(tables.table("inputs").batches(_COLUMNS, [record.run_id])):
        rows = rows.filter(pc.equal(rows["run_id"], record.run_id))
        grouped = rows.group_by(["outcome", "reason"]).aggregate([([], "count_all")])
        for row in grouped.to_pylist():
            outcomes[row["outcome"]] += row["count_all"]
            if row["outcome"] == Outcome.FAILED:
                failed[row["reason"]] += row["count_all"]
    return outcomes, failed


def _shards_done(tables: Tables, record: RunRecord) -> int:
    own = (p for p in tables.table("inputs").files() if run_of(p) == record.run_id)
    return sum(map(shards_in, own))
