"""The seal over the logs: what it vouches for, and what it refuses to go on from."""

from __future__ import annotations

import json

import pytest
from enrolling import (
    assert_sound,
    enroll,
    generation_keys,
    open_tables,
    request,
    rows,
    run,
    several,
    write_embeddings,
)

from infra.storage import FsspecStore
from ironmask.errors import TableError
from pipelines import layout, seal
from pipelines.records import TABLES


@pytest.fixture
def dest(tmp_path):
    """A table with one complete run in it."""
    made = tmp_path / "dest"
    run(request(several(tmp_path / "e.parquet", 8), made))
    return made


def state(dest):
    return seal.read(str(dest), FsspecStore(), generation_keys(dest).seal_key())


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
        seal.read(str(dest), FsspecStore(), bytes(32))


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
