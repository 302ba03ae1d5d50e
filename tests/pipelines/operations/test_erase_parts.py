"""Erasing a person, step by step: nothing of them stays, and a kill at any step can be finished."""

from __future__ import annotations

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
    job,
    outcomes,
    people,
    record,
    row,
    written,
)
from support.memory import MemoryStore
from support.memory_keys import MemoryKeyring

from ironmask.errors import BusyError, TableError
from pipelines.operations.erase import erase
from pipelines.operations.prove_erasure import names_of, prove
from pipelines.plan import plans
from pipelines.plan.arrange import arrange
from pipelines.plan.naming import Known
from pipelines.plan.sources import COLUMNS
from pipelines.run import begin
from pipelines.spec.outcomes import Outcome, Reason
from pipelines.spec.template_job import Purpose
from pipelines.table import generations, layout, run_records
from pipelines.table.details import decrypted
from pipelines.table.erasing import read_note
from pipelines.table.identities import Identities
from pipelines.table.run_records import RunState
from pipelines.table.text_set import TextSet


class PowerCutError(Exception):
    """What ends a process here; nothing of it is handled."""


@pytest.fixture
def place() -> Place:
    return made_place()


def made_place() -> Place:
    """A run with a plan, two people, and a duplicate that tells of an address of Ann's."""
    made = Place(MemoryStore(versioned=True))
    dest = made.held()
    generations.begin(dest)
    frozen = frozen_plan(dest, ["ann", "bob"])
    keyring = MemoryKeyring("vault")
    keyring.add_generation(1)
    shared = replace(context(dest, vault=True), vault_keys=keyring.generation(1))
    same = row("bob", 1)
    same.settle(Outcome.DUPLICATE, Reason.DUPLICATE_OTHER_SUBJECT, "same as ann/0.jpg")
    other = row("bob", 2)
    other.settle(Outcome.DUPLICATE, Reason.DUPLICATE_CONTENT, "same content as bob/0.jpg")
    commit(dest, written(shared, ["ann", failed("ann", number=1), "bob", same, other]), 1)
    begin.write_run(dest, frozen, shared.job, RunState.COMPLETE, {}, {})
    dest.log_seal.end()
    return made


def frozen_plan(dest, names):
    rows = [{"subject_id": n, "uri": f"{n}/0.jpg", "reason": "", "detail": ""} for n in names]
    tables = arrange(
        [pa.Table.from_pylist(rows, COLUMNS)], TextSet(), Known(Identities(bytes(32))), 4
    )
    made = plans.write(tables, RUN, layout.plan_folder(DEST, RUN), {}, dest.store)
    begin.write_run(dest, made, job(vault=True), RunState.RUNNING, {}, {})
    return made


def texts(place) -> bytes:
    """All that lies anywhere below the destination, in every version."""
    found = place.store._objects
    return b"".join(one.content or b"" for versions in found.values() for one in versions)


def evidence(place, subject: str):
    return prove(place.reader(), place.store, subject, place.keyring.generation(1))


def details(dest) -> dict[str, str]:
    rows = dest.tables.table("inputs").rows().to_pylist()
    told = {one["uri"]: decrypted(dest.tables.table_id, one, dest.keys.table) for one in rows}
    return {uri: str(facts.get("detail", "")) for uri, facts in told.items()}


def test_templates_and_embeddings_go_and_outcomes_lose_their_name(place):
    dest = place.held()
    done = erase(dest, "ann")
    assert (done.templates, done.outcomes, done.embeddings) == (1, 2, 1)
    again = place.held()
    assert people(again) == ["bob"]
    vault = again.tables.table("vault").rows(["subject_id"])["subject_id"].to_pylist()
    assert vault == ["bob"]
    found = outcomes(again)
    assert found[done.pseudonym, "used", "erased"] == 1
    assert found[done.pseudonym, "failed", "erased"] == 1
    assert found["bob", "used", ""] == 1
    assert sum(found.values()) == 5


