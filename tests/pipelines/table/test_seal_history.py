"""Logs that forget: what is gone everywhere, what the seal still vouches for, and kills between."""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from support.enrolling import PowerCutError
from support.marks import few
from support.s3 import S3Server

from infra.settings import StorageSettings
from infra.store.delta import DeltaTables
from infra.store.objects import FsspecStore
from ironmask.errors import StorageError, TableError
from pipelines.ports import DataFile
from pipelines.table import layout, log_chain, log_seal_file
from pipelines.table.log_entries import Commit
from pipelines.table.log_seal import LogSeal
from pipelines.table.log_seal_file import Chain, State

ERASED = "anna.of.arendelle"
LOG = "inputs/_delta_log"


class Keys:
    """As much of a generation's keys as a seal needs."""

    key_id = "k1"

    def log_seal_key(self) -> bytes:
        return sha256(self.key_id.encode()).digest()


class World:
    """A destination, in which a person of `inputs` was erased and their history is still there."""

    def __init__(self, dest: str) -> None:
        self.dest, settings = dest, StorageSettings()
        self.options = settings.delta_options()
        self.store = FsspecStore(settings)
        self.tables = DeltaTables(dest, self.options)
        self.tables.create()

    def grow(self) -> None:
        """A closed run whose log has a checkpoint in its middle."""
        table = self.tables.table("inputs")
        own = self.begun()
        own.commit(Commit("inputs", [file("a", "aaron", ERASED)], "run", 1))
        own.commit(Commit("inputs", [file("b", ERASED, "zoe")], "run", 2))
        table.checkpoint()
        own.commit(Commit("inputs", [file("c", "carl", "cleo")], "run", 3))
        own.end()

    def erase(self, own: LogSeal) -> None:
        """Rewritten without the person, and removed: the history holds them still."""
        gone = ["a.parquet", "b.parquet"]
        new = [file("a2", "aaron", "aaron"), file("b2", "zoe", "zoe")]
        own.commit(Commit("inputs", new, "erase", 1, gone))

    def begun(self, store: FsspecStore | None = None) -> LogSeal:
        own = LogSeal(self.tables, store or self.store, Keys())
        own.begin()
        return own

    def state(self) -> State:
        found = log_seal_file.read(self.dest, self.store, lambda _: Keys().log_seal_key())
        assert found
        return found

    def problems(self) -> list[str]:
        """What a check would find, now."""
        state = self.state()
        broken = [log_chain.broken_logs, log_chain.broken_files]
        return [line for look in broken for line in look(self.tables, self.store, state)]

    def names(self) -> list[str]:
        found = self.store.remains(layout.join(self.dest, LOG))
        return sorted(uri.rpartition("/")[2] for uri in found)

    def read(self) -> tuple[Any, ...]:
        """What a reader finds that knows nothing of seals."""
        table = DeltaTable(layout.join(self.dest, "inputs"), storage_options=self.options)
        paths = sorted(uri.rpartition("/")[2] for uri in table.file_uris())
        sequences = [table.transaction_version(name) for name in ("run", "erase")]
        return table.version(), paths, sequences, table.metadata().id, table.schema()


def file(name: str, low: str, high: str) -> DataFile:
    """A file that the log lists; what is in it, no seal asks."""
    bounds = {"subject_id": low}, {"subject_id": high}
    return DataFile(f"{name}.parquet", 9, 2, "", {}, *bounds)


def forgotten(version: int) -> list[str]:
    """All that is in a log's folder once its history is gone."""
    return [f"{version:020d}.checkpoint.parquet", f"{version:020d}.json", "_last_checkpoint"]


@pytest.fixture
def local(tmp_path: Path) -> World:
    world = World(str(tmp_path / "dest"))
    world.grow()
    return world


@pytest.fixture(params=few(["local", "s3", "versioned"], "local"))
def world(request, monkeypatch) -> World:
    if request.param == "local":
        return request.getfixturevalue("local")
    server: S3Server = request.getfixturevalue("s3")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    bucket = server.new_bucket()
    if request.param == "versioned":
        server.client().put_bucket_versioning(
            Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
        )
    found = World(f"s3://{bucket}/dest")
    found.grow()
    return found


def everything(world: World, request) -> Iterator[bytes]:
    """Every byte under the log, in every version; of Parquet what it says as well."""
    for content in _objects(world, request):
        yield content
        if content.startswith(b"PAR1"):
            yield str(pq.read_table(io.BytesIO(content)).to_pylist()).encode()


def _objects(world: World, request) -> Iterator[bytes]:
    if not world.dest.startswith("s3://"):
        yield from (p.read_bytes() for p in Path(world.dest, LOG).rglob("*") if p.is_file())
        return
    client = request.getfixturevalue("s3").client()
    bucket = world.dest.split("/")[2]
    page = client.list_object_versions(Bucket=bucket, Prefix=f"dest/{LOG}/")
    for item in page.get("Versions", []):
        which = {"VersionId": item["VersionId"]} if item["VersionId"] != "null" else {}
        yield client.get_object(Bucket=bucket, Key=item["Key"], **which)["Body"].read()


