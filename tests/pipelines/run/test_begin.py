"""The beginning of a run: a new plan, or that of the unfinished run as it was frozen."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.destinations import DEST, Place, commit, context, job, people, vectors, written

from ironmask.errors import MismatchError, NothingToDoError, SourceError, TableError
from pipelines.plan import plans
from pipelines.run import begin
from pipelines.run.begin import fingerprint, forecast, prepare_plan
from pipelines.spec.outcomes import Outcome
from pipelines.table import generations, layout, run_records
from pipelines.table.run_records import RunState

SOURCE = job().source
PLANS = layout.plans_folder(DEST)


def put(store, *people: str, seed: int = 0) -> None:
    """The source: an embedding of each of some people."""
    rows = [list(map(float, one)) for one in vectors(len(people), seed)]
    column = pa.array(rows, pa.list_(pa.float32()))
    sink = pa.BufferOutputStream()
    names = pa.array(people, pa.string())
    pq.write_table(pa.table({"subject_id": names, "embedding": column}), sink)
    store.write(SOURCE, memoryview(sink.getvalue()))


@pytest.fixture
def place() -> Place:
    made = Place()
    put(made.store, "ann", "bob", "cid")
    return made


@pytest.fixture
def dest(place):
    return place.held()


def planned(frozen, store) -> list[tuple[str, str | None]]:
    rows = [row for table in plans.tables(frozen, store) for row in table.to_pylist()]
    return [(row["subject_id"], row["outcome"]) for row in rows]


def finish(dest, frozen, names: list[str]) -> None:
    """Enrol some people as the run of a plan."""
    shared = context(dest, frozen.run_id)
    commit(dest, written(shared, names), 1)
    begin.write_run(dest, frozen, job(), RunState.COMPLETE, {}, {})


class TestANewPlan:
    def test_is_frozen_and_recorded(self, place, dest):
        frozen = prepare_plan(job(shard_size=2), dest)
        assert (frozen.inputs, frozen.todo, frozen.subjects, frozen.shards) == (3, 3, 3, 2)
        assert planned(frozen, place.store) == [("ann", None), ("bob", None), ("cid", None)]
        (run,) = run_records.runs(dest.tables)
        assert (run.run_id, run.state) == (frozen.run_id, "running")
        assert run.fingerprint["plan"] == frozen.digest
        assert place.keyring.generation(1).key_id == run.config["key_id"]

    def test_begins_only_once_there_is_something(self, dest):
        order: list[str] = []
        prepare_plan(job(), dest, begin=lambda: order.append("begun"))
        assert order == ["begun"]

    def test_of_a_source_with_nobody_writes_nothing(self, place, dest):
        put(place.store)
        with pytest.raises(SourceError):
            prepare_plan(job(), dest, begin=lambda: pytest.fail("it began"))
        assert run_records.runs(dest.tables) == []
        assert list(place.store.remains(PLANS)) == []

    def test_who_has_a_template_is_skipped(self, place, dest):
        generations.begin(dest)
        finish(dest, prepare_plan(job(), dest), ["ann", "bob"])
        put(place.store, "ann", "bob", "cid", "dan")
        frozen = prepare_plan(job(), dest)
        assert (frozen.inputs, frozen.todo) == (4, 2)
        skipped = [("ann", Outcome.SKIPPED.value), ("bob", Outcome.SKIPPED.value)]
        assert planned(frozen, place.store)[:2] == skipped

    def test_destroys_what_killed_runs_left(self, place, dest):
        written(context(dest, "ee" * 6), ["eve"])
        stray = layout.join(PLANS, "ee" * 6, "plan.json")
        place.store.write(stray, b"{}")
        kept = layout.join(PLANS, "notes.txt")
        place.store.write(kept, b"somebody's")
        prepare_plan(job(), dest)
        assert place.data() == {uri for uri in place.data() if "/runs/" in uri}
        assert not place.store.exists(stray)
        assert place.store.exists(kept)

    def test_with_nothing_to_retry_says_so(self, dest):
        with pytest.raises(NothingToDoError, match="nothing to retry"):
            prepare_plan(job(retry=("all",)), dest)


class TestAnUnfinishedRun:
    def test_is_gone_on_with_as_it_was_frozen(self, place, dest):
        frozen = prepare_plan(job(), dest)
        again = prepare_plan(job(), place.held())
        assert again == frozen
        assert len(run_records.runs(dest.tables)) == 1

    def test_also_where_the_table_was_moved(self, place, dest):
        frozen = prepare_plan(job(), dest)
        there = replace(job(), dest=f"{DEST}/")
        assert prepare_plan(there, place.held()).run_id == frozen.run_id

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"shard_size": 7}, r"another configuration \(shard_size: 256 then, 7 now\)"),
            ({"allow_roots": ("/x",)}, "another configuration"),
            ({"agreement": 0.5}, "another configuration"),
            ({"accepted_risk": "stolen-rows"}, "another configuration"),
        ],
    )
    def test_with_other_settings_is_refused(self, place, dest, changes, said):
        prepare_plan(job(), dest)
        with pytest.raises(MismatchError, match=said):
            prepare_plan(job(**changes), place.held())

    def test_over_a_source_that_was_replaced_is_refused(self, place, dest):
        prepare_plan(job(), dest)
        put(place.store, "ann", "bob", "eve")
        with pytest.raises(MismatchError, match=r"another source \(version .* then, version"):
            prepare_plan(job(), place.held())

    def test_whose_plan_was_changed_is_refused(self, place, dest):
        frozen = prepare_plan(job(), dest)
        uri = layout.join(frozen.uri, layout.plan_part(0))
        place.store.write(uri, place.store.read(uri) + b"\0")
        with pytest.raises(MismatchError, match="another plan"):
            prepare_plan(job(), place.held())

    @pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"format": "ironmask-plan/9"}'])
    def test_whose_plan_is_damaged_is_refused(self, place, dest, content):
        frozen = prepare_plan(job(), dest)
        place.store.write(layout.plan_file(frozen.uri), content)
        with pytest.raises(TableError, match="cannot be read as a plan"):
            prepare_plan(job(), place.held())

    def test_restarted_keeps_what_it_committed_and_plans_the_rest(self, place, dest):
        generations.begin(dest)
        first = prepare_plan(job(), dest)
        commit(dest, written(context(dest, first.run_id), ["ann"]), 1)
        again = prepare_plan(job(shard_size=7), place.held(), restart=True)
        assert again.run_id != first.run_id
        assert planned(again, place.store) == [("ann", "skipped"), ("bob", None), ("cid", None)]
        held = place.held()
        states = {one.run_id: one.state for one in run_records.runs(held.tables)}
        assert states == {first.run_id: "closed", again.run_id: "running"}
        assert people(held) == ["ann"]

    def test_given_up_commits_the_inputs_of_its_last_wave(self, place, dest):
        """They wait for their commit when their templates have it already."""
        frozen = prepare_plan(job(), dest)
        commit(dest, written(context(dest, frozen.run_id), ["ann"]), 1, ["templates"])
        (run,) = run_records.runs(dest.tables)
        begin.give_up(dest, run)
        assert len(place.listed("inputs")) == 1
        assert run_records.runs(dest.tables)[0].state == "closed"


class TestForecast:
    def test_counts_and_writes_nothing(self, place):
        place.held().log_seal.end()
        before = {uri: place.store.version(uri) for uri in place.store.remains(DEST)}
        found = forecast(
            job(shard_size=2), place.reader(), place.store, place.keyring.generation(1)
        )
        assert (found.inputs, found.todo, found.subjects, found.shards) == (3, 3, 3, 2)
        assert (found.resumes, found.reasons) == ("", {})
        assert found.template_bytes > 0
        assert {uri: place.store.version(uri) for uri in place.store.remains(DEST)} == before

    def test_of_a_destination_that_is_not_there(self, place):
        assert forecast(job(), None, place.store, None).todo == 3

    def test_of_a_second_run(self, place, dest):
        generations.begin(dest)
        finish(dest, prepare_plan(job(), dest), ["ann", "bob"])
        found = forecast(job(), dest.tables, place.store, dest.keys)
        assert (found.inputs, found.todo, found.subjects) == (3, 1, 1)
        assert found.reasons == {"already_enrolled": 2}

    def test_of_an_unfinished_run(self, place, dest):
        frozen = prepare_plan(job(), dest)
        assert forecast(job(), dest.tables, place.store, dest.keys).resumes == frozen.run_id
        again = forecast(job(), dest.tables, place.store, dest.keys, restart=True)
        assert again.resumes == ""
        with pytest.raises(MismatchError):
            forecast(job(shard_size=3), dest.tables, place.store, dest.keys)

    def test_a_person_in_two_batches_counts_once(self):
        seen = begin._Seen()
        columns = {"outcome": pa.array([None, None], "string"), "reason": ["", ""]}
        for names, shard in ((["ann", "bob"], 0), (["bob", "cid"], 1)):
            seen.add(pa.table({**columns, "subject_id": names, "shard": [shard, shard]}))
        assert (seen.subjects, seen.todo, seen.shards) == (3, 4, 2)


class TestFingerprint:
    def test_where_a_table_lies_is_no_part(self):
        assert fingerprint(job(dest="/elsewhere"), "p") == fingerprint(job(), "p")

    def test_where_models_run_is_no_part(self):
        faces = replace(job().faces, provider="cuda")
        assert fingerprint(job(faces=faces), "p") == fingerprint(job(), "p")

    @pytest.mark.parametrize(
        ("changes", "part"),
        [
            ({"shard_size": 3}, "configuration"),
            ({"source": "/other"}, "configuration"),
            ({"pseudonymous": True}, "configuration"),
            ({"keeps_other_faces": True}, "configuration"),
            ({"model": "declared:other"}, "model"),
        ],
    )
    def test_what_shapes_rows_is_in_one_part(self, changes, part):
        one, other = fingerprint(job(), "p"), fingerprint(job(**changes), "p")
        assert {name for name in one if one[name] != other[name]} == {part}

    def test_of_another_plan(self):
        assert fingerprint(job(), "p")["plan"] != fingerprint(job(), "q")["plan"]