def test_nothing_names_the_person_any_more(place):
    assert b"ann/0.jpg" in texts(place)
    erase(place.held(), "ann")
    assert b"ann/0.jpg" not in texts(place)
    assert b'"ann"' not in texts(place)
    assert evidence(place, "ann").holds
    assert not evidence(place, "bob").holds


def test_what_told_of_their_inputs_tells_no_more(place):
    erase(place.held(), "ann")
    found = details(place.held())
    assert found["bob/1.jpg"] == "same content as an input that was erased"
    assert found["bob/2.jpg"] == "same content as bob/0.jpg"


def test_nor_do_outcomes_of_other_runs(place):
    """Their files hold nothing of the person, but for where the same content was."""
    dest = place.held()
    same = row("eve")
    same.settle(Outcome.DUPLICATE, Reason.DUPLICATE_OTHER_SUBJECT, "same as ann/0.jpg")
    enrolled(dest, ["dan", same], OTHER_RUN)
    erase(dest, "ann")
    found = details(place.held())
    assert found["eve/0.jpg"] == "same content as an input that was erased"
    assert people(place.held()) == ["bob", "dan"]


def test_outcomes_of_the_erased_tell_nothing(place):
    done = erase(place.held(), "ann")
    rows = place.held().tables.table("inputs").rows().to_pylist()
    mine = [one for one in rows if one["subject_id"] == done.pseudonym]
    assert {one["uri"] for one in mine} == {f"{done.pseudonym}/{n}" for n in range(2)}
    assert all(one["details"] is None and one["identities"] is None for one in mine)


def test_the_plan_goes_and_the_run_says_so(place):
    erase(place.held(), "ann")
    assert list(place.store.remains(layout.plan_folder(DEST, RUN))) == []
    run = run_records.runs(place.held().tables)[0]
    assert (run.state, run.fingerprint["plan"]) == ("complete", "")


def test_the_erasure_is_recorded_under_the_pseudonym(place):
    done = erase(place.held(), "ann")
    kept = run_records.records(place.held().tables)[-1]
    assert (kept.kind, kept.config["pseudonym"]) == ("erase", done.pseudonym)
    assert done.pseudonym in names_of(place.keyring.generation(1), "ann")
    assert done.pseudonym.startswith("erased-")
    assert "ann" not in done.pseudonym
    record_of = evidence(place, "ann").record
    assert record_of == {f"erasure {done.run_id}": f"1 templates, as {done.pseudonym}"}


def test_of_nobody_nothing_changes(place):
    before = place.data()
    with pytest.raises(TableError, match="holds nothing of subject 'eve'"):
        erase(place.held(), "eve")
    assert place.data() == before
    assert read_note(DEST, place.store) is None


def test_twice_is_once(place):
    erase(place.held(), "ann")
    before = place.data()
    with pytest.raises(TableError, match="holds nothing"):
        erase(place.held(), "ann")
    assert place.data() == before


def test_a_name_that_is_part_of_another_stays(place):
    dest = place.held()
    enrolled(dest, ["anna", "an"], OTHER_RUN)
    erase(dest, "ann")
    assert people(place.held()) == ["an", "anna", "bob"]


def counted(place, method: str, cut_at: int = 0) -> int:
    """Erase Ann; end at one of the calls of a method of the store, if any. Returns the calls."""
    dest = place.held()
    whole, calls = getattr(place.store, method), []

    def call(*arguments):
        calls.append(arguments)
        if len(calls) == cut_at:
            raise PowerCutError
        return whole(*arguments)

    setattr(place.store, method, call)
    try:
        erase(dest, "ann")
    except PowerCutError:
        assert cut_at
    finally:
        setattr(place.store, method, whole)
    return len(calls)