def test_what_was_erased_is_nowhere_any_more(world, request):
    own = world.begun()
    world.erase(own)
    own.extend()
    before = world.read()
    holders = [content for content in everything(world, request) if ERASED.encode() in content]
    assert len(holders) >= 3
    own.forget("inputs")
    left = list(everything(world, request))
    assert not [content for content in left if ERASED.encode() in content]
    assert any(b"aaron" in content and b"cleo" in content for content in left)
    assert world.read() == before
    assert world.names() == forgotten(4)
    assert world.problems() == []
    own.end()
    assert world.problems() == []
    assert not world.state().open


def test_the_table_goes_on(world):
    """Committed, sealed, checked and forgotten again, in this process and the next."""
    own = world.begun()
    world.erase(own)
    own.forget("inputs")
    own.commit(Commit("inputs", [file("d", "dora", "dora")], "run", 4))
    own.end()
    assert world.problems() == []
    own = world.begun()
    assert world.state().starts["inputs"].version == 3
    own.forget("inputs")
    assert (world.problems(), world.names()) == ([], forgotten(5))
    own.end()
    assert world.problems() == []
    assert world.state().starts["inputs"].version == 4
    assert world.read()[:3] == (5, [f"{n}.parquet" for n in ("a2", "b2", "c", "d")], [4, 1])


def test_every_log_may_forget(local):
    """Also one that has no history."""
    own = local.begun()
    for name in ("templates", "inputs", "runs"):
        own.forget(name)
        own.forget(name)
    own.end()
    assert local.problems() == []
    assert local.state().starts["templates"] == Chain()
    assert local.begun()


def test_a_seal_of_before_says_the_same(local):
    """Where nothing was forgotten, nothing of it is written: older seals hold."""
    assert b"starts" not in local.store.read(layout.seal_file(local.dest))


def test_sealed_files_that_are_forgotten_are_not_missed(local):
    """The closed seal lists a checkpoint that goes; a plan that goes is told as ever."""
    plan = layout.plan_file(layout.plan_folder(local.dest, "0" * 12))
    local.store.write(plan, b"{}")
    own = local.begun()
    own.end()
    old = f"{LOG}/{2:020d}.checkpoint.parquet"
    assert old in local.state().files
    own = local.begun()
    local.store.delete([plan])
    own.forget("inputs")
    assert local.names() == forgotten(3)
    assert local.problems() == [f"{plan.removeprefix(local.dest + '/')} is missing"]


class Mortal(FsspecStore):
    """A store whose process dies at its n-th writing or deletion: before, or after it is done."""

    def __init__(self, steps: int, *, after: bool) -> None:
        super().__init__()
        self.left = steps
        self._after = after
        self._lock = threading.Lock()

    def write(self, uri: str, data: bytes | memoryview) -> None:
        self._step(lambda: super(Mortal, self).write(uri, data))

    def delete(self, uris: Sequence[str]) -> None:
        for uri in uris:
            self._step(lambda uri=uri: super(Mortal, self).delete([uri]))

    def _step(self, work: Callable[[], None]) -> None:
        if self.left == 0 and not self._after:
            raise PowerCutError
        work()
        if self.left == 0:
            raise PowerCutError
        self.left -= 1


def killed(world: World, steps: int, *, after: bool) -> bool:
    """Forget, and die at a step; tells whether that step was reached."""
    store = Mortal(10**6, after=after)
    own = world.begun(store)
    store.left = steps
    try:
        own.forget("inputs")
    except PowerCutError:
        return True
    return False


@pytest.fixture
def erased(local) -> World:
    own = local.begun()
    local.erase(own)
    own.end()
    return local


