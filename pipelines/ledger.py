"""What a destination holds already, and whether a job may add to it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from ironmask.errors import MismatchError
from pipelines.job import EnrolJob
from pipelines.ports import Tables
from pipelines.records import Outcome


@dataclass(frozen=True)
class RunRecord:
    """The newest word of the `runs` table about one run."""

    run_id: str
    kind: str
    state: str
    fingerprint: dict[str, str]
    config: dict[str, Any]
    counts: dict[str, Any]
    timings: dict[str, Any]


def runs(tables: Tables) -> list[RunRecord]:
    """Every run of a destination, oldest first, each as its newest row tells it."""
    rows = tables.table("runs").rows().sort_by([("at", "ascending")])
    newest = {row["run_id"]: row for row in rows.to_pylist()}
    return [_record(row) for row in newest.values()]


def _record(row: dict[str, Any]) -> RunRecord:
    parsed = {
        name: json.loads(row[name]) for name in ("fingerprint", "config", "counts", "timings")
    }
    return RunRecord(row["run_id"], row["kind"], row["state"], **parsed)


def live_subjects(tables: Tables, generation: int) -> pa.Array:
    """Subjects with a live template in a generation: at most one issue a person."""
    here = pads.field("generation") == generation
    found = tables.table("templates").rows(["subject_id"], here)
    return pc.unique(found["subject_id"].combine_chunks())


def used_contents(tables: Tables) -> pa.Array:
    """Identities of the contents that templates were made from."""
    used = pads.field("outcome") == Outcome.USED.value
    found = tables.table("inputs").rows(["sha256"], used)
    hashes = found["sha256"].combine_chunks().drop_null()
    return pc.unique(pc.binary_join_element_wise("sha256:", hashes, ""))


def check_shapes(tables: Tables, job: EnrolJob) -> None:
    """Refuse a job whose rows would not fit those the generation holds.

    Raises `MismatchError` naming each difference.
    """
    for record in runs(tables):
        before = record.config.get("shapes", {})
        if record.kind != "enrol" or record.config.get("generation") != job.generation:
            continue
        differences = [
            f"{name} is {before[name]} there and {value} here"
            for name, value in job.shapes().items()
            if name in before and before[name] != value
        ]
        if differences:
            raise MismatchError(
                f"{tables.dest} was enrolled with other settings: {'; '.join(differences)}. "
                "Use the same settings, or another destination"
            )
