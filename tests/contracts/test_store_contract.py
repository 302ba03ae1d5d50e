"""The behaviour that every store promises: on a disk, in a bucket, over a bad network, in memory.

`TestFaulty` speaks to the same server as `TestS3` through a proxy that refuses, breaks and cuts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.memory import MemoryStore
from support.proxy import MANY, proxy

from infra.settings import StorageSettings
from infra.store.objects import FsspecStore
from ironmask.errors import StorageError
from pipelines.ports import Store


class StoreContract:
    """What `pipelines.ports.Store` promises. base: a folder that nothing is in."""

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError

    @pytest.fixture
    def base(self) -> str:
        raise NotImplementedError

    def names(self, found, base: str) -> list[str]:
        return [entry.uri.removeprefix(f"{base}/") for entry in found]

    @pytest.mark.parametrize(
        "data", [b"", b"x", pytest.param(bytes(range(256)) * 50_000, marks=pytest.mark.slow)]
    )
    def test_what_is_written_is_read(self, store, base, data):
        uri = f"{base}/deep/er/a"
        store.write(uri, data)
        assert store.read(uri) == data
        assert store.size(uri) == len(data)
        with store.open(uri) as handle:
            assert handle.read() == data

    def test_a_second_write_replaces_the_first(self, store, base):
        store.write(f"{base}/a", b"old and longer")
        store.write(f"{base}/a", memoryview(b"new"))
        assert store.read(f"{base}/a") == b"new"
        assert store.size(f"{base}/a") == 3

    def test_another_content_is_another_version(self, store, base):
        store.write(f"{base}/a", b"old")
        before = store.version(f"{base}/a")
        assert store.version(f"{base}/a") == before
        store.write(f"{base}/a", b"newer")
        assert store.version(f"{base}/a") != before

    def test_a_handle_seeks(self, store, base):
        data = bytes(range(256)) * 40
        store.write(f"{base}/a", data)
        with store.open(f"{base}/a") as handle:
            assert handle.seek(-10, 2) == len(data) - 10
            assert handle.read(100) == data[-10:]
            assert handle.read(1) == b""
            handle.seek(5000)
            assert handle.read(100) == data[5000:5100]
            assert handle.tell() == 5100

    def test_a_handle_reads_across_the_blocks_that_it_is_fetched_in(self, store, base):
        data = bytes(range(256)) * 100_000
        store.write(f"{base}/a", data)
        with store.open(f"{base}/a") as handle:
            handle.seek(12_345_678)
            assert handle.read(9_000_000) == data[12_345_678:21_345_678]
            assert handle.read() == data[21_345_678:]

    @pytest.mark.parametrize(
        ("start", "end", "found"), [(0, 3, b"012"), (3, 5, b"34"), (8, 20, b"89"), (4, 4, b"")]
    )
    def test_a_part_ends_with_the_object(self, store, base, start, end, found):
        store.write(f"{base}/a", b"0123456789")
        assert store.part(f"{base}/a", start, end) == found

    def test_a_limit_is_kept(self, store, base):
        store.write(f"{base}/a", b"12345")
        assert store.read(f"{base}/a", limit=5) == b"12345"
        with pytest.raises(StorageError, match=r"/a: more than the 4 bytes that are allowed"):
            store.read(f"{base}/a", limit=4)

    def test_creating_leaves_what_is_there(self, store, base):
        assert store.create(f"{base}/a", b"first") is True
        assert store.create(f"{base}/a", b"second") is False
        assert store.read(f"{base}/a") == b"first"
        store.delete([f"{base}/a"])
        assert store.create(f"{base}/a", b"third") is True

    def test_only_one_of_many_creates(self, store, base):
        won: list[bytes] = []
        start = threading.Barrier(6)

        def race(number: int) -> None:
            content = b"%d" % number
            start.wait()
            if store.create(f"{base}/lease", content):
                won.append(content)

        threads = [threading.Thread(target=race, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [store.read(f"{base}/lease")] == won

    def test_a_listing_names_everything_below_once(self, store, base):
        names = ["b", "a/2", "a/10", "a/sub/x", "a b/=é", "ab/z"]
        for name in names:
            store.write(f"{base}/{name}", name.encode())
        entries = list(store.entries(base))
        found = self.names(entries, base)
        assert sorted(found) == sorted(names)
        assert found == self.names(store.entries(base), base)
        assert [entry.size for entry in entries] == [len(name.encode()) for name in found]
        assert self.names(store.entries(f"{base}/a"), base) == ["a/10", "a/2", "a/sub/x"]
        assert self.names(store.entries(base, recursive=False), base) == ["b"]

    def test_items_of_plain_objects_are_its_entries(self, store, base):
        for name in ("b", "a/1", "a/sub/x"):
            store.write(f"{base}/{name}", b"x")
        assert list(store.items(base)) == list(store.entries(base))
        assert self.names(store.items(base, recursive=False), base) == ["b"]

    def test_folders_directly_below(self, store, base):
        for name in ("b", "a/2", "a/sub/x", "a b/y", "ab/z"):
            store.write(f"{base}/{name}", b"x")
        found = list(store.children(base))
        assert sorted(found) == [f"{base}/{name}" for name in ("a", "a b", "ab")]
        assert found == list(store.children(base))
        assert list(store.children(f"{base}/nothing")) == []

    def test_names_after_one(self, store, base):
        for name in ("10", "2", "3", "30", "é", "sub/4"):
            store.write(f"{base}/{name}", b"x")
        after = [name for name in store.after(base, "2") if name != "sub"]
        assert after == ["3", "30", "é"]
        assert store.after(base, "é") == []
        assert store.after(f"{base}/nothing", "") == []

    def test_what_exists(self, store, base):
        store.write(f"{base}/folder/a", b"1")
        assert store.exists(f"{base}/folder/a")
        assert not store.is_dir(f"{base}/folder/a")
        assert store.exists(f"{base}/folder")
        assert store.is_dir(f"{base}/folder")
        for name in ("fold", "folder/b", "nothing"):
            assert not store.exists(f"{base}/{name}")
            assert not store.is_dir(f"{base}/{name}")

    def test_an_address_is_its_own_place(self, store, base):
        store.write(f"{base}/a", b"x")
        found = store.resolve(f"{base}/a")
        assert store.resolve(found) == found
        assert store.read(found) == b"x"

    def test_absent_objects_are_no_error_of_a_deletion(self, store, base):
        uris = [f"{base}/{number}" for number in range(20)]
        for uri in uris:
            store.write(uri, b"x")
        store.delete([*uris[:-1], f"{base}/never"])
        assert [entry.uri for entry in store.entries(base)] == uris[-1:]
        store.delete([])
        store.delete(uris)
        assert list(store.entries(base)) == []

    def test_what_is_deleted_remains_nowhere(self, store, base):
        for name in ("a", "b/c", "b/d"):
            store.write(f"{base}/{name}", b"x")
        store.delete([f"{base}/b/d"])
        assert sorted(store.remains(base)) == [f"{base}/a", f"{base}/b/c"]
        assert list(store.remains(f"{base}/nothing")) == []
        assert store.abort_uploads(base) == 0

    def test_many_are_read_in_order_past_those_at_fault(self, store, base):
        uris = [f"{base}/{number:03d}" for number in range(40)]
        for number, uri in enumerate(uris):
            if number % 7:
                store.write(uri, b"%d" % number)
        found = list(store.read_many(uris))
        assert len(found) == len(uris)
        for number, one in enumerate(found):
            if number % 7:
                assert one == b"%d" % number
            else:
                assert isinstance(one, FileNotFoundError)
        assert list(store.read_many([])) == []

    def test_what_is_too_large_among_many_has_its_reason(self, store, base):
        store.write(f"{base}/a", b"12345")
        store.write(f"{base}/b", b"1234")
        large, small = store.read_many([f"{base}/a", f"{base}/b"], limit=4)
        assert large.reason == "too_large"
        assert small == b"1234"

    @pytest.mark.parametrize("call", ["read", "open", "size", "version"])
    def test_what_is_absent_is_named(self, store, base, call):
        with pytest.raises(StorageError, match=r"/nothing does not exist") as caught:
            getattr(store, call)(f"{base}/nothing")
        assert isinstance(caught.value, FileNotFoundError)


class TestLocal(StoreContract):
    @pytest.fixture
    def store(self) -> FsspecStore:
        return FsspecStore()

    @pytest.fixture
    def base(self, tmp_path: Path) -> str:
        return str(tmp_path / "objects")


class TestInMemory(StoreContract):
    @pytest.fixture(params=[False, True], ids=["one version", "versions"])
    def store(self, request: pytest.FixtureRequest) -> MemoryStore:
        return MemoryStore(versioned=request.param)

    @pytest.fixture
    def base(self) -> str:
        return "/memory/objects"

    def test_what_is_hidden_remains_until_it_is_deleted(self, base):
        store = MemoryStore(versioned=True)
        store.write(f"{base}/a", b"x")
        store.hide(f"{base}/a")
        assert not store.exists(f"{base}/a")
        assert list(store.entries(base)) == []
        assert list(store.remains(base)) == [f"{base}/a"]
        store.delete([f"{base}/a"])
        assert list(store.remains(base)) == []


class TestS3(StoreContract):
    @pytest.fixture
    def store(self, s3, monkeypatch: pytest.MonkeyPatch) -> FsspecStore:
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)
        return FsspecStore(StorageSettings())

    @pytest.fixture
    def base(self, bucket: str) -> str:
        return f"{bucket}/prefix"


@pytest.mark.slow
class TestFaulty(TestS3):
    @pytest.fixture
    def store(self, s3, monkeypatch: pytest.MonkeyPatch) -> Iterator[FsspecStore]:
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)
        with proxy(s3.endpoint, MANY, seed=7) as failing:
            monkeypatch.setenv("IRONMASK_S3_ENDPOINT", failing.endpoint)
            yield FsspecStore(StorageSettings())