class TestAfterAKill:
    """Killed at one of the steps that change something: the same command finishes it."""

    @pytest.mark.parametrize("share", [0, 0.3, 0.6, 1])
    @pytest.mark.parametrize("method", ["write", "delete", "create"])
    def test_the_same_command_ends_it(self, place, method, share):
        steps = counted(made_place(), method)
        assert steps > 3
        assert counted(place, method, 1 + round(share * (steps - 1))) <= steps
        begun = read_note(DEST, place.store)
        done = erase(place.held(), "ann")
        assert begun is None or done == begun
        assert people(place.held()) == ["bob"]
        assert evidence(place, "ann").holds
        assert read_note(DEST, place.store) is None
        assert b"ann/0.jpg" not in texts(place)

    def test_another_person_waits(self, place, monkeypatch):
        dest = place.held()

        def cut(*_: object) -> None:
            raise PowerCutError

        with monkeypatch.context() as patch:
            patch.setattr(place.store, "create", cut)
            with pytest.raises(PowerCutError):
                erase(dest, "ann")
        with pytest.raises(BusyError, match="the erasure of another subject was broken off"):
            erase(place.held(), "bob")
        assert people(place.held()) == ["ann", "bob"]


class TestWhatHasToEndFirst:
    def test_a_run(self, place):
        dest = place.held()
        record(dest, job(), OTHER_RUN)
        with pytest.raises(BusyError, match=rf"unfinished run {OTHER_RUN} \(enrol\)"):
            erase(dest, "ann")
        assert people(dest) == ["ann", "bob"]

    @pytest.mark.parametrize("switched", [False, True])
    def test_a_reprotection(self, place, switched):
        place.keyring.succeed(2, 1, rekey=True, rotate_mac=False)
        dest = place.held()
        dest.log_seal.rekey(place.keyring.generation(2))
        second = place.held(2)
        generations.prepare(second, 2, 1, Purpose.REPROTECT)
        if switched:
            generations.switch(second, 2, {})
        with pytest.raises(BusyError, match="a re-protection has not ended"):
            erase(second, "ann")

    def test_who_was_ousted_changes_nothing(self, place):
        def ousted() -> None:
            raise BusyError("taken over")

        dest = place.held(check=ousted)
        before = place.data()
        with pytest.raises(BusyError):
            erase(dest, "ann")
        assert place.listed("templates") <= {
            uri.removeprefix(f"{DEST}/templates/") for uri in before
        }
        assert people(place.held()) == ["ann", "bob"]


class TestEvidence:
    @pytest.fixture
    def gone(self, place):
        erase(place.held(), "ann")
        return place

    def test_of_somebody_who_never_was(self, place):
        found = evidence(place, "eve")
        assert found.holds
        assert found.record == {"erasure": "none is recorded under the present keys"}

    def test_a_row_that_came_back(self, gone):
        enrolled(gone.held(), ["ann"], OTHER_RUN)
        said = "; ".join(evidence(gone, "ann").failures)
        assert "no row of templates is of the subject" in said
        assert "no row of inputs is of the subject" in said

    @pytest.mark.parametrize(
        "content",
        [
            b"ann",
            b'{"who": "ann"}',
            b'{"a": {"b": ["x", "ann"]}}',
            b'{"ann": 1}',
            b'{"detail": "same as /memory/e.parquet/ann/7.jpg"}',
            b'{"stats": "{\\"minValues\\": {\\"subject_id\\": \\"ann\\"}}"}',
        ],
    )
    def test_a_private_file_that_names_them(self, gone, content):
        gone.store.write(f"{DEST}/_ironmask/notes.json", content)
        assert "no entry of a log, plan or private file names the subject" in "".join(
            evidence(gone, "ann").failures
        )

    @pytest.mark.parametrize("content", [b"anna", b'{"who": "joann"}', b"\xff\xfe", b"{", b"[1]"])
    def test_a_private_file_that_names_others(self, gone, content):
        gone.store.write(f"{DEST}/_ironmask/notes.json", content)
        assert evidence(gone, "ann").holds
