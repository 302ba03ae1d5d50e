"""The seal over the logs: what it vouches for, and what it refuses to go on from."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from support.enrolling import enroll, request, run, several, write_embeddings
from support.table import assert_sound, copied, generation_keys, open_tables, rows

from infra.store.objects import FsspecStore
from ironmask.errors import KeyNotFoundError, TableError, WrongKeyError
from pipelines.table import layout, log_seal_file
from pipelines.table.log_entries import Commit
from pipelines.table.log_seal import LogSeal
from pipelines.table.schemas import TABLES


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A table with one complete run in it."""
    folder = tmp_path_factory.mktemp("made")
    run(request(several(folder / "e.parquet", 8), folder / "dest"))
    return folder / "dest"


@pytest.fixture
def dest(made, tmp_path):
    return copied(made, tmp_path / "dest")


def state(dest):
    return log_seal_file.read(str(dest), FsspecStore(), key_of(dest))


def key_of(dest):
    """Finds the keys of this generation and the next."""
    keys = {one.key_id: one.log_seal_key() for one in (generation_keys(dest), Successor)}
    return keys.__getitem__


class Successor:
    """As much of the keys of the next generation as a seal needs."""

    key_id = "next"

    @staticmethod
    def log_seal_key() -> bytes:
        return sha256(b"next").digest()


def entries(dest, name):
    return sorted((dest / name / "_delta_log").glob("*.json"))


def test_a_finished_run_closes_it_over_every_entry(dest):
    found = state(dest)
    assert not found.open
    for name in TABLES:
        assert found.logs[name].version == len(entries(dest, name)) - 1
    assert any(path.endswith(".json") and "/plans/" in path for path in found.files)


def test_the_next_run_goes_on_from_it(dest, tmp_path):
    before = state(dest)
    run(request(several(tmp_path / "more.parquet", 10), dest))
    after = state(dest)
    assert not after.open
    assert after.logs["templates"].version > before.logs["templates"].version
    assert_sound(dest)


def test_it_holds_under_its_own_key_alone(dest):
    with pytest.raises(TableError, match=r"seal\.json does not authenticate"):
        log_seal_file.read(str(dest), FsspecStore(), lambda _: bytes(32))


@pytest.mark.parametrize("place", ["logs", "open", "table_id", "mac"])
def test_a_changed_one_does_not_authenticate(dest, place):
    path = dest / layout.PRIVATE / "seal.json"
    content = json.loads(path.read_text())
    content[place] = {"logs": {}, "open": True}.get(place, "0" * 64)
    path.write_text(json.dumps(content, sort_keys=True, separators=(",", ":")))
    with pytest.raises(TableError, match="does not authenticate"):
        state(dest)


def test_white_space_counts(dest):
    path = dest / layout.PRIVATE / "seal.json"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(TableError, match="does not authenticate"):
        state(dest)


class TestBegin:
    """A run starts only from what was sealed."""

    def refused(self, dest, tmp_path) -> str:
        before = rows(dest, "templates") if entries(dest, "templates") else None
        answer = enroll(several(tmp_path / "more.parquet", 9), dest, "--shard-size=4")
        assert answer.code == 1
        assert len(answer.errors) == 1
        if before is not None:
            assert rows(dest, "templates") == before
        return answer.err

    def test_a_log_entry_that_was_changed(self, dest, tmp_path):
        path = entries(dest, "inputs")[1]
        path.write_text(path.read_text().replace('"dataChange":true', '"dataChange":false'))
        assert "inputs: its log up to version" in self.refused(dest, tmp_path)

    def test_a_log_entry_that_was_taken_away(self, dest, tmp_path):
        entries(dest, "runs")[-1].unlink()
        assert "runs: an entry of its log is missing" in self.refused(dest, tmp_path)

    def test_an_entry_of_somebody_else(self, dest, tmp_path):
        open_tables(dest).table("templates")
        from deltalake import DeltaTable

        DeltaTable(str(dest / "metrics")).alter.set_table_properties({"a.b": "c"}, False)
        assert "metrics: its log goes on after the sealed" in self.refused(dest, tmp_path)

    def test_a_seal_that_was_removed(self, dest, tmp_path):
        (dest / layout.PRIVATE / "seal.json").unlink()
        assert "its seal is missing" in self.refused(dest, tmp_path)

    def test_tables_that_were_only_created(self, tmp_path):
        """A kill right after the tables were made leaves no seal yet."""
        dest = tmp_path / "dest"
        open_tables(dest).create()
        run(request(write_embeddings(tmp_path / "e.parquet", ["a"], [[1.0] * 64]), dest))
        assert not state(dest).open


