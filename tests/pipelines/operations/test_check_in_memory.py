"""A check finds whatever is not as it was written, names it, and finds nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
import pytest
from support.destinations import (
    DEST,
    OTHER_RUN,
    RUN,
    Place,
    commit,
    context,
    enrolled,
    failed,
    finished,
    job,
    row,
    settled,
    written,
)

from pipelines.operations.check import Report, check
from pipelines.operations.check_files import Scope
from pipelines.plan import plans
from pipelines.plan.arrange import arrange
from pipelines.plan.naming import Known
from pipelines.plan.sources import COLUMNS
from pipelines.ports import DataFile
from pipelines.run import begin
from pipelines.spec.template_job import Purpose
from pipelines.table import generations, layout
from pipelines.table.identities import Identities
from pipelines.table.run_records import RunState
from pipelines.table.text_set import TextSet

PEOPLE = ("ann", "bob")
COUNTS = {"used": 2, "failed": 1, "duplicate": 0, "skipped": 0, "subjects_enrolled": 2}


@pytest.fixture
def place() -> Place:
    """One whole run over a seal that is closed."""
    made = Place()
    dest = made.held()
    generations.begin(dest)
    frozen = frozen_plan(dest, [*PEOPLE, "cid"])
    commit(dest, written(context(dest), [*PEOPLE, failed("cid")]), 1)
    begin.write_run(dest, frozen, job(), RunState.COMPLETE, COUNTS, {})
    dest.log_seal.end()
    return made


def frozen_plan(dest, names):
    rows = [{"subject_id": n, "uri": f"{n}/0.jpg", "reason": "", "detail": ""} for n in names]
    batches = [pa.Table.from_pylist(rows, COLUMNS)]
    tables = arrange(batches, TextSet(), Known(Identities(bytes(32))), 256)
    made = plans.write(tables, RUN, layout.plan_folder(DEST, RUN), {}, dest.store)
    begin.write_run(dest, made, job(), RunState.RUNNING, {}, {})
    return made


def checked(place, *, deep: bool = True) -> Report:
    states = {
        number: (record.key_id, record.state == "live")
        for number, record in place.keyring.generations().items()
    }
    scope = Scope(
        place.tables, place.tables.table_id, place.store, place.keyring.generation, deep, states
    )
    return check(scope, place.keyring.log_seal_key_of, place.keyring.has_seals, 2)


def found(place) -> str:
    report = checked(place)
    assert not report.sound
    return "\n".join(report.findings)


def path_of(place, name: str) -> str:
    (path,) = place.listed(name)
    return path


def flipped(place, uri: str, at: float) -> None:
    content = bytearray(place.store.read(uri))
    content[int(at * (len(content) - 1))] ^= 1
    place.store.write(uri, bytes(content))


class TestASoundTable:
    def test_all_of_it_is_read_and_opened(self, place):
        report = checked(place)
        assert report.findings == report.notes == []
        assert (report.inputs, report.templates, report.helpers_opened) == (3, 2, 2)
        assert report.files == len(place.data())

    def test_without_a_deep_look_no_helper_is_opened(self, place):
        assert checked(place, deep=False).helpers_opened == 0

    def test_before_the_first_run_there_is_nothing_to_find(self):
        report = checked(Place())
        assert report.findings == []
        assert "no run has begun in it yet" in report.notes[0]

    def test_an_unfinished_run_is_a_note(self, place):
        dest = place.held()
        enrolled(dest, ["dan"], OTHER_RUN, RunState.RUNNING)
        written(context(dest, OTHER_RUN), ["eve"], shard=1)
        report = checked(place)
        assert report.findings == []
        assert sum("is listed by no log" in note for note in report.notes) == 2


class TestFiles:
    @pytest.mark.parametrize("name", ["templates", "inputs", "runs", "generations"])
    def test_a_byte_that_was_changed(self, place, name):
        path = sorted(place.listed(name))[0]
        flipped(place, f"{DEST}/{name}/{path}", 0.5)
        # The few rows of a small table are read at once, whatever file they are in.
        assert f"{DEST}/{name}{'' if name == 'generations' else f'/{path}'}" in found(place)

    @pytest.mark.parametrize("name", ["templates", "inputs"])
    def test_a_file_that_is_missing(self, place, name):
        place.store.delete([f"{DEST}/{name}/{path_of(place, name)}"])
        text = found(place)
        assert "is missing" in text
        assert ("it holds the templates of 2 people" in text) == (name == "templates")

    def test_a_file_that_is_none_of_the_tables(self, place):
        place.store.write(f"{DEST}/templates/notes.txt", b"x")
        assert "notes.txt is no file of this table" in found(place)

    def test_what_a_killed_task_left(self, place):
        written(context(place.held()), ["eve"], shard=1)
        place.held().log_seal.end()
        assert found(place).count("is listed by no log") == 2


class TestLogs:
    def test_an_entry_that_somebody_added(self, place):
        place.tables.table("inputs").commit(
            [DataFile("stray.parquet", 1, 1, "", {}, {}, {})], "somebody", 1
        )
        assert "inputs: its log goes on after the sealed version" in found(place)

    def test_an_entry_that_was_changed(self, place):
        uri = f"{DEST}/inputs/_delta_log/{1:020d}.json"
        place.store.write(uri, place.store.read(uri).replace(b"cid", b"dan"))
        assert "inputs: its log up to version" in found(place)

    def test_a_seal_that_is_gone(self, place):
        place.store.delete([layout.seal_file(DEST)])
        assert "its seal is missing" in found(place)

    def test_a_seal_that_was_changed(self, place):
        uri = layout.seal_file(DEST)
        content = json.loads(place.store.read(uri))
        place.store.write(uri, json.dumps({**content, "open": True}).encode())
        assert "does not authenticate" in found(place)

    def test_a_plan_that_is_gone_or_changed(self, place):
        uri = layout.join(layout.plan_folder(DEST, RUN), layout.plan_part(0))
        flipped(place, uri, 0.5)
        assert "is not what was frozen" in found(place)
        place.store.delete([uri])
        assert uri in found(place)


class TestRows:
    """Findings about what the holder of the keys itself committed."""

    def commit_more(self, place, people, run_id: str = OTHER_RUN, counts=None, **changes):
        dest = place.held()
        result = enrolled(dest, people, run_id, RunState.RUNNING, **changes)
        if counts is not None:
            shared = context(dest, run_id, **changes)
            plan = shared.plan.__class__(**{**vars(shared.plan), "digest": ""})
            begin.write_run(dest, plan, shared.job, RunState.COMPLETE, counts, {})
        dest.log_seal.end()
        return result

    def test_a_second_issue_of_a_person(self, place):
        one = {**COUNTS, "used": 1, "failed": 0, "subjects_enrolled": 1}
        self.commit_more(place, ["ann"], counts=one)
        assert "generation 1: 1 templates are second issues of a person" in found(place)

    def test_counts_that_are_not_those_of_the_tables(self, place):
        self.commit_more(place, ["dan"], counts=COUNTS)
        text = found(place)
        assert f"run {OTHER_RUN} counted 2 used, the tables hold 1" in text
        assert f"run {OTHER_RUN} counted 2 subjects_enrolled, the tables hold 1" in text

    def test_a_shard_of_a_run_that_nobody_knows(self, place):
        dest = place.held()
        commit(dest, written(context(dest, OTHER_RUN), ["dan"]), 1)
        dest.log_seal.end()
        assert f"shard 0 of run {OTHER_RUN} is listed, and the run is not" in found(place)

    def test_a_shard_that_is_listed_twice(self, place):
        dest = place.held()
        commit(dest, written(context(dest), [*PEOPLE, failed("cid")], seed=4), 2)
        dest.log_seal.end()
        assert f"shard 0 of run {RUN} is listed 2 times" in found(place)

    def test_inputs_that_were_not_planned(self, place):
        dest = place.held()
        commit(dest, written(context(dest), ["eve"], shard=1), 2)
        dest.log_seal.end()
        assert f"run {RUN} lists 1 shards that its plan does not have" in found(place)

    def test_templates_of_people_without_a_used_input(self, place):
        """The file of inputs of one attempt stands beside the templates of another."""
        dest = place.held()
        shared = context(dest, OTHER_RUN)
        theirs = written(shared, ["dan", "eve"])
        other = finished(shared, ["dan", row("fay")])
        commit(dest, settled(shared, replace(theirs, rows=other.rows)), 1)
        dest.log_seal.end()
        assert "2 subjects have used inputs and templates that do not agree" in found(place)

    def test_a_template_that_does_not_open(self, place):
        """Its keys were replaced by others of the same name."""
        dest = place.held()
        record = place.keyring.generations()[1]
        del place.keyring._made[1]
        place.keyring.add_generation(1)
        place.keyring._made[1].record = record
        report = checked(place)
        assert report.helpers_opened == 0
        assert sum("does not authenticate" in one for one in report.findings) >= 1
        assert dest.keys.key_id == record.key_id


class TestGenerations:
    def test_a_live_one_without_its_keys(self, place):
        place.keyring.destroy_generation(1)
        key_id = place.keyring.generations()[1].key_id
        report = checked(place)
        assert f"generation 1 is live, and its keys {key_id} are not there" in report.findings

    def test_a_destroyed_one_with_keys_or_templates(self, place):
        dest = place.held()
        place.keyring.succeed(2, 1, rekey=True, rotate_mac=False)
        dest.log_seal.rekey(place.keyring.generation(2))
        second = place.held(2)
        generations.prepare(second, 2, 1, Purpose.REPROTECT)
        generations.switch(second, 2, {})
        generations.destroyed(second, 1, {})
        second.log_seal.end()
        text = found(place)
        assert "generation 1 is destroyed, and the keyset file holds its keys" in text
        assert "templates of generation 1 are listed, and it was destroyed" in text

    def test_one_that_was_never_begun(self, place):
        dest = place.held()
        enrolled(dest, ["dan"], OTHER_RUN, RunState.RUNNING, generation=5)
        dest.log_seal.end()
        assert "templates of generation 5 are listed, and it was never begun" in found(place)