class TestKills:
    def stages(self, world: World, tmp_path: Path, *, after: bool) -> Iterator[int]:
        """The destination as each kill leaves it, one after the other."""
        kept = tmp_path / "kept"
        shutil.copytree(world.dest, kept)
        for steps in range(100):
            shutil.rmtree(world.dest)
            shutil.copytree(kept, world.dest)
            world.tables = DeltaTables(world.dest, {})
            if not killed(world, steps, after=after):
                assert steps == 8
                return
            yield steps

    @pytest.mark.slow
    @pytest.mark.parametrize("after", [False, True])
    def test_at_any_point_the_next_run_completes_it(self, erased, tmp_path, after):
        before = erased.read()
        for _ in self.stages(erased, tmp_path, after=after):
            assert erased.read() == before
            assert erased.problems() == []
            own = erased.begun()
            own.forget("inputs")
            assert erased.names() == forgotten(4)
            own.end()
            assert (erased.problems(), erased.read()) == ([], before)

    @pytest.mark.slow
    def test_a_run_between_may_close_what_is_half_forgotten(self, erased, tmp_path):
        before = erased.read()
        for _ in self.stages(erased, tmp_path, after=True):
            erased.begun().end()
            assert erased.problems() == []
            own = erased.begun()
            own.forget("inputs")
            assert (erased.problems(), erased.names()) == ([], forgotten(4))
            own.end()
            assert (erased.problems(), erased.read()) == ([], before)

    def test_after_the_checkpoint(self, erased, monkeypatch):
        """It is there, in other bytes than one before, and the seal does not depend on it yet."""
        table = erased.tables.table("inputs")
        path = Path(erased.dest, LOG, f"{table.checkpoint():020d}.checkpoint.parquet")
        erased.begun().end()

        def cut() -> int:
            type(table).checkpoint(table)
            pq.write_table(pq.read_table(path), path)
            raise PowerCutError

        monkeypatch.setattr(table, "checkpoint", cut)
        with pytest.raises(PowerCutError):
            erased.begun().forget("inputs")
        monkeypatch.undo()
        assert (erased.problems(), erased.state().starts) == ([], {})
        erased.begun().forget("inputs")
        assert erased.names() == forgotten(4)

    def test_nothing_goes_before_the_seal_knows_of_it(self, erased, monkeypatch):
        deleted: list[str] = []
        starts: list[dict[str, Chain]] = []
        delete = FsspecStore.delete

        def watched(self, uris: Sequence[str]) -> None:
            deleted.extend(uris)
            starts.append(erased.state().starts)
            delete(self, uris)

        own = erased.begun()
        monkeypatch.setattr(FsspecStore, "delete", watched)
        own.forget("inputs")
        assert deleted
        assert all(found["inputs"].version == 3 for found in starts)


class TestTampering:
    @pytest.fixture
    def made(self, erased) -> World:
        """Forgotten, gone on from, and closed."""
        own = erased.begun()
        own.forget("inputs")
        own.commit(Commit("inputs", [file("d", "dora", "dora")], "run", 4))
        own.end()
        assert erased.problems() == []
        return erased

    def path(self, world: World, name: str) -> Path:
        return Path(world.dest, LOG, name)

    def refused(self, world: World) -> str:
        with pytest.raises(TableError, match="was changed by other hands") as caught:
            world.begun()
        return str(caught.value)

    @pytest.mark.parametrize("version", [4, 5])
    def test_with_an_entry_after_the_start(self, made, version):
        path = self.path(made, f"{version:020d}.json")
        path.write_text(path.read_text().replace('"dataChange":true', '"dataChange":false'))
        assert "inputs: its log up to version 5" in self.refused(made)
        assert any("inputs: its log up to version 5" in line for line in made.problems())

    def test_with_an_entry_that_is_not_there(self, made):
        self.path(made, f"{4:020d}.json").unlink()
        assert "inputs: an entry of its log is missing" in self.refused(made)

    @pytest.mark.parametrize("is_open", [False, True])
    def test_with_the_checkpoint_that_stands_for_the_history(self, made, is_open):
        if is_open:
            made.begun()
        path = self.path(made, f"{4:020d}.checkpoint.parquet")
        table = pq.read_table(path)
        pq.write_table(table.slice(1), path)
        says = f"{LOG}/{path.name} is not what was sealed"
        assert says in self.refused(made)
        assert made.problems() == [says]
        path.unlink()
        assert f"{path.name} is missing" in self.refused(made)
        assert made.problems() == [f"{LOG}/{path.name} is missing"]

    @pytest.mark.parametrize("grown", [False, True])
    def test_while_a_run_is_under_way(self, made, grown):
        """No new checkpoint is made from it, and the end of the run does not make it right."""
        own = made.begun()
        if grown:
            own.commit(Commit("inputs", [file("e", "e", "e")], "run", 5))
        path = self.path(made, f"{4:020d}.checkpoint.parquet")
        path.write_bytes(path.read_bytes()[::-1])
        names = made.names()
        with pytest.raises(TableError, match=r"checkpoint\.parquet is not what was sealed"):
            own.forget("inputs")
        assert made.names() == names
        own.end()
        assert made.problems() == [f"{LOG}/{path.name} is not what was sealed"]

    def test_with_the_pointer_to_the_checkpoint(self, made):
        path = self.path(made, "_last_checkpoint")
        path.write_text(path.read_text().replace("4", "3", 1))
        assert made.problems() == [f"{LOG}/_last_checkpoint is not what was sealed"]

    def test_before_it_is_forgotten(self, erased):
        """What a checkpoint is made from is checked first, and nothing goes where it is not so."""
        own = erased.begun()
        path = self.path(erased, f"{1:020d}.json")
        path.write_text(path.read_text().replace("aaron", "adam"))
        names = erased.names()
        with pytest.raises(TableError, match="inputs: its log up to version 4 is not the one"):
            own.forget("inputs")
        path.unlink()
        with pytest.raises(TableError, match="inputs: an entry of its log is missing"):
            own.forget("inputs")
        assert erased.names() == [name for name in names if name != path.name]

    def test_with_a_commit_that_comes_between(self, erased, monkeypatch):
        """What the seal has not taken in is not made the start of a chain."""
        table = erased.tables.table("inputs")

        def overtaken() -> int:
            table.commit([file("x", "x", "x")], "other", 1)
            return type(table).checkpoint(table)

        monkeypatch.setattr(table, "checkpoint", overtaken)
        with pytest.raises(TableError, match="goes on after the sealed version 4"):
            erased.begun().forget("inputs")
        assert len([name for name in erased.names() if name.endswith(".json")]) == 6


