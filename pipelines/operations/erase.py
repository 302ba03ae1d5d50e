"""Erasing a person: rows, outcomes, plans and the logs' history, in every file and version.

Files that hold something of the person are written again without it, the logs name the new ones
instead, and the old ones are destroyed; a log's statistics name people, so its history goes too.
What stays of the person's inputs is their outcome, under a pseudonym. Each step can be taken again:
the same command finishes what was broken off.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from ironmask.errors import BusyError, TableError
from pipelines.operations.prove_erasure import PURPOSE, names_of
from pipelines.plan import plans as plan_plans
from pipelines.ports import Store, Tables
from pipelines.run import begin
from pipelines.shard.copies import copied
from pipelines.spec.outcomes import Outcome, Reason
from pipelines.table import generations, layout, run_records, waves
from pipelines.table.data_files import destroy_below, read_data_file
from pipelines.table.details import decrypted, encrypted, table_keys
from pipelines.table.erasing import Erased, read_note
from pipelines.table.generations import State
from pipelines.table.held import Destination
from pipelines.table.log_entries import Commit
from pipelines.table.orphans import destroy_orphans
from pipelines.table.pseudonyms import stored_subject
from pipelines.table.run_records import RunRecord, RunState
from pipelines.table.schemas import INPUTS

# Columns of an outcome that say what became of the input; the others tell of it.
_KEPT: Final = frozenset({"subject_id", "uri", "outcome", "reason", "detail", "shard", "run_id"})
_TELLING: Final = ["run_id", "shard", "subject_id", "uri", "outcome", "detail", "details"]
_Change = Callable[[pa.Table], pa.Table]


def erase(dest: Destination, subject: str) -> Erased:
    """Destroy everything that a destination holds of a person, but for the outcomes.

    Raises `TableError` where it holds nothing, `BusyError` where another run has to end first.
    """
    pseudonym = _pseudonym(dest, subject)
    subject = stored_subject(dest.tables, dest.keys.table, subject)
    # A planning that was killed may have left rows that name the person.
    begin.destroy_unfinished_plans(dest)
    found = {name: _rows_of(dest, name, subject) for name in ("templates", "vault", "inputs")}
    uris = {row["uri"] for row in found["inputs"]}
    plans = list(plans_with(dest.tables, dest.store, [subject]))
    if not (any(found.values()) or plans or read_note(dest.tables.dest, dest.store)):
        dest.log_seal.end()
        raise TableError(f"{dest.tables.dest} holds nothing of subject {subject!r}")
    done = _begin(dest, pseudonym, {name: len(rows) for name, rows in found.items()})
    once = f"erase/{pseudonym}"
    changes = {"templates": _without(subject), "vault": _without(subject)}
    changes["inputs"] = _renamed(dest, subject, pseudonym, uris)
    places = {name: {_place(row) for row in rows} for name, rows in found.items()}
    places["inputs"] |= set(_mentions(dest, uris))
    for name in found:
        _rewrite(dest, name, places[name], changes[name], once)
    destroy_orphans(dest.tables, dest.store, dest.check)
    for record in plans:
        _drop_plan(dest, record)
    for name in found:
        dest.log_seal.forget(name)
    _write_run(dest, done)
    dest.log_seal.end()
    _end(dest)
    return done


def _pseudonym(dest: Destination, subject: str) -> str:
    """What the person's outcomes are kept under: as an erasure that was broken off began.

    Raises `BusyError` where another run has to end first.
    """
    names = names_of(dest.keys, subject)
    refuse_unfinished(dest.tables, dest.store, names)
    begun = read_note(dest.tables.dest, dest.store)
    return begun.pseudonym if begun else names[0]


def refuse_unfinished(tables: Tables, store: Store, names: Collection[str]) -> None:
    """Raise `BusyError` where another run has to end first.

    names: pseudonyms of those who are to be erased, one of whom may have been begun with.
    """
    where = tables.dest
    for record in run_records.runs(tables):
        if record.state == RunState.RUNNING:
            raise BusyError(
                f"{where} holds the unfinished run {record.run_id} ({record.kind}), whose plan may "
                "name the subject: finish it, or close it with --restart, and erase then"
            )
    found = generations.read(tables)
    if any(one.state in (State.PREPARING, State.RETIRED) for one in found.values()):
        raise BusyError(f"{where}: a re-protection has not ended: finish it, and erase then")
    other = read_note(where, store)
    if other and other.pseudonym not in names:
        raise BusyError(
            f"{where}: the erasure of another subject was broken off: finish it with the same "
            "command first"
        )


def _begin(dest: Destination, pseudonym: str, rows: dict[str, int]) -> Erased:
    """Note what an erasure is about, before the first of it goes."""
    known = read_note(dest.tables.dest, dest.store)
    if known:
        return known
    counts = (rows["templates"], rows["inputs"], rows["vault"])
    begun = Erased(secrets.token_hex(6), pseudonym, *counts)
    content = json.dumps(asdict(begun)).encode()
    dest.store.write(layout.erasure_file(dest.tables.dest), content)
    return begun


def _end(dest: Destination) -> None:
    dest.store.delete([layout.erasure_file(dest.tables.dest)])


def _rows_of(dest: Destination, name: str, subject: str) -> list[dict[str, Any]]:
    """Where a table's rows of a person are, and of which inputs."""
    columns = ["run_id", "shard", *(["uri"] if name == "inputs" else [])]
    mine = pads.field("subject_id") == subject
    return list(dest.tables.table(name).rows(columns, mine, [subject]).to_pylist())


