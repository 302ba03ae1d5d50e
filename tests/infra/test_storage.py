"""What local folders and a real S3 server have beside the contract of stores."""

from __future__ import annotations

import os
import subprocess
import sys
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


class TestLocal:
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


class TestS3:
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

    @pytest.mark.slow
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
