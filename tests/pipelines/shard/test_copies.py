"""Data files written anew: of the same attempt, with the rows that stay."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from support.destinations import Place, context, enrolled, failed, written

from pipelines.shard.copies import copied
from pipelines.table import layout, waves
from pipelines.table.data_files import is_intact, read_data_file


@pytest.fixture
def dest():
    return Place().held()


def read(dest, name: str, path: str) -> pa.Table:
    return read_data_file(dest.tables.dest, dest.store, name, path)


@pytest.mark.parametrize("name", ["templates", "inputs"])
def test_some_rows_are_a_file_of_the_same_attempt(dest, name):
    path = enrolled(dest, ["ann", "bob", failed("cid")]).files[name].path
    rows = read(dest, name, path)
    kept = rows.filter(pc.not_equal(rows["subject_id"], "ann"))
    made = copied(dest, name, path, kept)
    old, new = (f"{dest.tables.dest}/{name}/{one}" for one in (path, made.path))
    assert waves.attempts_in(dest.store, new) == waves.attempts_in(dest.store, old)
    assert layout.digest_in(new) != layout.digest_in(old)
    assert layout.generation_of(made.path) == layout.generation_of(path)
    assert read(dest, name, made.path).equals(kept)
    assert is_intact(made.path, dest.store.read(f"{dest.tables.dest}/{name}/{made.path}"))
    assert (made.rows, made.low["subject_id"]) == (len(kept), "bob")
    assert dict(made.partition) == ({"generation": "1"} if name == "templates" else {})


def test_all_rows_are_the_same_file(dest):
    """So that a rewriting that changes nothing takes nothing out of sight."""
    path = enrolled(dest, ["ann", "bob"]).files["templates"].path
    assert copied(dest, "templates", path, read(dest, "templates", path)).path == path


def test_no_row_is_no_file(dest):
    path = enrolled(dest, ["ann"]).files["inputs"].path
    before = set(dest.store.remains(dest.tables.dest))
    assert copied(dest, "inputs", path, read(dest, "inputs", path).slice(0, 0)) is None
    assert set(dest.store.remains(dest.tables.dest)) == before


def test_many_rows_keep_their_row_groups_checkable(dest):
    names = [f"s{n:02d}" for n in range(20)]
    path = written(context(dest), names).files["templates"].path
    made = copied(dest, "templates", path, read(dest, "templates", path).slice(1))
    assert layout.parse_shard_file(made.path).groups
    assert read(dest, "templates", made.path)["subject_id"].to_pylist() == names[1:]


def test_it_counts_only_once_it_is_committed(dest):
    path = enrolled(dest, ["ann", "bob"]).files["templates"].path
    copied(dest, "templates", path, read(dest, "templates", path).slice(1))
    assert set(dest.tables.table("templates").files()) == {path}