def _place(row: dict[str, Any]) -> tuple[str, int]:
    return row["run_id"], row["shard"]


def _mentions(dest: Destination, uris: set[str]) -> Iterator[tuple[str, int]]:
    """Where the details of other people's inputs end with one of some addresses."""
    ends = tuple(uris)
    if not ends:
        return
    for batch in dest.tables.table("inputs").batches(_TELLING):
        # Only duplicates tell of another input.
        told = batch.filter(pc.equal(batch["outcome"], Outcome.DUPLICATE.value))
        for row in told.to_pylist():
            if _detail(dest, row).endswith(ends):
                yield _place(row)


def _detail(dest: Destination, row: dict[str, Any]) -> str:
    found = decrypted(dest.tables.table_id, row, dest.keys.table)
    return str(found.get("detail", ""))


def _without(subject: str) -> _Change:
    return lambda rows: rows.filter(pc.not_equal(rows["subject_id"], subject))


def _renamed(dest: Destination, subject: str, pseudonym: str, uris: set[str]) -> _Change:
    """Outcomes of a person under a pseudonym, without what tells of their inputs."""
    ends = tuple(uris)
    table_id, keys = dest.tables.table_id, table_keys(dest.keys)

    def changed(number: int, row: dict[str, Any]) -> dict[str, Any]:
        if row["subject_id"] == subject:
            nothing = dict.fromkeys(row.keys() - _KEPT)
            row |= nothing | {"subject_id": pseudonym, "uri": f"{pseudonym}/{number}"}
            return row | {"reason": Reason.ERASED.value, "detail": ""}
        if not uris:
            return row
        facts = decrypted(table_id, row, keys)
        if str(facts.get("detail", "")).endswith(ends):
            facts["detail"] = "same content as an input that was erased"
            return row | {"detail": "", "details": encrypted(table_id, row, facts, keys)}
        return row

    def change(rows: pa.Table) -> pa.Table:
        made = [changed(number, row) for number, row in enumerate(rows.to_pylist())]
        return pa.Table.from_pylist(made, INPUTS)

    return change


def _rewrite(
    dest: Destination, name: str, wanted: set[tuple[str, int]], change: _Change, once: str
) -> None:
    """Write the files of some shards anew in a table."""
    runs = {run_id for run_id, _ in wanted}
    paths = [path for path in dest.tables.table(name).files() if layout.is_of(path, runs)]
    found = waves.of_files(dest.tables, dest.store, paths)
    old = [path for path, own in found if any(one[:2] in wanted for one in own)]
    if not old:
        return
    read = partial(read_data_file, dest.tables.dest, dest.store, name)
    new = [file for path in old if (file := copied(dest, name, path, change(read(path))))]
    dest.commit(Commit(name, new, once, dest.sequence(name, once) + 1, old))
    dest.log_seal.extend()


def plans_with(tables: Tables, store: Store, subjects: Collection[str]) -> Iterator[RunRecord]:
    """The ended runs whose frozen plan names one of some people, or went half."""
    for record in run_records.runs(tables):
        folder = layout.plan_folder(tables.dest, record.run_id)
        if not record.fingerprint.get("plan"):
            if next(store.remains(folder), None):
                yield record
        elif next(people_planned(folder, store, subjects), None):
            yield record


def people_planned(folder: str, store: Store, subjects: Collection[str]) -> Iterator[str]:
    """Those of some people whom a frozen plan names, perhaps several times."""
    frozen, _ = plan_plans.load(folder, store)
    for part in plan_plans.tables(frozen, store):
        owners = part["subject_id"]
        wanted = pa.array(subjects, owners.type)
        yield from owners.filter(pc.is_in(owners, wanted)).unique().to_pylist()


def _drop_plan(dest: Destination, record: RunRecord) -> None:
    """Destroy the plan of an ended run, once the run says that it has none any more."""
    if record.fingerprint.get("plan"):
        run_records.write(dest, replace(record, fingerprint={**record.fingerprint, "plan": ""}))
    folder = layout.plan_folder(dest.tables.dest, record.run_id)
    dest.check()
    destroy_below(dest.store, folder)


def _write_run(dest: Destination, done: Erased) -> None:
    """Add the erasure to the runs."""
    entry = RunRecord(
        run_id=done.run_id,
        kind=PURPOSE,
        state=RunState.COMPLETE,
        fingerprint={},
        config={"pseudonym": done.pseudonym},
        versions={},
        counts=asdict(done),
        timings={},
    )
    run_records.write(dest, entry)
