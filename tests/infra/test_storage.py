"""One contract for every store: local folders, and a real S3 server."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from support.s3 import S3Server

from infra.settings import StorageSettings
from infra.store.addresses import is_s3, normalise
from infra.store.objects import FsspecStore
from ironmask.errors import StorageError


@pytest.fixture
def s3_settings(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> StorageSettings:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    return StorageSettings()


class StoreContract:
    """What `pipelines.ports.Store` promises."""

    @pytest.fixture
    def store(self) -> FsspecStore:
        raise AssertionError

    @pytest.fixture
    def base(self) -> str:
        raise AssertionError

    def test_what_is_written_is_read(self, store, base):
        for name, data in (("a", b"x"), ("deep/er/b", b""), ("c", bytes(range(256)) * 50_000)):
            store.write(f"{base}/{name}", data)
            assert store.read(f"{base}/{name}") == data
            assert store.size(f"{base}/{name}") == len(data)
            with store.open(f"{base}/{name}") as handle:
                handle.seek(len(data) // 2)
                assert handle.read() == data[len(data) // 2 :]

    def test_a_second_write_replaces(self, store, base):
        store.write(f"{base}/a", b"old and longer")
        store.write(f"{base}/a", memoryview(b"new"))
        assert store.read(f"{base}/a") == b"new"

    def test_a_limit_is_kept(self, store, base):
        store.write(f"{base}/a", b"12345")
        assert store.read(f"{base}/a", limit=5) == b"12345"
        with pytest.raises(StorageError, match="more than the 4 bytes"):
            store.read(f"{base}/a", limit=4)
        (found,) = store.read_many([f"{base}/a"], limit=4)
        assert isinstance(found, OSError)
        assert found.reason == "too_large"

    def test_only_one_of_many_creates(self, store, base):
        won: list[bytes] = []
        start = threading.Barrier(6)

        def race(number: int) -> None:
            content = b"%d" % number
            start.wait()
            if store.create(f"{base}/lease", content):
                won.append(content)

        threads = [threading.Thread(target=race, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [store.read(f"{base}/lease")] == won
        assert store.create(f"{base}/lease", b"late") is False

    def test_listing(self, store, base):
        names = ["b", "a/2", "a/10", "a/sub/x", "a b/=é", "ab/z"]
        for name in names:
            store.write(f"{base}/{name}", name.encode())
        entries = list(store.entries(base))
        found = [entry.uri.removeprefix(f"{base}/") for entry in entries]
        assert sorted(found) == sorted(names)
        assert found == [entry.uri.removeprefix(f"{base}/") for entry in store.entries(base)]
        assert [entry.size for entry in entries] == [len(name.encode()) for name in found]
        assert [e.uri for e in store.entries(base, recursive=False)] == [f"{base}/b"]
        assert [e.uri for e in store.entries(f"{base}/a")] == [
            f"{base}/a/{name}" for name in ("10", "2", "sub/x")
        ]
        assert sorted(store.children(base)) == [f"{base}/{name}" for name in ("a", "a b", "ab")]

    def test_existence(self, store, base):
        store.write(f"{base}/folder/a", b"1")
        assert store.exists(f"{base}/folder/a")
        assert not store.is_dir(f"{base}/folder/a")
        assert store.exists(f"{base}/folder")
        assert store.is_dir(f"{base}/folder")
        for name in ("fold", "folder/b", "nothing"):
            assert not store.exists(f"{base}/{name}")
            assert not store.is_dir(f"{base}/{name}")

    def test_delete(self, store, base):
        uris = [f"{base}/{n}" for n in range(20)]
        for uri in uris:
            store.write(uri, b"x")
        store.delete([*uris[:-1], f"{base}/never"])
        assert [entry.uri for entry in store.entries(base)] == uris[-1:]
        store.delete([])

    def test_reading_many_keeps_order_and_goes_past_failures(self, store, base):
        uris = [f"{base}/{n:03d}" for n in range(60)]
        for number, uri in enumerate(uris):
            if number % 7:
                store.write(uri, b"%d" % number)
        for number, found in enumerate(store.read_many(uris)):
            if number % 7:
                assert found == b"%d" % number
            else:
                assert isinstance(found, OSError)

    def test_all_that_exists_is_told(self, store, base):
        for name in ("a", "b/c", "b/d"):
            store.write(f"{base}/{name}", b"x")
        store.delete([f"{base}/b/d"])
        assert sorted(store.remains(base)) == [f"{base}/a", f"{base}/b/c"]
        assert store.abort_uploads(base) == 0

    def test_a_reader_reads_any_part(self, store, base):
        data = bytes(range(256)) * 100_000
        store.write(f"{base}/a", data)
        with store.open(f"{base}/a") as handle:
            assert handle.seek(-10, 2) == len(data) - 10
            assert handle.read(100) == data[-10:]
            assert handle.read(1) == b""
            handle.seek(12_345_678)
            assert handle.read(9_000_000) == data[12_345_678:21_345_678]

    def test_what_is_absent_is_named(self, store, base):
        for work in (store.read, store.open, store.size):
            with pytest.raises(StorageError, match=r"nothing.*does not exist"):
                work(f"{base}/nothing")


class TestLocal(StoreContract):
    @pytest.fixture
    def store(self) -> FsspecStore:
        return FsspecStore()

    @pytest.fixture
    def base(self, tmp_path: Path) -> str:
        return str(tmp_path / "objects")

    def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(self, store, base):
        store.write(f"{base}/a", b"old")
        code = (
            "import resource, signal, sys\n"
            "from infra.store.objects import FsspecStore, StorageError\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "try:\n    FsspecStore().write(sys.argv[1], b'n' * 5000)\n"
            "except StorageError as error:\n    print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, f"{base}/a"], capture_output=True, text=True
        )
        assert done.stdout.strip() == f"{base}/a: File too large", done.stderr
        assert os.listdir(base) == ["a"]
        assert store.read(f"{base}/a") == b"old"

    def test_listings_are_sorted_as_s3_sorts_keys(self, store, base):
        names = ["a b/x", "a/x", "a0/x", "b"]
        for name in reversed(names):
            store.write(f"{base}/{name}", b"")
        assert [e.uri for e in store.entries(base)] == [f"{base}/{name}" for name in names]

    def test_no_access(self, store, base):
        store.write(f"{base}/a", b"x")
        with pytest.raises(StorageError, match=r"a/below"):
            store.write(f"{base}/a/below", b"x")

    @pytest.mark.parametrize("size", [4 << 20, (4 << 20) + 1, (8 << 20) - 1, (16 << 20) + 4097])
    @pytest.mark.parametrize("memory", [False, True], ids=["disk", "file system in memory"])
    def test_large_files_of_any_size(self, store, base, size, memory):
        """They go past the page cache where the file system can do that."""
        os.makedirs(base, exist_ok=True)
        with TemporaryDirectory(dir="/dev/shm" if memory else base) as folder:
            data = np.random.default_rng(size).bytes(size)
            store.write(f"{folder}/a", b"old")
            store.write(f"{folder}/a", memoryview(data))
            assert Path(folder, "a").read_bytes() == data
            # Arrow's buffers call their bytes signed.
            store.write(f"{folder}/a", memoryview(pa.py_buffer(data[::-1])))
            assert Path(folder, "a").read_bytes() == data[::-1]
            assert len(list(Path(folder).iterdir())) == 1

    def test_a_cycle_of_links_ends(self, store, base):
        store.write(f"{base}/d/a", b"x")
        os.symlink(f"{base}/d", f"{base}/d/loop")
        assert [entry.uri for entry in store.entries(base)] == [f"{base}/d/a"]


class TestS3(StoreContract):
    @pytest.fixture
    def store(self, s3_settings: StorageSettings) -> FsspecStore:
        return FsspecStore(s3_settings)

    @pytest.fixture
    def base(self, bucket: str) -> str:
        return f"{bucket}/prefix"

    def test_entity_tags_tell_the_content(self, store, base):
        store.write(f"{base}/a", b"abc")
        (entry,) = store.entries(base)
        assert entry.etag == "900150983cd24fb0d6963f7d28e17f72"

    @pytest.mark.slow
    def test_listings_come_in_pages(self, store, base):
        for number in range(1100):
            store.write(f"{base}/{number:05d}", b"")
        assert sum(1 for _ in store.entries(base)) == 1100

    @pytest.fixture
    def versioned(self, s3, bucket) -> str:
        s3.client().put_bucket_versioning(
            Bucket=bucket.removeprefix("s3://"), VersioningConfiguration={"Status": "Enabled"}
        )
        return bucket

    def versions(self, s3, bucket: str) -> list[str]:
        page = s3.client().list_object_versions(Bucket=bucket.removeprefix("s3://"))
        found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        return sorted(item["Key"] for item in found)

    def test_every_version_is_destroyed(self, store, s3, versioned):
        for content in (b"1", b"2", b"3"):
            store.write(f"{versioned}/p/a", content)
        store.write(f"{versioned}/p/ab", b"x")
        assert self.versions(s3, versioned) == ["p/a"] * 3 + ["p/ab"]
        store.delete([f"{versioned}/p/a", f"{versioned}/p/never"])
        assert self.versions(s3, versioned) == ["p/ab"]

    def test_what_only_older_versions_hold_remains(self, store, s3, versioned):
        """Somebody deleted an object as one does: a marker hides it, and nothing is gone."""
        for name in ("p/a", "p/b", "q"):
            store.write(f"{versioned}/{name}", b"x")
        s3.client().delete_object(Bucket=versioned.removeprefix("s3://"), Key="p/a")
        assert [entry.uri for entry in store.entries(f"{versioned}/p")] == [f"{versioned}/p/b"]
        assert sorted(store.remains(f"{versioned}/p")) == [f"{versioned}/p/a", f"{versioned}/p/b"]
        store.delete([f"{versioned}/p/a"])
        assert self.versions(s3, versioned) == ["p/b", "q"]

    def test_unfinished_uploads_are_aborted(self, store, s3, bucket):
        where = {"Bucket": bucket.removeprefix("s3://"), "Key": "p/big"}
        client = s3.client()
        upload = client.create_multipart_upload(**where)["UploadId"]
        client.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"x" * (5 << 20))
        assert store.abort_uploads(f"{bucket}/other") == 0
        assert store.abort_uploads(f"{bucket}/p") == 1
        assert not client.list_multipart_uploads(Bucket=where["Bucket"]).get("Uploads")

    def test_a_wrong_secret_is_refused(self, s3, bucket, monkeypatch):
        environment = {**s3.environment(), "IRONMASK_S3_SECRET_KEY": "wrong"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        store = FsspecStore(StorageSettings())
        for work in (lambda: store.read(f"{bucket}/a"), lambda: store.write(f"{bucket}/a", b"")):
            with pytest.raises(
                StorageError,
                match=r"access denied \(SignatureDoesNotMatch\); check the credentials",
            ):
                work()

    def test_no_server(self, monkeypatch):
        monkeypatch.setenv("IRONMASK_S3_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("IRONMASK_S3_ALLOW_HTTP", "true")
        monkeypatch.setenv("IRONMASK_S3_ACCESS_KEY", "a")
        monkeypatch.setenv("IRONMASK_S3_SECRET_KEY", "b")
        store = FsspecStore(StorageSettings())
        with pytest.raises(StorageError, match="s3://some-bucket/a"):
            store.read("s3://some-bucket/a")

    def test_no_such_bucket(self, store):
        with pytest.raises(StorageError, match="does not exist"):
            store.write("s3://no-such-bucket-here/a", b"x")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("s3://bucket/a/", "s3://bucket/a"),
        ("file:///a/b/", "/a/b"),
        ("/a//b/../c", "/a/c"),
    ],
)
def test_addresses(given: str, meant: str) -> None:
    assert normalise(given) == meant
    assert is_s3(given) == given.startswith("s3")


@pytest.mark.parametrize("given", ["s3://", "s3:///key", "gs://bucket/a", "http://host/a"])
def test_addresses_that_are_none(given: str) -> None:
    with pytest.raises(StorageError):
        normalise(given)
