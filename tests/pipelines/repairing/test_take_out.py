"""Lost files leave for good: their people are told, sound rows stay, and a kill changes neither."""

from __future__ import annotations

import pytest
from support.destinations import (
    DEST,
    OTHER_RUN,
    Place,
    commit,
    context,
    enrolled,
    failed,
    outcomes,
    people,
    written,
)
from support.memory import MemoryStore

from ironmask.errors import StorageError, TableError
from pipelines.repairing.damage import Damage, find
from pipelines.repairing.take_out import KIND, take_out
from pipelines.table import contents, run_records
from pipelines.table.layout import join

MANY = [f"s{number:02d}" for number in range(20)]


class PowerCutError(Exception):
    """What ends a process here; nothing of it is handled."""


@pytest.fixture
def place() -> Place:
    return Place(MemoryStore(versioned=True))


def broken(place, names, share: float = 0.5, run_id: str = OTHER_RUN) -> str:
    """A run whose file of templates has lost a byte; returns its path."""
    dest = place.held()
    path = enrolled(dest, names, run_id).files["templates"].path
    uri = join(DEST, "templates", path)
    content = bytearray(place.store.read(uri))
    content[int(share * (len(content) - 1))] ^= 1
    place.store.write(uri, bytes(content))
    dest.log_seal.end()
    return path


def taken_out(place) -> int:
    dest = place.held()
    lost = take_out(dest, find(dest.tables, dest.store))
    dest.log_seal.end()
    return lost


def test_people_of_a_lost_file_are_told_and_others_stay(place):
    enrolled(place.held(), ["ann", failed("eve")])
    path = broken(place, ["bob", "cid"], 1)
    assert taken_out(place) == 2
    dest = place.held()
    assert people(dest) == ["ann"]
    assert outcomes(dest) == {
        ("ann", "used", ""): 1,
        ("eve", "failed", "no_face"): 1,
        ("bob", "used", "lost"): 1,
        ("cid", "used", "lost"): 1,
    }
    assert len(contents.lost_people(dest.tables, 1).gone) == 2
    assert join(DEST, "templates", path) not in set(place.store.remains(DEST))
    assert not find(dest.tables, dest.store)


def test_rows_that_are_sound_stay_in_a_file_of_their_own(place):
    broken(place, MANY)
    assert taken_out(place) == 8
    dest = place.held()
    assert people(dest) == MANY[:8] + MANY[16:]
    lost = {subject for subject, _, reason in outcomes(dest) if reason == "lost"}
    assert lost == set(MANY[8:16])
    assert not find(dest.tables, dest.store)


def test_it_is_recorded_once(place):
    broken(place, ["bob"], 1)
    taken_out(place)
    dest = place.held()
    (record,) = [one for one in run_records.records(dest.tables) if one.kind == KIND]
    assert record.counts == {"files": 1, "templates": 1, "embeddings": 0}
    assert "bob" not in repr(record)


def test_of_no_damage_nothing_changes(place):
    dest = place.held()
    enrolled(dest, ["ann"])
    before = {name: place.listed(name) for name in ("templates", "inputs", "vault")}
    assert take_out(dest, Damage()) == 0
    assert {name: place.listed(name) for name in before} == before


def test_where_it_cannot_be_told_whose_they_were_nothing_changes(place):
    """One of two lost files cannot be told: neither is taken out."""
    first = broken(place, ["bob"], 1)
    dest = place.held()
    result = written(context(dest), ["ann"])
    commit(dest, result, 1, ["templates"])
    second = result.files["templates"].path
    place.store.write(join(DEST, "templates", second), b"")
    with pytest.raises(TableError, match="nothing that is sealed says whose"):
        take_out(dest, find(dest.tables, dest.store))
    assert place.listed("templates") == {first, second}
    assert outcomes(dest)["bob", "used", ""] == 1
    assert not [one for one in run_records.records(dest.tables) if one.kind == KIND]


@pytest.mark.parametrize("name", ["inputs", "templates"])
def test_after_a_kill_between_two_commits_the_next_call_ends_it(place, name):
    broken(place, MANY)
    dest = place.held()
    table = dest.tables.stored.table(name)
    commits = table.commit

    def cut(*_: object, **__: object) -> None:
        raise PowerCutError

    table.commit = cut
    with pytest.raises(PowerCutError):
        take_out(dest, find(dest.tables, dest.store))
    table.commit = commits
    assert taken_out(place) == 8
    again = place.held()
    assert people(again) == MANY[:8] + MANY[16:]
    assert sum(reason == "lost" for _, _, reason in outcomes(again)) == 8
    assert sum(outcomes(again).values()) == len(MANY)
    assert not find(again.tables, again.store)


def test_after_a_kill_before_the_files_go_they_are_destroyed_by_the_next(place, monkeypatch):
    path = broken(place, ["bob"], 1)
    dest = place.held()

    def cut(*_: object) -> None:
        raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(place.store, "delete", cut)
        with pytest.raises(PowerCutError):
            take_out(dest, find(dest.tables, dest.store))
    again = place.held()
    assert not find(again.tables, again.store)
    assert join(DEST, "templates", path) in set(place.store.remains(DEST))
    take_out(again, Damage())
    assert join(DEST, "templates", path) not in set(place.store.remains(DEST))


def test_a_store_that_keeps_them_is_no_success(place, monkeypatch):
    broken(place, ["bob"], 1)
    dest = place.held()
    monkeypatch.setattr(place.store, "delete", lambda uris: None)
    with pytest.raises(StorageError, match="is still there after its deletion"):
        take_out(dest, find(dest.tables, dest.store))


def test_embeddings_of_lost_files_of_the_vault_are_counted(place):
    dest = place.held()
    enrolled(dest, ["ann"])
    gone = Damage(vault=[], embeddings=3)
    assert take_out(dest, gone) == 0
    (record,) = [one for one in run_records.records(dest.tables) if one.kind == KIND]
    assert record.counts["embeddings"] == 3