class TestGoingBack:
    """A copy of the log from before is put in the place of the one that forgot, or beside it."""

    @pytest.fixture
    def copy(self, erased, tmp_path) -> Path:
        """The log and the seal as they were; the table has forgotten and is closed."""
        shutil.copytree(Path(erased.dest, LOG), tmp_path / "copy")
        shutil.copy(layout.seal_file(erased.dest), tmp_path / "seal.json")
        own = erased.begun()
        own.forget("inputs")
        own.end()
        return tmp_path / "copy"

    def refused(self, world: World) -> str:
        return TestTampering().refused(world)

    def test_forgotten_entries_that_are_back_change_nothing(self, erased, copy):
        """Readers begin at the checkpoint, whatever lies before it; and a check tells of them."""
        before = erased.read()
        own = [copy / f"{version:020d}.json" for version in range(4)]
        for path in own:
            shutil.copy(path, Path(erased.dest, LOG))
        forged = Path(erased.dest, LOG, own[1].name)
        forged.write_text(forged.read_text().replace("a.parquet", "x.parquet"))
        assert erased.read() == before
        assert sorted(erased.problems()) == [
            f"{LOG}/{path.name} is not in the seal" for path in own
        ]
        run = erased.begun()
        assert erased.read() == before
        run.forget("inputs")
        run.end()
        assert (erased.names(), erased.problems(), erased.read()) == (forgotten(4), [], before)

    def test_an_old_checkpoint_that_is_back_changes_nothing(self, erased, copy):
        before = erased.read()
        old = f"{2:020d}.checkpoint.parquet"
        for name in (old, "_last_checkpoint"):
            shutil.copy(copy / name, Path(erased.dest, LOG))
        assert erased.read() == before
        assert sorted(erased.problems()) == [
            f"{LOG}/{old} is not in the seal",
            f"{LOG}/_last_checkpoint is not what was sealed",
        ]

    def test_the_whole_log(self, erased, copy):
        """It is the same up to the same version, but for the checkpoint: readers would go by
        entries that nothing vouches for any more, so this is refused.
        """
        shutil.rmtree(Path(erased.dest, LOG))
        shutil.copytree(copy, Path(erased.dest, LOG))
        says = f"{LOG}/{4:020d}.checkpoint.parquet is missing"
        assert says in self.refused(erased)
        assert says in erased.problems()

    def test_a_log_of_before_the_removal(self, erased, copy):
        shutil.rmtree(Path(erased.dest, LOG))
        shutil.copytree(copy, Path(erased.dest, LOG))
        Path(erased.dest, LOG, f"{4:020d}.json").unlink()
        assert f"{LOG}/{4:020d}.checkpoint.parquet is missing" in self.refused(erased)

    def test_the_seal_alone(self, erased, copy):
        """It asks for entries that are gone."""
        shutil.copy(copy.with_name("seal.json"), layout.seal_file(erased.dest))
        assert "inputs: an entry of its log is missing" in self.refused(erased)


def test_what_killed_writers_left_in_the_folder_goes_too(erased):
    """Half-written entries and checkpoints, also of the version that stays."""
    for name in (f"{4:020d}.json#1", f"{4:020d}.checkpoint.parquet#2", "_sidecars/a.parquet"):
        erased.store.write(layout.join(erased.dest, LOG, name), ERASED.encode())
    erased.begun().forget("inputs")
    assert erased.names() == forgotten(4)


def test_a_deletion_that_the_store_does_not_do_is_told(erased, monkeypatch):
    """A locked object, say: the next call goes on."""
    own = erased.begun()
    monkeypatch.setattr(FsspecStore, "delete", lambda self, uris: None)
    with pytest.raises(StorageError, match="still holds 5 files or versions of its history"):
        own.forget("inputs")
    monkeypatch.undo()
    own.forget("inputs")
    assert erased.names() == forgotten(4)
