"""How far a run is: what is committed, what its last note adds, and nothing that is stale."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from support.destinations import DEST, OTHER_RUN, RUN, commit, context, failed, job, written

from ironmask.errors import TableError
from pipelines.operations.status import status
from pipelines.plan import plans
from pipelines.plan.arrange import arrange
from pipelines.plan.naming import Known
from pipelines.plan.sources import COLUMNS
from pipelines.run import begin
from pipelines.run.live_note import Note
from pipelines.table import layout, run_records
from pipelines.table.identities import Identities
from pipelines.table.run_records import RunState
from pipelines.table.text_set import TextSet

HOLDER = "somebody on a machine"


def frozen(dest, inputs: int, run_id: str = RUN):
    """A run that has been planned: a person for each input, two inputs a shard."""
    rows = [
        {"subject_id": f"s{n}", "uri": f"s{n}/0.jpg", "reason": "", "detail": ""}
        for n in range(inputs)
    ]
    batches = [pa.Table.from_pylist(rows, COLUMNS)]
    tables = arrange(batches, TextSet(), Known(Identities(bytes(32))), 2)
    made = plans.write(tables, run_id, layout.plan_folder(DEST, run_id), {}, dest.store)
    begin.write_run(dest, made, job(), RunState.RUNNING, {}, {})
    return made


def note(dest, run_id: str = RUN, **changes) -> Note:
    found = Note(run_id, time.time(), 4.0, 4, 4, 1, 1, {})
    found = Note(**{**asdict(found), **changes})
    dest.store.write(layout.progress_file(DEST), json.dumps(asdict(found)).encode())
    return found


def asked(dest, holder: str | None = HOLDER):
    return status(dest.tables, dest.store, holder)


def test_before_any_run_it_is_said(dest):
    with pytest.raises(TableError, match="has no run yet"):
        asked(dest)


def test_of_a_run_that_has_just_been_planned(dest):
    frozen(dest, 5)
    found = asked(dest, None)
    assert (found.shards, found.shards_done, found.inputs) == (3, 0, 5)
    assert (found.inputs_done, found.inputs_left, found.inputs_waiting) == (0, 5, 0)
    assert (found.outcomes, found.failed) == ({}, {})
    assert (found.state, found.holder) == ("running", None)
    assert (found.per_second, found.ends_at) == (None, None)


def test_what_is_committed_is_counted(dest):
    made = frozen(dest, 5)
    commit(dest, written(context(dest, made.run_id), ["s0", failed("s1")]), 1)
    found = asked(dest, None)
    assert (found.shards_done, found.inputs_done, found.inputs_left) == (1, 2, 3)
    assert found.outcomes == {"used": 1, "failed": 1}
    assert found.failed == {"no_face": 1}


def test_the_newest_run_is_told_of(dest):
    made = frozen(dest, 5)
    commit(dest, written(context(dest, made.run_id), ["s0"]), 1)
    begin.write_run(dest, made, job(), RunState.COMPLETE, {}, {})
    frozen(dest, 3, OTHER_RUN)
    found = asked(dest)
    assert (found.run_id, found.inputs, found.inputs_done) == (OTHER_RUN, 3, 0)


def test_the_last_note_of_who_works_on_it_adds_what_waits(dest):
    made = frozen(dest, 20)
    commit(dest, written(context(dest, made.run_id), ["s0", "s1"]), 1)
    told = note(dest, settled=8, inputs=8, seconds=4.0, in_flight=2, waiting=3)
    found = asked(dest)
    assert (found.inputs_done, found.inputs_waiting) == (2, 6)
    assert (found.in_flight, found.waiting) == (2, 3)
    assert found.per_second == 2.0
    assert found.ends_at == datetime.fromtimestamp(told.at + 12 / 2.0, UTC)


def test_a_note_that_knows_less_than_the_log_takes_nothing_back(dest):
    made = frozen(dest, 5)
    commit(dest, written(context(dest, made.run_id), ["s0", "s1"]), 1)
    note(dest, settled=0, inputs=1)
    found = asked(dest)
    assert (found.inputs_done, found.inputs_waiting) == (2, 0)


@pytest.mark.parametrize(
    ("holder", "changes"),
    [(None, {}), (HOLDER, {"run_id": OTHER_RUN}), (HOLDER, {"at": time.time() - 3600})],
    ids=["nobody works", "of another run", "an hour old"],
)
def test_a_note_that_is_stale_says_nothing(dest, holder, changes):
    frozen(dest, 5)
    note(dest, **changes)
    found = asked(dest, holder)
    assert (found.in_flight, found.waiting, found.inputs_waiting) == (0, 0, 0)
    assert (found.per_second, found.ends_at) == (None, None)


@pytest.mark.parametrize("changes", [{"seconds": 0.0}, {"inputs": 0}])
def test_without_a_rate_no_end_is_foretold(dest, changes):
    frozen(dest, 5)
    note(dest, **changes)
    assert asked(dest).ends_at is None


def test_a_damaged_note_says_nothing(dest):
    frozen(dest, 5)
    dest.store.write(layout.progress_file(DEST), b"{")
    assert asked(dest).in_flight == 0


def test_an_ended_run_may_have_lost_its_plan(dest):
    """With an erased person goes every plan that names them."""
    made = frozen(dest, 3)
    commit(dest, written(context(dest, made.run_id), ["s0", "s1", "s2"]), 1)
    (record,) = run_records.runs(dest.tables)
    record.fingerprint["plan"] = ""
    record = run_records.RunRecord(**{**vars(record), "state": RunState.COMPLETE})
    run_records.write(dest, record)
    dest.store.delete(list(dest.store.remains(made.uri)))
    found = asked(dest, None)
    assert (found.state, found.shards, found.inputs) == ("complete", 1, 3)
    assert (found.inputs_left, found.shards_done) == (0, 1)


def test_a_plan_that_is_missing_is_an_error(dest):
    made = frozen(dest, 3)
    dest.store.delete(list(dest.store.remains(made.uri)))
    with pytest.raises(FileNotFoundError):
        asked(dest)
