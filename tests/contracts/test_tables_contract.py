"""The behaviour that the tables of every destination promise, whatever holds them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pytest
from support.memory import MemoryStore
from support.memory_tables import MemoryTables

from infra.settings import StorageSettings
from infra.store.delta import DeltaTables
from infra.store.objects import FsspecStore
from ironmask.errors import StorageError, TableError
from pipelines.ports import DataFile, Store, StoredTable, StoredTables
from pipelines.table.layout import join
from pipelines.table.listing import digest_of, line
from pipelines.table.log_chain import entry
from pipelines.table.log_entries import (
    Commit,
    Log,
    announcement_of_columns,
    parsed,
)
from pipelines.table.schemas import GENERATIONS, INPUTS, TABLES, TEMPLATES, as_parquet

Place = tuple[StoredTables, Store]
LATER = {"code_width": 128, "structure": "quaternionic"}


class TablesContract:
    """What `pipelines.ports.StoredTables` and `StoredTable` promise. place: nothing in it yet."""

    @pytest.fixture
    def place(self) -> Place:
        raise NotImplementedError

    @pytest.fixture
    def tables(self, place: Place) -> StoredTables:
        made, _ = place
        made.create()
        return made

    @pytest.fixture
    def store(self, place: Place) -> Store:
        return place[1]

    @pytest.fixture
    def table(self, tables: StoredTables) -> StoredTable:
        return tables.table("inputs")

    @pytest.fixture
    def files(self, table: StoredTable, store: Store) -> dict[str, DataFile]:
        """Four data files that no log lists, of a person each."""
        return {one: put(table, store, f"{one}.parquet", [one]) for one in "abcd"}

    def test_nothing_is_there_before_it_is_made(self, place):
        tables, _ = place
        assert not tables.exist()
        for call in ("files", "counts", "rows"):
            with pytest.raises(StorageError, match=r"inputs is not a table"):
                getattr(tables.table("inputs"), call)()
        with pytest.raises(StorageError):
            tables.table("inputs").sequence("run")

    def test_they_are_made_once(self, tables):
        identity = tables.table_id
        assert tables.exist()
        assert str(uuid.UUID(identity)) == identity
        tables.create()
        assert tables.table_id == identity

    def test_each_has_its_schema_and_no_row(self, tables):
        for name, (schema, _) in TABLES.items():
            found = tables.table(name).rows()
            assert found.schema.equals(schema)
            assert len(found) == 0
            assert list(tables.table(name).batches(schema.names[:1])) == []
            assert tables.table(name).files() == tables.table(name).counts() == {}
            assert tables.table(name).uri == join(tables.dest, name)

    def test_only_what_is_committed_is_seen(self, table, files):
        table.commit([files["a"]], "run", 1)
        assert table.files() == {"a.parquet": files["a"].size}
        assert table.counts() == {"a.parquet": 1}
        assert subjects(table) == ["a"]

    def test_several_files_come_and_go_together(self, table, files):
        table.commit([files["a"], files["b"]], "run", 1)
        table.commit([files["c"]], "run", 2, ["a.parquet"])
        assert subjects(table) == ["b", "c"]
        table.commit([], "run", 3, ["b.parquet", "c.parquet"])
        assert subjects(table) == []

    def test_what_is_removed_stays_in_the_store(self, table, store, files):
        table.commit([files["a"]], "run", 1)
        table.commit([], "run", 2, ["a.parquet"])
        assert table.files() == {}
        assert store.exists(join(table.uri, "a.parquet"))

    @pytest.fixture
    def older(self, place, monkeypatch) -> StoredTable:
        """Templates of a release that knew fewer columns, a file of it among them."""
        tables, store = place
        table = tables.table("templates")
        fewer = pa.schema([field for field in TEMPLATES if field.name not in LATER])
        with monkeypatch.context() as earlier:
            earlier.setattr(table, "_schema", fewer)
            tables.create()
        table.commit([put_template(table, store, 1, fewer)], "run", 1)
        return table

    def test_a_log_that_names_all_columns_stays_as_it_is(self, tables, store):
        for name in TABLES:
            assert not tables.table(name).widen(pytest.fail)
            with pytest.raises(FileNotFoundError):
                store.read(entry(tables, name, 1))

    def test_a_log_of_before_gets_the_columns_that_it_lacks_once(self, place, older):
        tables, store = place
        identity, before = tables.table_id, older.files()
        told: list[str] = []
        assert older.widen(lambda said: told.append(announcement_of_columns(said)))
        content = store.read(entry(tables, "templates", 2))
        assert [parsed(content).announcement()] == told
        assert parsed(content).added == []
        assert not older.widen(pytest.fail)
        assert (older.files(), tables.table_id) == (before, identity)
        older.commit([put_template(older, store, 2, **LATER)], "run", 2)
        found = older.rows(["generation", *LATER]).sort_by("generation").to_pylist()
        assert found == [
            {"generation": 1, **dict.fromkeys(LATER)},
            {"generation": 2, **LATER},
        ]

    def test_what_it_says_of_the_table_is_what_is_announced(self, place, older):
        """Any other column, partition or id has another digest."""
        told: list[Mapping[str, Any]] = []
        assert older.widen(told.append)
        (said,) = told
        announced = announcement_of_columns(said)
        columns = json.loads(said["schemaString"])
        for other in (
            {"schemaString": json.dumps([columns, "more"])},
            {"partitionColumns": []},
            {"id": str(uuid.uuid4())},
            {"configuration": {"delta.appendOnly": "true"}},
        ):
            assert announcement_of_columns({**said, **other}) != announced
        assert announcement_of_columns({**said, "createdTime": 7}) == announced

    def test_a_checkpoint_keeps_the_columns(self, place, older):
        tables, store = place
        older.widen(lambda _: None)
        older.checkpoint()
        for version in range(3):
            store.delete([entry(tables, "templates", version)])
        assert not older.widen(pytest.fail)

    def test_a_repeated_sequence_changes_nothing(self, table, files):
        """The answer to a commit may be lost: asked again, it must not count twice."""
        for _ in range(3):
            table.commit([files["a"]], "run", 1)
        table.commit([files["b"]], "run", 1)
        assert subjects(table) == ["a"]
        table.commit([files["b"]], "run", 2, ["a.parquet"])
        table.commit([files["b"]], "run", 2, ["a.parquet"])
        assert subjects(table) == ["b"]

    def test_an_earlier_sequence_changes_nothing(self, table, files):
        table.commit([files["a"]], "run", 5)
        table.commit([files["b"]], "run", 4)
        assert subjects(table) == ["a"]
        assert table.sequence("run") == 5

    def test_each_application_counts_for_itself(self, table, files):
        assert table.sequence("run") == 0
        table.commit([files["a"]], "run", 7)
        table.commit([files["b"]], "other", 1)
        assert subjects(table) == ["a", "b"]
        assert (table.sequence("run"), table.sequence("other")) == (7, 1)
        assert table.sequence("ru") == 0

    def test_tables_count_apart(self, tables, table, files):
        table.commit([files["a"]], "run", 3)
        assert tables.table("vault").sequence("run") == 0

    def test_a_commit_of_nothing_is_none(self, table):
        table.commit([], "run", 1)
        assert table.sequence("run") == 0

    def test_a_file_that_is_not_listed_cannot_go(self, table, files):
        table.commit([files["a"]], "run", 1)
        with pytest.raises(TableError, match=r"b\.parquet cannot be removed"):
            table.commit([files["c"]], "run", 2, ["a.parquet", "b.parquet"])
        assert subjects(table) == ["a"]
        assert table.sequence("run") == 1

    def test_two_handles_are_one_table(self, tables, table, files, place):
        other = again(place)
        assert other.table_id == tables.table_id
        for number, one in enumerate("abcd"):
            (table if number % 2 else other.table("inputs")).commit([files[one]], one, 1)
        assert subjects(table) == subjects(other.table("inputs")) == ["a", "b", "c", "d"]

    def test_rows_can_be_chosen(self, table, store):
        many = put(table, store, "many.parquet", ["a", "b", "c"])
        table.commit([many, put(table, store, "d.parquet", ["d"])], "run", 1)
        where = pads.field("subject_id").isin(["b", "d"])
        assert subjects(table, where) == ["b", "d"]
        assert table.rows(["uri"], pads.field("subject_id") == "c").to_pydict() == {"uri": ["u/c"]}
        assert len(table.rows(where=pads.field("subject_id") == "nobody")) == 0
        assert table.rows(["run_id", "uri"]).schema.names == ["run_id", "uri"]

    def test_batches_are_the_same_rows(self, table, files):
        table.commit(list(files.values()), "run", 1)
        batches = list(table.batches(["subject_id"]))
        assert {name for batch in batches for name in batch.schema.names} == {"subject_id"}
        found = [one for batch in batches for one in batch["subject_id"].to_pylist()]
        assert sorted(found) == ["a", "b", "c", "d"]

    def test_a_partition_is_a_column(self, tables, store):
        table = tables.table("templates")
        for number in (1, 2):
            table.commit([put_template(table, store, number)], "run", number)
        assert sorted(table.rows(["generation"])["generation"].to_pylist()) == [1, 2]
        chosen = table.rows(["subject_id", "generation"], pads.field("generation") == 2)
        assert chosen.to_pylist() == [{"subject_id": "of 2", "generation": 2}]
        assert chosen.schema.field("generation").type == pa.int32()

    def test_a_missing_file_is_named(self, table, store, files):
        table.commit([files["a"]], "run", 1)
        store.delete([join(table.uri, "a.parquet")])
        refused(table)

    def test_a_damaged_file_is_named(self, table, store, files):
        table.commit([files["a"]], "run", 1)
        uri = join(table.uri, "a.parquet")
        store.write(uri, store.read(uri)[:-20])
        refused(table)

    def test_what_was_at_a_version_can_be_listed(self, table, files):
        table.commit([files["a"]], "run", 1)
        table.commit([files["b"]], "run", 2, ["a.parquet"])
        assert list(table.listed(0)) == []
        assert [bare(file) for file in table.listed(1)] == [bare(files["a"])]
        assert [bare(file) for file in table.listed(2)] == [bare(files["b"])]
        assert all(file.sha256 == "" for file in table.listed(2))
        with pytest.raises(StorageError):
            table.listed(3)

    def test_a_partition_is_listed_as_text(self, tables, store):
        table = tables.table("templates")
        file = put_template(table, store, 3)
        table.commit([file], "run", 1)
        (found,) = table.listed(1)
        assert bare(found) == bare(file)
        assert found.partition == {"generation": "3"}

    def test_the_log_says_what_was_announced(self, table, store, files):
        """A seal announces a commit before it is made, and knows its entry by what it says."""
        table.commit([files["a"]], "run", 1)
        wanted = Commit("inputs", [files["b"]], "run", 2, ["a.parquet"])
        table.commit(wanted.files, "run", 2, wanted.removed)
        entry = store.read(join(table.uri, "_delta_log", f"{2:020d}.json"))
        assert parsed(entry).announcement() == wanted.announcement()

    def test_entries_and_listing_tell_the_same_files(self, table, store, files):
        for number, one in enumerate("abc"):
            table.commit([files[one]], "run", number + 1)
        log = Log()
        for number in range(4):
            log.take(store.read(join(table.uri, "_delta_log", f"{number:020d}.json")))
        assert log.list_digest() == digest_of(map(line, table.listed(3)))
        assert log.sequences == {"run": 3}

    def test_a_checkpoint_stands_for_the_log(self, tables, table, store, files, place):
        identity = tables.table_id
        table.commit([files["a"], files["b"]], "run", 1)
        table.commit([files["c"]], "other", 4, ["a.parquet"])
        assert table.checkpoint() == 2
        folder = join(table.uri, "_delta_log")
        store.delete([join(folder, f"{number:020d}.json") for number in range(2)])
        for found in (table, again(place).table("inputs")):
            assert subjects(found) == ["b", "c"]
            assert (found.sequence("run"), found.sequence("other")) == (1, 4)
        table.commit([files["d"]], "run", 2)
        assert subjects(again(place).table("inputs")) == ["b", "c", "d"]
        assert again(place).table_id == identity

    def test_a_checkpoint_can_be_read_as_a_log(self, table, store, files):
        table.commit([files["a"], files["b"]], "run", 1)
        table.commit([files["c"]], "run", 2, ["a.parquet"])
        version = table.checkpoint()
        name = f"{version:020d}.checkpoint.parquet"
        log = Log.based(Log().chain, store.read(join(table.uri, "_delta_log", name)))
        assert log.list_digest() == digest_of(map(line, table.listed(version)))
        assert log.sequences == {"run": 2}

    def test_a_damaged_log_is_named(self, table, store):
        store.write(join(table.uri, "_delta_log", f"{0:020d}.json"), b"{broken")
        with pytest.raises(StorageError, match="inputs cannot be read"):
            table.files()

    def test_small_tables_take_rows_that_lack_what_may_be_null(self, tables, store):
        table = tables.table("generations")
        first = {
            "generation": 1,
            "state": "live",
            "purpose": "enrol",
            "key_id": "k",
            "at": 0,
            "proof": "",
        }
        content = as_parquet(pa.Table.from_pylist([first], GENERATIONS))
        store.write(join(table.uri, "rows.parquet"), content)
        table.commit([DataFile("rows.parquet", len(content), 1, "", {}, {}, {})], "run", 1)
        (found,) = table.rows().to_pylist()
        assert found["parent"] is None
        assert len(table.rows(where=pads.field("parent").is_null())) == 1


def put(table: StoredTable, store: Store, name: str, people: list[str]) -> DataFile:
    """A data file of `inputs`."""
    rows = [
        {
            "uri": f"u/{subject}",
            "subject_id": subject,
            "outcome": "used",
            "reason": "",
            "detail": "",
            "shard": 0,
            "run_id": "r",
        }
        for subject in people
    ]
    content = as_parquet(pa.Table.from_pylist(rows, INPUTS))
    store.write(join(table.uri, name), content)
    bounds = {"subject_id": min(people)}, {"subject_id": max(people)}
    digest = sha256(content).hexdigest()
    return DataFile(name, len(content), len(rows), digest, {}, *bounds)


def put_template(
    table: StoredTable, store: Store, generation: int, columns: pa.Schema = TEMPLATES, **more: Any
) -> DataFile:
    """A data file of a template, which does not hold its generation: its partition does."""
    schema = columns.remove(columns.get_field_index("generation"))
    values = {"subject_id": f"of {generation}", "template_id": f"t{generation}"}
    known = {**values, **more}
    row = {field.name: known.get(field.name, empty(field.type)) for field in schema}
    content = as_parquet(pa.Table.from_pylist([row], schema))
    path = f"generation={generation}/t.parquet"
    store.write(join(table.uri, path), content)
    partition = {"generation": str(generation)}
    return DataFile(path, len(content), 1, "", partition, values, values)


def empty(kind: pa.DataType) -> object:
    """A value of a type that says nothing."""
    if pa.types.is_list(kind):
        return []
    if pa.types.is_string(kind):
        return ""
    if pa.types.is_binary(kind):
        return b""
    return False if pa.types.is_boolean(kind) else 0


def bare(file: DataFile) -> tuple[object, ...]:
    """What a log keeps of a file."""
    return file.path, file.size, file.rows, dict(file.partition), dict(file.low), dict(file.high)


def subjects(table: StoredTable, wanted: pads.Expression | None = None) -> list[str]:
    return sorted(table.rows(["subject_id"], wanted)["subject_id"].to_pylist())


def refused(table: StoredTable) -> None:
    """Whoever reads the rows is told which table has lost a file."""
    for work in (table.rows, lambda: list(table.batches(["uri"]))):
        with pytest.raises(TableError, match=r"inputs: a data file .* missing or damaged"):
            work()


def again(place: Place) -> StoredTables:
    """The same destination as another process opens it."""
    tables, store = place
    if isinstance(store, MemoryStore):
        return MemoryTables(tables.dest, store)
    return DeltaTables(tables.dest, StorageSettings().delta_options())


class TestInMemory(TablesContract):
    @pytest.fixture
    def place(self) -> Place:
        store = MemoryStore()
        return MemoryTables("/memory/dest", store), store


class TestLocal(TablesContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return DeltaTables(str(tmp_path / "dest"), {}), FsspecStore()


@pytest.mark.slow
class TestS3(TablesContract):
    @pytest.fixture
    def place(self, s3, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Place:
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)
        settings = StorageSettings()
        return DeltaTables(f"{bucket}/dest", settings.delta_options()), FsspecStore(settings)
