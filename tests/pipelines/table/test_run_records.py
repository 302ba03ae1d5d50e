"""The records of runs: the newest word of each, whatever clocks say, and none that is damaged."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from support.destinations import DEST, OTHER_RUN, RUN, Place, enrolled, failed, job, record

from ironmask.errors import TableError
from pipelines.spec.template_job import DECLARED, Purpose
from pipelines.table import run_records
from pipelines.table.run_records import RunRecord, RunState
from pipelines.table.schemas import RUNS

THIRD = "aaaaaaaaaaaa"


@pytest.fixture
def dest():
    return Place().held()


def add(dest, **changes: Any) -> None:
    """A row of `runs` as it comes from a machine whose clock is its own."""
    row = {
        "run_id": RUN,
        "kind": "enrol",
        "state": "running",
        "at": datetime(2030, 1, 2, tzinfo=UTC),
        "fingerprint": "{}",
        "config": "{}",
        "versions": "{}",
        "counts": "{}",
        "timings": "{}",
    }
    dest.append("runs", pa.Table.from_pylist([row | changes], RUNS))


def told(dest) -> list[tuple[str, str]]:
    return [(one.run_id, one.state) for one in run_records.records(dest.tables)]


def test_none_at_first(dest):
    assert run_records.records(dest.tables) == run_records.runs(dest.tables) == []
    assert run_records.jobs(dest.tables) == []
    assert not run_records.has_unkeyed(dest.tables)


def test_what_is_written_is_read(dest):
    made = RunRecord(RUN, "enrol", RunState.RUNNING, {"plan": "p"}, {"generation": 1}, {}, {}, {})
    run_records.write(dest, made)
    assert run_records.records(dest.tables) == [made]


def test_the_newest_word_counts(dest):
    add(dest)
    add(dest, state="complete", at=datetime(2030, 1, 3, tzinfo=UTC), counts='{"inputs": 4}')
    (found,) = run_records.records(dest.tables)
    assert (found.state, found.counts) == ("complete", {"inputs": 4})


@pytest.mark.parametrize("end", ["complete", "closed"])
def test_what_has_ended_stays_so_whatever_another_clock_says(dest, end):
    add(dest, state=end, at=datetime(2030, 1, 1, tzinfo=UTC))
    add(dest, state="running", at=datetime(2040, 1, 1, tzinfo=UTC))
    assert told(dest) == [(RUN, end)]


def test_they_come_in_the_order_in_which_they_began(dest):
    add(dest, run_id=OTHER_RUN, at=datetime(2030, 1, 2, tzinfo=UTC))
    add(dest, run_id=RUN, at=datetime(2030, 1, 1, tzinfo=UTC))
    add(dest, run_id=RUN, state="complete", at=datetime(2030, 1, 9, tzinfo=UTC))
    add(dest, run_id=THIRD, at=datetime(2030, 1, 3, tzinfo=UTC))
    assert [run_id for run_id, _ in told(dest)] == [RUN, OTHER_RUN, THIRD]


@pytest.mark.parametrize("kind", ["erase", "take-out", "evaluate"])
def test_what_wrote_no_templates_is_a_record_and_no_run(dest, kind):
    add(dest, kind=kind)
    add(dest, run_id=OTHER_RUN, kind="rekey", at=datetime(2030, 1, 3, tzinfo=UTC))
    assert [one.kind for one in run_records.records(dest.tables)] == [kind, "rekey"]
    assert [one.run_id for one in run_records.runs(dest.tables)] == [OTHER_RUN]


@pytest.mark.parametrize("column", ["fingerprint", "config", "versions", "counts", "timings"])
@pytest.mark.parametrize("text", ["", "{", "\x00", "[]", "7", "null", "[" * 100_000])
def test_a_damaged_row_is_named(dest, column, text):
    add(dest, run_id=OTHER_RUN)
    add(dest, **{column: text})
    with pytest.raises(TableError, match="a row of its runs cannot be read"):
        run_records.records(dest.tables)


def test_a_name_is_written_once(dest):
    made = RunRecord(RUN, "erase", RunState.COMPLETE, {}, {}, {}, {"n": 1}, {})
    for _ in range(2):
        run_records.write(dest, made, once="erase/1")
    assert dest.tables.table("runs").rows().num_rows == 1
    run_records.write(dest, made, once="erase/2")
    assert dest.tables.table("runs").rows().num_rows == 2


def test_what_is_given_up_keeps_all_but_its_state(dest):
    record(dest, job())
    (before,) = run_records.runs(dest.tables)
    run_records.close(dest, before)
    (found,) = run_records.runs(dest.tables)
    assert found.state == "closed"
    assert (found.config, found.fingerprint) == (before.config, before.fingerprint)


class TestJobs:
    def test_a_job_is_stored_whole(self, dest):
        asked = job(retry=("no_face",), shard_size=7, filling=0.5, agreement=0.3)
        record(dest, asked)
        assert run_records.jobs(dest.tables) == [asked]

    def test_of_a_generation_as_if_they_wrote_to_where_it_lies(self, dest):
        record(dest, job(dest="/moved/since"), RUN)
        record(dest, job(generation=2, renews=1, purpose=Purpose.REPROTECT), OTHER_RUN)
        (first,) = run_records.jobs_of(dest.tables, 1)
        assert first == job(dest=DEST)
        assert [one.generation for one in run_records.jobs_of(dest.tables, 2)] == [2]
        assert run_records.runs_of(dest.tables, 2) == [OTHER_RUN]

    def test_those_that_enrolled_nobody_are_left_out_unless_all_did(self, dest):
        nobody = {"subjects_enrolled": 0}
        record(dest, job(), RUN, RunState.COMPLETE, nobody)
        assert len(run_records.jobs_of(dest.tables, 1)) == 1
        record(dest, job(shard_size=9), OTHER_RUN, RunState.COMPLETE, {"subjects_enrolled": 2})
        assert [one.shard_size for one in run_records.jobs_of(dest.tables, 1)] == [9]

    def test_a_reprotection_that_was_planned_afresh_counts_by_its_last_run(self, dest):
        again = {"generation": 2, "renews": 1, "purpose": Purpose.REPROTECT}
        record(dest, job(shard_size=3, **again), RUN, RunState.CLOSED, {"subjects_enrolled": 1})
        record(dest, job(shard_size=4, **again), OTHER_RUN)
        assert [one.shard_size for one in run_records.jobs_of(dest.tables, 2)] == [4]

    def test_without_any_run_it_is_said(self, dest):
        with pytest.raises(TableError, match="no run is left that wrote generation 3"):
            run_records.jobs_of(dest.tables, 3)


def test_what_stored_embeddings_call_their_model(dest):
    record(dest, job(model=f"{DECLARED}m"))
    assert run_records.declared_model(dest.tables, "m") == f"{DECLARED}m"
    assert run_records.declared_model(dest.tables, "other") is None


def test_contents_of_before_are_known_by_their_runs(dest):
    record(dest, job())
    assert not run_records.has_unkeyed(dest.tables)
    add(dest, run_id=OTHER_RUN, config=json.dumps({"generation": 1}))
    assert run_records.has_unkeyed(dest.tables)


def test_rows_of_a_run_are_counted_by_the_log(dest):
    enrolled(dest, ["ann", "bob", failed("cid")])
    enrolled(dest, ["dan"], OTHER_RUN)
    for name, counts in (("templates", (2, 1)), ("inputs", (3, 1)), ("vault", (0, 0))):
        found = [run_records.rows_of_run(dest.tables, name, run) for run in (RUN, OTHER_RUN)]
        assert tuple(found) == counts
    assert run_records.rows_of_run(dest.tables, "inputs", THIRD) == 0
    only = dest.tables.table("inputs").batches(["subject_id"], [OTHER_RUN])
    assert [one for batch in only for one in batch["subject_id"].to_pylist()] == ["dan"]
