"""The end of a generation: keys first, nothing that is live, and a proof that can be looked at."""

from __future__ import annotations

from hashlib import sha256

import pytest
from support.destinations import DEST, OTHER_RUN, Place, enrolled, people
from support.memory import MemoryStore

from ironmask.errors import BusyError, KeyNotFoundError, StorageError, TableError
from pipelines.spec.template_job import Purpose
from pipelines.table import destroyed_list, generations, layout
from pipelines.table.destroy_generation import ABSENT, Proof, destroy, prove

LIST = layout.destroyed_file(DEST, 1)
FOLDER = layout.generation_folder(f"{DEST}/templates", 1)


class PowerCutError(Exception):
    """What ends a process here; nothing of it is handled."""


@pytest.fixture
def place() -> Place:
    """Two generations with the same people; the second one has just become live."""
    made = Place(MemoryStore(versioned=True))
    first = made.held()
    enrolled(first, ["ann", "bob"])
    first.log_seal.end()
    made.keyring.succeed(2, 1, rekey=True, rotate_mac=False)
    second = made.held()
    second.log_seal.rekey(made.keyring.generation(2))
    second = made.held(2)
    generations.prepare(second, 2, 1, Purpose.REPROTECT)
    enrolled(second, ["ann", "bob"], OTHER_RUN, generation=2)
    generations.switch(second, 2, {})
    return made


@pytest.fixture
def dest(place):
    return place.held(2)


def evidence(place, dest, number: int = 1):
    states = {
        number: (record.key_id, record.state == "live")
        for number, record in place.keyring.generations().items()
    }
    return prove(dest.tables, place.store, number, states, place.keyring.table())


def failing(place, dest) -> str:
    return "; ".join(evidence(place, dest).failures)


def test_a_live_one_stays_with_all_that_is_its(place, dest):
    before = place.data()
    with pytest.raises(TableError, match="generation 2 is live and stays"):
        destroy(dest, place.keyring, 2)
    assert place.data() == before
    assert place.keyring.generation(2)
    assert people(dest, 2) == ["ann", "bob"]


def test_keys_files_and_listing_go(place, dest):
    (path,) = (p for p in place.listed("templates") if layout.generation_of(p) == 1)
    size = place.store.size(f"{DEST}/templates/{path}")
    key_id = place.keyring.generation(1).key_id
    proof = destroy(dest, place.keyring, 1)
    assert list(place.store.remains(FOLDER)) == []
    with pytest.raises(KeyNotFoundError):
        place.keyring.generation(1)
    assert {layout.generation_of(p) for p in place.listed("templates")} == {2}
    assert (proof.files, proof.bytes, proof.key_id) == (1, size, key_id)
    assert proof.authentic is True
    listed = f"{size} {layout.digest_in(path)} {path}\n".encode()
    assert proof.manifest == sha256(listed).hexdigest()
    assert people(dest, 2) == ["ann", "bob"]


def test_the_proof_is_recorded_and_told_again(place, dest):
    proof = destroy(dest, place.keyring, 1)
    one = generations.read(dest.tables)[1]
    assert one.state == "destroyed"
    assert Proof(**one.proof) == proof
    assert destroy(dest, place.keyring, 1) == proof


@pytest.mark.parametrize("method", ["delete", "write"])
def test_after_a_kill_the_same_call_ends_it_with_the_same_list(place, dest, monkeypatch, method):
    """Killed at the first object that is written, or destroyed: all of the list is told later."""
    (path,) = (p for p in place.listed("templates") if layout.generation_of(p) == 1)

    def cut(*_: object) -> None:
        raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(place.store, method, cut)
        with pytest.raises(PowerCutError):
            destroy(dest, place.keyring, 1)
    again = place.held(2)
    proof = destroy(again, place.keyring, 1)
    assert (proof.files, proof.authentic) == (1, True)
    assert path.encode() in place.store.read(LIST)
    assert evidence(place, again).holds


@pytest.mark.parametrize("method", ["create", "delete"])
def test_keys_go_before_the_log_and_any_file_change(place, dest, monkeypatch, method):
    def cut(*_: object) -> None:
        raise PowerCutError

    monkeypatch.setattr(place.store, method, cut)
    with pytest.raises(PowerCutError):
        destroy(dest, place.keyring, 1)
    assert place.keyring.generations()[1].state == "destroyed"
    assert list(place.store.remains(FOLDER))


def test_files_that_came_after_a_first_try_are_told_as_well(place, dest, monkeypatch):
    """A generation that was given up may have been gone on with; its list is of before that."""
    with monkeypatch.context() as patch:
        patch.setattr(place.store, "delete", lambda uris: None)
        with pytest.raises(StorageError):
            destroy(dest, place.keyring, 1)
    again = place.held(2)
    later = enrolled(again, ["eve"], "aa" * 6, generation=1).files["templates"].path
    proof = destroy(again, place.keyring, 1)
    assert later.encode() in place.store.read(LIST)
    assert (proof.files, proof.authentic) == (1, True)
    assert evidence(place, again).holds