class TestKeys:
    """A seal names the keys that it was made under, and whoever reads it has to find them."""

    def seal(self, dest, keys, key_of=None) -> LogSeal:
        return LogSeal(open_tables(dest), FsspecStore(), keys, key_of)

    def begun(self, dest, keys, key_of=None) -> LogSeal:
        own = self.seal(dest, keys, key_of)
        own.begin()
        return own

    def refuse(self, key_id):
        raise KeyNotFoundError(f"no keys {key_id}")

    def test_the_key_that_it_names_is_asked_for(self, dest):
        keys = generation_keys(dest)
        asked = []

        def key_of(key_id):
            asked.append(key_id)
            return keys.log_seal_key()

        found = log_seal_file.read(str(dest), FsspecStore(), key_of)
        assert asked == [found.key_id] == [keys.key_id]

    def test_keys_that_are_not_at_hand_are_told(self, dest):
        with pytest.raises(KeyNotFoundError, match="no keys"):
            log_seal_file.read(str(dest), FsspecStore(), self.refuse)
        with pytest.raises(KeyNotFoundError, match="no keys"):
            self.begun(dest, generation_keys(dest), self.refuse)
        with pytest.raises(WrongKeyError, match=r"made under the keys \w+, those at hand are next"):
            self.begun(dest, Successor())

    def test_what_is_wrong_with_the_finder_is_not_taken_for_the_seal_s(self, dest):
        with pytest.raises(TypeError):
            log_seal_file.read(str(dest), FsspecStore(), bytes(32))

    @pytest.mark.parametrize(
        "change",
        [
            *({"key_id": named} for named in (None, 1, ["next"], {"next": 1})),
            *({"starts": starts} for starts in ({}, {"runs": {"version": "1", "digest": ""}}, [])),
            {"files": {"a": [[]]}},
            {"open": "yes"},
            {"more": 1},
        ],
        ids=str,
    )
    def test_other_things_than_it_holds_do_not_authenticate(self, dest, change):
        path = dest / layout.PRIVATE / "seal.json"
        content = {**json.loads(path.read_text()), **change}
        path.write_text(json.dumps(content, sort_keys=True, separators=(",", ":")))
        with pytest.raises(TableError, match="does not authenticate"):
            log_seal_file.read(
                str(dest), FsspecStore(), lambda _: generation_keys(dest).log_seal_key()
            )

    def test_the_name_of_other_keys_does_not_authenticate(self, dest):
        path = dest / layout.PRIVATE / "seal.json"
        path.write_text(path.read_text().replace(generation_keys(dest).key_id, "next"))
        with pytest.raises(TableError, match="does not authenticate"):
            state(dest)

    def test_it_stays_under_its_keys_until_it_is_asked_to_change(self, dest):
        first = generation_keys(dest).key_id
        own = self.begun(dest, Successor(), key_of(dest))
        assert (state(dest).key_id, state(dest).open) == (first, True)
        own.rekey(Successor())
        assert (state(dest).key_id, state(dest).open) == ("next", True)
        own.extend()
        own.end()
        assert (state(dest).key_id, state(dest).open) == ("next", False)

    def test_after_the_change_the_old_keys_do_not_serve(self, dest):
        before = state(dest)
        own = self.begun(dest, generation_keys(dest))
        own.rekey(Successor())
        own.end()
        assert (state(dest).logs, state(dest).files) == (before.logs, before.files)
        with pytest.raises(WrongKeyError, match="made under the keys next"):
            self.begun(dest, generation_keys(dest))
        self.begun(dest, generation_keys(dest), key_of(dest)).end()
        assert state(dest).key_id == "next"

    def test_what_was_committed_before_the_change_is_taken_in(self, dest):
        own = self.begun(dest, generation_keys(dest))
        gone = list(own.tables.table("inputs").files())[:1]
        own.commit(Commit("inputs", [], "gone", 1, gone))
        own.rekey(Successor())
        assert state(dest).logs["inputs"].version == len(entries(dest, "inputs")) - 1
