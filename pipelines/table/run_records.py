"""Records of a destination's runs: which there were, and how far each has come."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pyarrow as pa

from ironmask.errors import TableError
from ironmask.params import Params
from pipelines.ports import Tables
from pipelines.spec.template_job import DECLARED, Purpose, TemplateJob, stored
from pipelines.table.held import Destination
from pipelines.table.layout import run_of
from pipelines.table.schemas import RUNS


class RunState(StrEnum):
    """The states of a run. A closed run was given up and keeps its commits."""

    RUNNING = "running"
    COMPLETE = "complete"
    CLOSED = "closed"


@dataclass(frozen=True)
class RunRecord:
    """The newest row of the `runs` table about one run."""

    run_id: str
    kind: str
    state: str
    fingerprint: dict[str, str]
    config: dict[str, Any]
    versions: dict[str, str]
    counts: dict[str, Any]
    timings: dict[str, Any]


_JSON = ("fingerprint", "config", "versions", "counts", "timings")


def runs(tables: Tables) -> list[RunRecord]:
    """Every run of a destination that wrote templates, oldest first; see `records`."""
    return [record for record in records(tables) if record.kind in set(Purpose)]


def records(tables: Tables) -> list[RunRecord]:
    """Everything that was done to a destination, oldest first, each by its newest row.

    A complete or closed run stays so, even if the clocks of two machines disagree.
    """
    found = tables.table("runs").rows()
    try:
        rows = found.to_pylist()
        if any(None in row.values() for row in rows):
            raise ValueError
        rows.sort(key=lambda row: (row["state"] != RunState.RUNNING, row["at"]))
        newest = {row["run_id"]: row for row in rows}
        begun: dict[str, datetime] = {}
        for row in rows:
            begun[row["run_id"]] = min(row["at"], begun.get(row["run_id"], row["at"]))
        return [_record(newest[run_id]) for run_id in sorted(begun, key=begun.__getitem__)]
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise TableError(
            f"{tables.dest}: a row of its runs cannot be read ({type(error).__name__}): restore "
            "the table from a backup"
        ) from None


def _record(row: dict[str, Any]) -> RunRecord:
    parsed = {name: json.loads(row[name]) for name in _JSON}
    if not all(isinstance(said, dict) for said in parsed.values()):
        raise TypeError
    return RunRecord(row["run_id"], row["kind"], row["state"], **parsed)


def traits(record: RunRecord) -> dict[str, Any]:
    """What a run recorded of `TemplateJob.traits`. Earlier releases recorded less of them."""
    found = record.config.get("shapes", {})
    params = params_of(record)
    return {"pseudonymous": False, **(params.recording() if params else {}), **found}


def params_of(record: RunRecord) -> Params | None:
    """The parameters of the templates that a run makes; None where it recorded none."""
    found = record.config.get("shapes", {})
    return Params.recorded(found) if "n" in found else None


def write(dest: Destination, record: RunRecord, once: str = "") -> None:
    """Add a row about a run. once: a name; under it, only the first time."""
    texts = {name: json.dumps(getattr(record, name), default=str) for name in _JSON}
    row = {
        "run_id": record.run_id,
        "kind": record.kind,
        "state": str(record.state),
        "at": datetime.now(UTC),
        **texts,
    }
    dest.append("runs", pa.Table.from_pylist([row], RUNS), once)


def close(dest: Destination, record: RunRecord) -> None:
    """Give up an unfinished run. Its commits stay; inputs without an outcome are planned again."""
    write(dest, replace(record, state=RunState.CLOSED))


def runs_of(tables: Tables, generation: int) -> list[str]:
    """The runs that wrote a generation."""
    return [r.run_id for r in runs(tables) if r.config.get("generation") == generation]


def has_unkeyed(tables: Tables) -> bool:
    """Whether the contents of some run may be named in the clear, as in older tables."""
    return any(not record.config.get("keyed") for record in runs(tables))


def jobs(tables: Tables) -> list[TemplateJob]:
    """The jobs of all runs, oldest first."""
    return [stored(record.config["job"]) for record in runs(tables)]


def jobs_of(tables: Tables, generation: int) -> list[TemplateJob]:
    """The jobs that wrote a generation, oldest first, as if they wrote to its present place.

    Jobs that enrolled nobody are left out, as are re-protections that were planned again. Raises
    `TableError` where there is none.
    """
    own = [record for record in runs(tables) if record.config.get("generation") == generation]
    renewing = [record for record in own if Purpose(record.kind).renews]
    counted = [
        record
        for record in own
        if record not in renewing[:-1] and record.counts.get("subjects_enrolled") != 0
    ]
    found = [replace(stored(one.config["job"]), dest=tables.dest) for one in counted or own]
    if not found:
        raise TableError(f"{tables.dest}: no run is left that wrote generation {generation}")
    return found


def declared_model(tables: Tables, name: str) -> str | None:
    """The name that a table of stored embeddings gives a model whose files were not at hand."""
    said = DECLARED + name
    models = {record.config.get("shapes", {}).get("model") for record in runs(tables)}
    return said if said in models else None


def rows_of_run(tables: Tables, name: str, run_id: str) -> int:
    """The number of rows of a run in a table's log."""
    counts = tables.table(name).counts()
    return sum(rows for path, rows in counts.items() if run_of(path) == run_id)