def test_who_was_ousted_destroys_nothing(place):
    def ousted() -> None:
        raise BusyError("taken over")

    dest = place.held(2, check=ousted)
    before = place.data()
    with pytest.raises(BusyError):
        destroy(dest, place.keyring, 1)
    assert place.data() == before
    assert place.keyring.generation(1)


def test_files_that_a_store_keeps_are_no_success(place, dest, monkeypatch):
    monkeypatch.setattr(place.store, "delete", lambda uris: None)
    with pytest.raises(StorageError, match="still holds 1 files or versions"):
        destroy(dest, place.keyring, 1)
    assert generations.read(dest.tables)[1].state == "retired"


def test_a_list_that_was_changed_meanwhile_is_refused(place, dest, monkeypatch):
    """Its files are out of the log already, so nothing else can tell them."""
    with monkeypatch.context() as patch:
        patch.setattr(place.store, "delete", lambda uris: None)
        with pytest.raises(StorageError):
            destroy(dest, place.keyring, 1)
    place.store.write(LIST, b"0 ../../etc/passwd\n")
    with pytest.raises(TableError, match="was changed while that was being destroyed"):
        destroy(place.held(2), place.keyring, 1)


def test_a_list_of_a_release_before_is_believed_as_uncertain(place, dest, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(place.store, "delete", lambda uris: None)
        with pytest.raises(StorageError):
            destroy(dest, place.keyring, 1)
    place.store.write(LIST, destroyed_list.without_mac(place.store.read(LIST)))
    again = place.held(2)
    proof = destroy(again, place.keyring, 1)
    assert (proof.files, proof.authentic) == (1, False)
    assert "not authenticated" in evidence(place, again).record["their list"]


class TestWithoutKeys:
    def test_a_retired_one_needs_those_that_it_had(self, place, dest):
        place.keyring._made.pop(1)
        before = place.data()
        with pytest.raises(KeyNotFoundError):
            destroy(dest, place.keyring, 1)
        assert place.data() - {LIST} == before
        assert generations.read(dest.tables)[1].state == "retired"

    def test_what_was_given_up_while_it_was_prepared_may_have_none(self, place, dest):
        """The keyset file may be a copy of before it was begun."""
        generations.prepare(dest, 3, 2, Purpose.REPROTECT)
        proof = destroy(dest, place.keyring, 3)
        assert (proof.keys_destroyed_at, proof.files) == (ABSENT, 0)
        assert evidence(place, dest, 3).holds


class TestProve:
    @pytest.fixture
    def gone(self, place):
        held = place.held(2)
        destroy(held, place.keyring, 1)
        return held

    def test_all_of_it_holds(self, place, gone):
        found = evidence(place, gone)
        assert found.failures == ()
        assert len(found.statements) == 5
        assert place.keyring.generations()[1].key_id in found.record["keys"]

    @pytest.mark.parametrize(("number", "said"), [(2, "it is live"), (7, "it is not there")])
    def test_of_what_is_not_destroyed_nothing_holds(self, place, gone, number, said):
        found = evidence(place, gone, number)
        assert not found.holds
        assert said in found.failures[0]
        assert found.record == {}

    def test_a_file_that_came_back(self, place, gone):
        place.store.write(f"{FOLDER}/x", b"again")
        assert "none of its files is there" in failing(place, gone)

    def test_a_file_that_only_an_older_version_holds(self, place, gone):
        place.store.write(f"{FOLDER}/x", b"again")
        place.store.hide(f"{FOLDER}/x")
        assert "none of its files is there" in failing(place, gone)

    def test_keys_that_came_back(self, place, gone):
        del place.keyring._made[1]
        place.keyring.add_generation(1)
        said = failing(place, gone)
        assert "the keyset file holds no key of it" in said
        assert "no other keys of it" in said

    def test_a_file_that_the_log_lists_again(self, place, gone):
        result = enrolled(gone, ["eve"], "aa" * 6, generation=1)
        assert result.enrolled == 1
        assert "the log lists none of its files" in failing(place, gone)

    @pytest.mark.parametrize("change", [lambda c: c[:-3] + b"0\n", lambda c: b"", lambda c: c[1:]])
    def test_a_list_that_was_changed(self, place, gone, change):
        place.store.write(LIST, change(place.store.read(LIST)))
        assert "is the one that was recorded" in failing(place, gone)

    def test_a_list_without_its_authentication(self, place, gone):
        """The record says that it had one: a copy without it was put in its place."""
        place.store.write(LIST, destroyed_list.without_mac(place.store.read(LIST)))
        assert "is the one that was recorded" in failing(place, gone)


def test_its_files_are_taken_out_once(place, dest):
    destroy(dest, place.keyring, 1)
    assert dest.sequence("templates", "destroy/1") == 1
    again = place.held(2)
    destroy(again, place.keyring, 1)
    assert again.sequence("templates", "destroy/1") == 1
