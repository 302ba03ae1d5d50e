"""Commits that remove files, and logs whose history goes while others read."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from support.delta import put, subjects
from support.marks import few
from support.s3 import S3Server

from infra.settings import StorageSettings
from infra.store import delta
from infra.store.delta import DeltaTableHandle, DeltaTables
from infra.store.objects import FsspecStore
from ironmask.errors import StorageError, TableError
from pipelines.ports import DataFile
from pipelines.table.layout import join


class World:
    """A destination and everybody who reads it."""

    def __init__(self, dest: str) -> None:
        self.dest, settings = dest, StorageSettings()
        self.options = settings.delta_options()
        self.store = FsspecStore(settings)

    def handle(self, name: str = "inputs") -> DeltaTableHandle:
        """A new one, as another process would have it."""
        return DeltaTables(self.dest, self.options).table(name)

    def fresh(self, name: str = "inputs") -> DeltaTable:
        return DeltaTable(join(self.dest, name), storage_options=self.options)

    def log(self, name: str = "inputs") -> str:
        return join(self.dest, name, "_delta_log")

    def names(self) -> list[str]:
        return [entry.uri.rpartition("/")[2] for entry in self.store.entries(self.log())]

    def entry(self, version: int, name: str = "inputs") -> list[dict[str, Any]]:
        lines = self.store.read(join(self.log(name), f"{version:020d}.json")).splitlines()
        return [json.loads(line) for line in lines if line]

    def forget(self, handle: DeltaTableHandle) -> int:
        """What the seal does with a log, without a seal."""
        version = handle.checkpoint()
        kept = {f"{version:020d}.{end}" for end in ("json", "checkpoint.parquet")}
        kept.add("_last_checkpoint")
        found = self.store.remains(self.log())
        self.store.delete([uri for uri in found if uri.rpartition("/")[2] not in kept])
        return version


@pytest.fixture
def local(tmp_path: Path) -> World:
    world = World(str(tmp_path / "dest"))
    DeltaTables(world.dest, {}).create()
    return world


@pytest.fixture(params=few(["local", "s3"], "local"))
def world(request, tmp_path: Path, monkeypatch) -> World:
    if request.param == "local":
        return request.getfixturevalue("local")
    server: S3Server = request.getfixturevalue("s3")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    found = World(f"s3://{server.new_bucket()}/dest")
    found.handle().create()
    return found


def put_some(world: World, handle: DeltaTableHandle, names: str) -> list[DataFile]:
    """Files that are named after the one subject in each."""
    return [put(handle, world.store, f"{name}.parquet", [name]) for name in names]


class TestRemoval:
    def test_files_come_and_go_in_one_commit(self, world):
        handle = world.handle()
        files = put_some(world, handle, "abcd")
        handle.commit(files[:3], "run", 1)
        handle.commit(files[3:], "erase", 1, removed=["a.parquet", "c.parquet"])
        assert subjects(handle) == subjects(world.handle()) == ["b", "d"]
        assert world.fresh().version() == 2
        assert handle.sequence("erase") == 1
        assert world.store.exists(join(handle.uri, "a.parquet"))

    def test_a_commit_may_only_remove(self, local):
        handle = local.handle()
        handle.commit(put_some(local, handle, "abc"), "run", 1)
        for _ in range(2):
            handle.commit([], "erase", 1, removed=["a.parquet"])
        handle.commit([], "erase", 2, removed=["b.parquet", "b.parquet"])
        assert subjects(handle) == ["c"]
        assert local.fresh().version() == 3

    def test_without_files_there_is_no_commit(self, local):
        local.handle().commit([], "erase", 1, removed=[])
        assert local.fresh().version() == 0

    def test_what_the_log_then_says_of_a_file(self, local):
        """Its partition and its size, and nothing of what was in it."""
        handle = local.handle("templates")
        where = {"generation": "2"}
        file = DataFile("generation=2/a.parquet", 7, 1, "", where, {"subject_id": "anna"}, {})
        handle.commit([file], "run", 1)
        handle.commit([], "erase", 1, removed=["generation=2/a.parquet"])
        (found,) = [line["remove"] for line in local.entry(2, "templates") if "remove" in line]
        assert found.pop("deletionTimestamp") > 0
        assert found == {
            "path": "generation=2/a.parquet",
            "dataChange": True,
            "extendedFileMetadata": True,
            "partitionValues": where,
            "size": 7,
        }
        assert "anna" in str(local.entry(1, "templates"))
        assert "anna" not in str(local.entry(2, "templates"))

    def test_a_file_that_is_not_listed_is_named(self, world):
        handle = world.handle()
        handle.commit(put_some(world, handle, "ab"), "run", 1)
        with pytest.raises(TableError, match=r"inputs: x\.parquet cannot be removed"):
            handle.commit([], "erase", 1, removed=["a.parquet", "x.parquet"])
        assert subjects(handle) == ["a", "b"]
        handle.commit([], "erase", 1, removed=["a.parquet"])
        handle.commit([], "erase", 1, removed=["a.parquet", "x.parquet"])
        assert subjects(handle) == ["b"]

    def test_of_two_who_remove_a_file_one_is_told(self, local, monkeypatch):
        """Both saw it in the log; the second learns from a conflict that it is gone."""
        first, second = local.handle(), local.handle()
        first.commit(put_some(local, first, "ab"), "run", 1)
        write = DeltaTable.create_write_transaction

        def overtaken(self, *args: Any, **kwargs: Any) -> None:
            monkeypatch.setattr(DeltaTable, "create_write_transaction", write)
            first.commit([], "one", 1, removed=["a.parquet"])
            write(self, *args, **kwargs)

        monkeypatch.setattr(DeltaTable, "create_write_transaction", overtaken)
        with pytest.raises(TableError, match=r"a\.parquet cannot be removed"):
            second.commit([], "two", 1, removed=["a.parquet"])
        assert (second.sequence("one"), second.sequence("two")) == (1, 0)

    def test_a_lost_answer_is_not_asked_for_twice(self, world, monkeypatch):
        handle = world.handle()
        files = put_some(world, handle, "abc")
        handle.commit(files[:2], "run", 1)
        write = DeltaTable.create_write_transaction

        def lost(self, *args: Any, **kwargs: Any) -> None:
            write(self, *args, **kwargs)
            raise DeltaError("HTTP error: the connection was closed")

        monkeypatch.setattr(DeltaTable, "create_write_transaction", lost)
        handle.commit(files[2:], "erase", 1, removed=["a.parquet"])
        assert subjects(handle) == ["b", "c"]
        assert world.fresh().version() == 2


def grown(world: World) -> DeltaTableHandle:
    """A table of several commits, the last of which removes `a`."""
    handle = world.handle()
    files = put_some(world, handle, "abcde")
    for number, file in enumerate(files[:4]):
        handle.commit([file], "run", number + 1)
    handle.commit([files[4]], "erase", 1, removed=["a.parquet"])
    return handle


class TestCheckpoint:
    def test_the_table_stays_what_it_was(self, world):
        handle = grown(world)
        before = world.fresh()
        assert world.forget(handle) == 5
        own = [f"{5:020d}.{end}" for end in ("checkpoint.parquet", "json")]
        assert world.names() == [*own, "_last_checkpoint"]
        after = world.fresh()
        assert after.version() == 5
        assert sorted(after.file_uris()) == sorted(before.file_uris())
        assert after.metadata().id == before.metadata().id == handle.identity()
        assert after.schema() == before.schema()
        assert [after.transaction_version(name) for name in ("run", "erase")] == [4, 1]
        assert after.metadata().configuration == before.metadata().configuration
        assert subjects(world.handle()) == subjects(handle) == list("bcde")

    def test_it_goes_on(self, world):
        handle = grown(world)
        world.forget(handle)
        handle.commit(put_some(world, handle, "f"), "run", 5)
        world.handle().create()
        handle.commit([], "erase", 2, removed=["b.parquet"])
        assert world.forget(world.handle()) == 7
        assert subjects(world.handle()) == subjects(handle) == list("cdef")
        assert world.names()[1:] == [f"{7:020d}.json", "_last_checkpoint"]

    def test_it_can_be_written_again(self, local):
        handle = grown(local)
        assert handle.checkpoint() == local.handle().checkpoint() == 5
        assert subjects(local.handle()) == list("bcde")

    def test_removed_files_are_in_it_by_name_alone(self, local):
        handle = grown(local)
        uri = join(local.log(), f"{handle.checkpoint():020d}.checkpoint.parquet")
        rows = pq.read_table(pa.BufferReader(local.store.read(uri))).to_pylist()
        (found,) = [row["remove"] for row in rows if row["remove"]]
        told = {name for name, value in found.items() if value}
        assert told == {"path", "deletionTimestamp", "dataChange", "extendedFileMetadata", "size"}
        assert {row["add"]["path"][0] for row in rows if row["add"]} == set("bcde")

    def test_one_that_says_something_else_is_refused(self, local, monkeypatch):
        handle = grown(local)
        handle.files()
        monkeypatch.setattr(
            handle, "_afresh", lambda version: DeltaTable(handle.uri, 4, local.options)
        )
        with pytest.raises(StorageError, match="does not say what its log says"):
            handle.checkpoint()


class TestReaders:
    """Who reads meanwhile sees one state or the next, and never none."""

    @pytest.mark.parametrize("behind", [1, 3])
    def test_a_handle_that_is_behind_goes_on(self, world, behind):
        writer, reader = world.handle(), world.handle()
        for number, file in enumerate(put_some(world, writer, "abcdef")):
            if number == 6 - behind:
                assert len(reader.files()) == number
            writer.commit([file], "run", number + 1)
        world.forget(writer)
        writer.commit([], "erase", 1, removed=["a.parquet"])
        world.forget(writer)
        assert subjects(reader) == list("bcdef")
        reader.commit(put_some(world, reader, "g"), "run", 7)
        assert subjects(writer) == list("bcdefg")

    def test_a_log_that_does_not_go_on_is_opened_afresh_once(self, local, monkeypatch):
        handle = grown(local)
        opened = counting(monkeypatch)

        def gone(self) -> None:
            raise DeltaError("Invalid table version: 6")

        monkeypatch.setattr(DeltaTable, "update_incremental", gone)
        assert subjects(handle) == list("bcde")
        assert len(opened) == 1

    @pytest.mark.parametrize(
        ("says", "times"),
        [
            ("Expected contiguous commit files, but found gap: ParsedLogPath", 1),
            ("File not found: /a b/inputs/_delta_log/00000000000000000004.json", 5),
            ("at location d/_delta_log/04.checkpoint.parquet not found: HTTP 404", 5),
        ],
        ids=["gap", "local", "s3"],
    )
    def test_a_log_that_was_listed_in_between_is_listed_again(
        self, local, monkeypatch, says, times
    ):
        monkeypatch.setattr(delta, "_FIRST_PAUSE_S", 0)
        handle = local.handle()
        opened = counting(monkeypatch, *[DeltaError(f"Kernel error: {says}")] * times)
        assert handle.files() == {}
        assert len(opened) == times + 1

    def test_a_log_with_a_hole_is_refused_at_once(self, local, monkeypatch):
        writer, handle = local.handle(), local.handle()
        for number, file in enumerate(put_some(local, writer, "abc")):
            writer.commit([file], "run", number + 1)
        local.store.delete([join(local.log(), f"{2:020d}.json")])
        opened = counting(monkeypatch)
        with pytest.raises(StorageError, match=r"inputs cannot be read: .* found gap"):
            handle.files()
        assert len(opened) == 2

    @pytest.mark.slow
    def test_while_history_goes_again_and_again(self, world):
        writer = world.handle()
        writer.commit(put_some(world, writer, "abcd"), "run", 1)
        lasting = world.handle()
        with reading(lasting.files) as some, reading(lambda: world.handle().files()) as more:
            for number in range(8):
                new = put(writer, world.store, f"new-{number}.parquet", ["x"])
                old = [f"new-{number - 1}.parquet"] if number else []
                writer.commit([new], "erase", number + 1, removed=old)
                world.forget(writer)
        assert {len(files) for files in some} <= {4, 5}
        assert {len(files) for files in more} <= {4, 5}
        assert len(lasting.files()) == 5


def counting(monkeypatch, *errors: Exception) -> list[str]:
    """The addresses of tables that are opened from here on; at first, errors come instead."""
    opened: list[str] = []
    waiting = list(errors)

    class Counted(DeltaTable):
        def __init__(self, uri: str, *args: Any, **kwargs: Any) -> None:
            opened.append(uri)
            if waiting:
                raise waiting.pop(0)
            super().__init__(uri, *args, **kwargs)

    monkeypatch.setattr(delta, "DeltaTable", Counted)
    return opened


class reading:  # noqa: N801 - reads as a statement
    """Reads on and on beside what is done; what goes wrong there is raised here."""

    def __init__(self, look: Callable[[], dict[str, int]]) -> None:
        self._look = look
        self._ends = threading.Event()
        self._seen: list[dict[str, int]] = []
        self._errors: list[Exception] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            while not (self._ends.is_set() and self._seen):
                self._seen.append(self._look())
        except Exception as error:  # noqa: BLE001
            self._errors.append(error)

    def __enter__(self) -> list[dict[str, int]]:
        self._thread.start()
        return self._seen

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        if self._errors:
            raise self._errors[0]
