"""Delta tables on local disks and on S3: what the log lists is what readers see, once."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pyarrow.dataset as pads
import pytest
from deltalake import DeltaTable
from support.delta import put, subjects
from support.s3 import S3Server

from infra.settings import StorageSettings
from infra.store.delta import DeltaTables
from infra.store.objects import FsspecStore
from ironmask.errors import StorageError, TableError
from pipelines.table.layout import join
from pipelines.table.schemas import TABLES


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path: Path, monkeypatch) -> tuple[str, StorageSettings]:
    if request.param == "local":
        return str(tmp_path / "dest"), StorageSettings()
    server: S3Server = request.getfixturevalue("s3")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{server.new_bucket()}/dest", StorageSettings()


@pytest.fixture
def tables(place) -> DeltaTables:
    dest, settings = place
    made = DeltaTables(dest, settings.delta_options())
    assert not made.exist()
    made.create()
    return made


@pytest.fixture
def store(place) -> FsspecStore:
    return FsspecStore(place[1])


def test_tables_have_their_schemas_and_are_made_once(tables):
    identity = tables.table_id
    tables.create()
    assert tables.exist()
    assert tables.table_id == identity
    for name, (schema, _) in TABLES.items():
        assert tables.table(name).rows().schema.names == schema.names
        assert len(tables.table(name).rows()) == 0


def test_only_what_is_committed_is_seen(tables, store):
    handle = tables.table("inputs")
    listed = put(handle, store, "a.parquet", ["x", "y"])
    put(handle, store, "b.parquet", ["z"])
    handle.commit([listed], "run/inputs", 1)
    assert handle.files() == {"a.parquet": listed.size}
    assert subjects(handle) == ["x", "y"]
    assert handle.sequence("run/inputs") == 1
    assert handle.sequence("another") == 0


def test_a_repeated_commit_changes_nothing(tables, store):
    """The answer to a commit may be lost: asked again, it must not list its files twice."""
    handle = tables.table("inputs")
    file = put(handle, store, "a.parquet", ["x"])
    for _ in range(3):
        handle.commit([file], "run/inputs", 1)
    assert subjects(handle) == ["x"]
    handle.commit([put(handle, store, "b.parquet", ["y"])], "run/inputs", 2)
    handle.commit([put(handle, store, "c.parquet", ["z"])], "other/inputs", 1)
    assert subjects(handle) == ["x", "y", "z"]
    handle.commit([], "run/inputs", 3)
    assert handle.sequence("run/inputs") == 2


def test_a_lookup_reads_only_the_files_that_can_hold_it(tables, store):
    handle = tables.table("inputs")
    files = [put(handle, store, f"{s}.parquet", [s + "1", s + "5"]) for s in "abc"]
    handle.commit(files, "run/inputs", 1)
    wanted = pads.field("subject_id") == "b5"
    assert subjects(handle, wanted) == ["b5"]
    assert [f.path for f in handle._dataset(handle._open()).get_fragments(wanted)] == ["b.parquet"]
    assert (
        list(handle._dataset(handle._open()).get_fragments(pads.field("subject_id") == "d")) == []
    )
    assert subjects(handle, pads.field("run_id") == "r") == [f"{s}{n}" for s in "abc" for n in "15"]


@pytest.mark.slow
def test_the_whole_log_is_kept(tables, store):
    """A checkpoint, which may tidy up, leaves every entry where it is."""
    handle = tables.table("inputs")
    for number in range(101):
        handle.commit([put(handle, store, f"{number}.parquet", ["x"])], "run/inputs", number + 1)
    names = [
        entry.uri.rpartition("/")[2] for entry in store.entries(join(handle.uri, "_delta_log"))
    ]
    assert any(name.endswith(".checkpoint.parquet") for name in names)
    assert {f"{number:020d}.json" for number in range(102)} <= set(names)
    assert len(handle.files()) == 101


def test_a_missing_or_damaged_file_is_named(tables, store):
    handle = tables.table("inputs")
    handle.commit([put(handle, store, "a.parquet", ["x"])], "run/inputs", 1)
    uri = join(handle.uri, "a.parquet")
    store.write(uri, store.read(uri)[:-20])
    for work in (handle.rows, lambda: list(handle.batches(["uri"]))):
        with pytest.raises(TableError, match=r"inputs: a data file .* missing or damaged"):
            work()
    store.delete([uri])
    with pytest.raises(TableError, match="missing or damaged"):
        handle.rows()


def test_a_table_that_is_not_there(place):
    tables = DeltaTables(place[0], place[1].delta_options())
    with pytest.raises(StorageError, match="is not a table"):
        tables.table("inputs").files()


def test_a_damaged_log_is_named(tables, store):
    handle = tables.table("inputs")
    store.write(join(handle.uri, "_delta_log", f"{0:020d}.json"), b"{broken")
    with pytest.raises(StorageError, match="cannot be read"):
        handle.files()


def _append(dest: str, number: int) -> None:
    handle = DeltaTables(dest, StorageSettings().delta_options()).table("inputs")
    handle.commit([put(handle, FsspecStore(), f"{number}.parquet", [str(number)])], f"w{number}", 1)


@pytest.mark.slow
def test_racing_writers_all_get_in(tables, place):
    """Several processes commit at the same time: each conflict is settled, no commit is lost."""
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append, args=(place[0], n)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert subjects(tables.table("inputs")) == ["0", "1", "2", "3"]


def test_another_reader_agrees(tables, store, place):
    handle = tables.table("inputs")
    handle.commit([put(handle, store, "a.parquet", ["x", "y"])], "run/inputs", 1)
    other = DeltaTable(handle.uri, storage_options=place[1].delta_options())
    assert other.to_pyarrow_table()["subject_id"].to_pylist() == ["x", "y"]
