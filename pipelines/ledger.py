"""What a destination holds already, and whether a job may add to it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from ironmask.errors import MismatchError, TableError
from pipelines import generations
from pipelines.destination import Destination
from pipelines.job import DECLARED, EnrolJob, Purpose, stored
from pipelines.known import Known
from pipelines.layout import parse_shard_file
from pipelines.ports import Tables
from pipelines.records import RUNS, Outcome, Reason


class RunState(StrEnum):
    """How far a run has come; a closed one was given up, and keeps what it had committed."""

    RUNNING = "running"
    COMPLETE = "complete"
    CLOSED = "closed"


@dataclass(frozen=True)
class RunRecord:
    """The newest word of the `runs` table about one run."""

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
    """Everything that was done to a destination, oldest first, each as its newest row tells it.

    What is complete or closed stays so, whatever the clocks of two machines say.
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
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise TableError(
            f"{tables.dest}: a row of its runs cannot be read ({type(error).__name__}): restore "
            "the table from a backup"
        ) from None


def _record(row: dict[str, Any]) -> RunRecord:
    parsed = {name: json.loads(row[name]) for name in _JSON}
    return RunRecord(row["run_id"], row["kind"], row["state"], **parsed)


def write(dest: Destination, record: RunRecord) -> None:
    """Add the newest word about a run."""
    texts = {name: json.dumps(getattr(record, name), default=str) for name in _JSON}
    row = {
        "run_id": record.run_id,
        "kind": record.kind,
        "state": str(record.state),
        "at": datetime.now(UTC),
        **texts,
    }
    dest.append("runs", pa.Table.from_pylist([row], RUNS))


def close(dest: Destination, record: RunRecord) -> None:
    """Give up an unfinished run; its commits stay, its inputs without outcome are planned anew."""
    write(dest, replace(record, state=RunState.CLOSED))


def live_subjects(tables: Tables, generation: int) -> Known:
    """Subjects with a template in a generation: at most one issue a person."""
    wanted = tables.table("templates").batches(["subject_id", "generation"])
    return Known(
        batch["subject_id"].filter(pc.equal(batch["generation"], generation)) for batch in wanted
    )


def used_contents(tables: Tables, generation: int) -> Known:
    """Identities of the contents that a generation's templates were made from."""
    used = _used(tables, generation, ["identities"])
    return Known(pc.list_flatten(batch["identities"]) for batch in used)


def used_by_subject(tables: Tables, generation: int) -> Known:
    """The same, each as `owned` by the person whose template it is of."""
    return Known(map(_owned, _used(tables, generation, ["subject_id", "identities"])))


def _owned(used: pa.RecordBatch) -> pa.Array:
    places = pc.list_parent_indices(used["identities"])
    return owned(used["subject_id"].take(places), pc.list_flatten(used["identities"]))


def used_inputs(tables: Tables, generation: int) -> int:
    """How many inputs a generation's templates were made from, those of erased people left out."""
    return sum(len(batch) for batch in _used(tables, generation, []))


def _used(tables: Tables, generation: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of the inputs that a generation's templates were made from."""
    own = pa.array(runs_of(tables, generation), pa.string())
    for batch in tables.table("inputs").batches(["outcome", "reason", "run_id", *columns]):
        yield batch.filter(pc.and_(is_used(batch), pc.is_in(batch["run_id"], own)))


def is_used(rows: pa.RecordBatch | pa.Table) -> pa.Array | pa.ChunkedArray:
    """Which of some `inputs` a template was made from; those of erased people only count."""
    used = pc.equal(rows["outcome"], Outcome.USED.value)
    return pc.and_(used, pc.not_equal(rows["reason"], Reason.ERASED.value))


def owned(subjects: pa.Array, contents: pa.Array) -> pa.Array:
    """Contents with their owners, as one text each; null where there is no content."""
    kind = pa.large_string()
    return pc.binary_join_element_wise(
        pc.cast(subjects, kind), pc.cast(contents, kind), pa.scalar("\0", kind)
    )


def runs_of(tables: Tables, generation: int) -> list[str]:
    """The runs that wrote a generation."""
    return [r.run_id for r in runs(tables) if r.config.get("generation") == generation]


@dataclass(frozen=True, slots=True)
class Failure:
    """Whose input failed, and why."""

    subject: str
    reason: str


def newest_failures(tables: Tables) -> dict[str, Failure]:
    """The inputs whose newest outcome is a failure, by address."""
    order = {record.run_id: place for place, record in enumerate(runs(tables))}
    newest: dict[str, tuple[int, str, str]] = {}
    for batch in _outcomes(tables, failed=True):
        for row in batch.to_pylist():
            here = order.get(row["run_id"], -1), row["reason"], row["subject_id"]
            newest[row["uri"]] = max(here, newest.get(row["uri"], here))
    ever = Known([pa.array(list(newest), pa.string())])
    for batch in _outcomes(tables, failed=False):
        for row in batch.filter(pa.array(ever.has(batch["uri"]))).to_pylist():
            if order.get(row["run_id"], -1) > newest.get(row["uri"], (len(order),))[0]:
                del newest[row["uri"]]
    return {uri: Failure(subject, reason) for uri, (_, reason, subject) in newest.items()}


def failed_inputs(tables: Tables, reasons: Collection[str]) -> Known:
    """Addresses of those inputs that failed for one of some reasons, if any are given."""
    failed = newest_failures(tables).items()
    wanted = [uri for uri, failure in failed if not reasons or failure.reason in reasons]
    return Known([pa.array(wanted, pa.string())])


def _outcomes(tables: Tables, *, failed: bool) -> Iterator[pa.RecordBatch]:
    """Inputs that failed, or those that did not."""
    columns = ["uri", "subject_id", "run_id", "outcome", "reason"]
    for batch in tables.table("inputs").batches(columns):
        batch = batch.filter(pc.not_equal(batch["reason"], Reason.ERASED.value))
        ended = pc.equal(batch["outcome"], Outcome.FAILED.value)
        yield batch.filter(ended if failed else pc.invert(ended))


def admit(tables: Tables, job: EnrolJob, *, restart: bool = False) -> RunRecord | None:
    """Return the unfinished run of a destination that a job may add to, if there is one.

    restart: that run is about to be closed, so it binds only by what it committed. Raises
    `MismatchError` naming each difference where the job's rows would not fit those there.
    """
    known = runs(tables)
    _refuse_halves(tables, job, known)
    for record in known:
        before = record.config.get("shapes", {})
        if record.config.get("generation") != job.generation:
            continue
        found = [
            f"{name} is {before[name]} there and {value} here"
            for name, value in job.shapes().items()
            if name in before and before[name] != value
        ]
        goes_on = record.state == RunState.RUNNING and not restart
        if found and (goes_on or not _is_empty(tables, record)):
            advice = (
                "Use those of the table; to change them for everybody, run `ironmask reprotect` "
                "with the new ones"
            )
            if job.renews is not None:
                advice = "Go on with the same options as then, or give it up with --abandon"
            raise MismatchError(
                f"{tables.dest} was enrolled with other settings: {'; '.join(found)} (now "
                f"{job.params.bits:.1f} bits). {advice}"
            )
    return next((record for record in known if record.state == RunState.RUNNING), None)


def _refuse_halves(tables: Tables, job: EnrolJob, known: list[RunRecord]) -> None:
    """Raise `MismatchError` where another kind of run has to be finished first."""
    for record in known:
        own = record.kind == job.purpose and record.config.get("generation") == job.generation
        if record.state == RunState.RUNNING and not own:
            raise MismatchError(
                f"{tables.dest} holds an unfinished run of another kind, {record.run_id} "
                f"({record.kind}): finish that first with the same command as then"
            )
    found = generations.read(tables)
    halves = [
        one
        for state in (generations.State.PREPARING, generations.State.RETIRED)
        for one in generations.in_state(found, state)
    ]
    if halves and job.renews is None:
        one = halves[0]
        by = max(found.values(), key=lambda other: other.number).purpose
        raise MismatchError(
            f"{tables.dest}: generation {one.number} is {one.state}, so a re-protection has not "
            f"ended: finish it with `ironmask {by}`, or, before its switch, give it up with "
            "`ironmask reprotect --abandon`"
        )


def jobs(tables: Tables) -> list[EnrolJob]:
    """The jobs of all runs, oldest first."""
    return [stored(record.config["job"]) for record in runs(tables)]


def jobs_of(tables: Tables, generation: int) -> list[EnrolJob]:
    """The jobs that wrote a generation, oldest first, as if they wrote to where it lies now.

    Those that enrolled nobody are left out, and re-protections that were planned afresh. Raises
    `TableError` where there is none.
    """
    own = [record for record in runs(tables) if record.config.get("generation") == generation]
    renewing = [record for record in own if record.kind != Purpose.ENROL]
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
    """What a table of stored embeddings calls a model whose files were not at hand then."""
    said = DECLARED + name
    models = {record.config.get("shapes", {}).get("model") for record in runs(tables)}
    return said if said in models else None


def of_run(run_id: str) -> pads.Expression:
    """The rows of one run, as a filter."""
    return pads.field("run_id") == run_id


def rows_of_run(tables: Tables, name: str, run_id: str) -> int:
    """How many rows of a run a table's log lists."""
    counts = tables.table(name).counts()
    files = ((parse_shard_file(path), rows) for path, rows in counts.items())
    return sum(rows for file, rows in files if file and file.run_id == run_id)


def _is_empty(tables: Tables, record: RunRecord) -> bool:
    return rows_of_run(tables, "templates", record.run_id) == 0


def differences(record: RunRecord, job: EnrolJob) -> str:
    """The settings in which a job differs from a run, in brackets; empty where none does."""
    was = _flat(record.config.get("job", {}))
    now = _flat(json.loads(json.dumps(job.as_dict(), default=str)))
    parts = [
        f"{name}: {was.get(name)} then, {value} now"
        for name, value in now.items()
        if was.get(name) != value
    ]
    return f" ({'; '.join(parts)})" if parts else ""


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of settings beside them, so that only what differs is named."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat
