"""Addresses that people write: on a disk and in a bucket they mean the same, or fail one by one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support import cases
from support.command import ironmask
from support.enrolling import enroll
from support.marks import few
from support.pictures import photos
from support.s3 import S3Server
from support.table import keys_of, rows, told

from infra.settings import load as load_settings
from infra.store.addresses import normalise
from infra.store.objects import FsspecStore
from ironmask.errors import SourceError, StorageError
from pipelines.plan import sources
from pipelines.plan.census import Census
from pipelines.setup import ports

SETTINGS = ("--alpha=16", "--tolerance=4")


def listed(source: str, store: FsspecStore, *roots: str) -> list[dict[str, Any]]:
    found = sources.read(source, sources.detect(source, store), store, 1 << 20, roots)
    return pa.concat_tables([sources.COLUMNS.empty_table(), *found]).to_pylist()


@pytest.fixture
def model(face_data: Path) -> str:
    return f"--model={face_data / 'models' / 'buffalo_sc'}"


@pytest.fixture
def reached(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket that the command line reaches."""
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    return bucket


@pytest.fixture
def store(reached: str) -> FsspecStore:
    return ports.open_store(load_settings()[1])


class TestManifest:
    def test_the_case(self, face_data, tmp_path, model):
        folder = cases.make(face_data, "22", tmp_path / "case") / "man"
        dest = tmp_path / "dest"
        answer = enroll(folder / "m.parquet", dest, model, *SETTINGS, "--json")
        assert answer.code == 3, answer.err
        found = {}
        for row in cases_rows(dest):
            found[row["subject_id"]] = (row["reason"], row["detail"])
        used = {name for name, (reason, _) in found.items() if reason == ""}
        same = {name for name, (reason, _) in found.items() if reason == "duplicate_other_subject"}
        # A photo that several rows name is the first person's.
        assert same == {"dup-k", "fileuri-plain"}
        assert used == {
            "FILE-upper", "absolute", "dash", "dotdot", "double-slash", "enc-space",
            "file-one-slash", "fileuri-encoded", "fileuri-localhost", "hash", "newline", "plus",
            "question",
        }  # fmt: skip
        reasons = {
            "bad_address": {"data-uri", "gs", "nul", "s3-nobucket", "s3a"},
            "secret_in_address": {"http", "https-presigned"},
            "outside_roots": {"dev-zero", "etc-passwd"},
            "not_a_regular_file": {"folder"},
            "unreadable": {"backslash", "home", "leading-space", "nfd", "quoted-inside",
                           "trailing-space"},
        }  # fmt: skip
        for reason, names in reasons.items():
            assert {name for name, (why, _) in found.items() if why == reason} == names
            assert all(found[name][1] for name in names)
        assert "not gs:" in found["gs"][1]
        assert "not s3a:" in found["s3a"][1]
        kept = [path.read_bytes() for path in dest.rglob("*") if path.is_file()]
        for secret in (b"SECRETSIG", b"AKIASECRET"):
            assert not any(
                secret in content for content in [*kept, (answer.out + answer.err).encode()]
            )

    @pytest.mark.parametrize("name", ["s3a", "s3nobucket"])
    def test_one_bad_row_of_the_case_is_one(self, face_data, tmp_path, model, name):
        folder = cases.make(face_data, "22", tmp_path / "case") / "man"
        answer = enroll(folder / f"{name}.parquet", tmp_path / "dest", model, *SETTINGS, "--json")
        assert answer.code == 3, answer.err
        assert answer.json()["reasons"] == {"bad_address": 1}
        assert answer.json()["subjects_enrolled"] == 1

    def test_the_same_manifest_on_a_disk_and_in_a_bucket(self, reached, store, tmp_path, s3):
        """A bucket may hold what a disk cannot, and is not asked for it by a relative address."""
        names = ["a b.jpg", "c%20d.jpg", "sub/e.jpg", "f+g.jpg", "h?x=1.jpg"]
        addresses = {
            "plain": "a b.jpg", "encoded": "a%20b.jpg", "percent": "c%20d.jpg",
            "slashes": ".//sub//e.jpg", "dots": "sub/../sub/./e.jpg", "plus": "f+g.jpg",
            "question": "h?x=1.jpg", "gs": "gs://b/x.jpg", "http": "http://h/x.jpg",
            "s3a": "s3a://b/x.jpg", "no bucket": "s3:///x.jpg", "bad bucket": "s3://A_B!/x.jpg",
            "up": "../x.jpg", "other host": "file://host/x.jpg", "absent": "absent.jpg",
        }  # fmt: skip
        text = "subject_id,uri\n" + "".join(f"{k},{v}\n" for k, v in addresses.items())
        for base in (str(tmp_path / "in"), f"{reached}/in"):
            for name in names:
                store.write(f"{base}/{name}", name.encode())
            store.write(f"{base}/m.csv", text.encode())
        here, there = (
            {
                row["subject_id"]: (
                    row["reason"],
                    row["uri"].removeprefix(base),
                    row["detail"],
                    row["content"],
                )
                for row in listed(f"{base}/m.csv", store)
            }
            for base in (f"{tmp_path}/in/", f"{reached}/in/")
        )
        for name in addresses:
            if name not in ("up", "http"):
                assert here[name] == there[name]
        assert {name: here[name][0] for name in here} == {name: there[name][0] for name in there}
        bad = {name for name in here if here[name][0] == "bad_address"}
        assert bad == {"gs", "http", "s3a", "no bucket", "bad bucket", "other host"}
        read = {name for name in here if here[name][3]}
        assert read == {"plain", "percent", "slashes", "dots", "plus", "question"}
        assert here["encoded"][:2] == ("", "a%20b.jpg")

    @pytest.mark.slow
    def test_rows_that_name_other_buckets(self, reached, tmp_path, s3, face_data, model):
        """One that is not there, one that may not be read, one of a name that is none."""
        photo = next(photos(face_data)).read_bytes()
        here = tmp_path / "in"
        here.mkdir()
        (here / "a.jpg").write_bytes(photo)
        own = reached.removeprefix("s3://")
        lines = [
            "ann,a.jpg", "none,s3://no-such-bucket-at-all/x.jpg", "odd,s3://A_B!/x.jpg",
            f"shut,{reached}/x.jpg", "nobucket,s3:///x.jpg", "up,s3://ABC_/x.jpg",
        ]  # fmt: skip
        text = "\n".join(["subject_id,uri", *lines, ""])
        (here / "m.csv").write_text(text)
        s3.client().put_object(Bucket=own, Key="x.jpg", Body=photo)
        deny(s3, own)
        roots = [
            f"--allow-root={root}" for root in (reached, "s3://no-such-bucket-at-all", "s3://ABC_")
        ]
        dest = tmp_path / "dest"
        answer = enroll(here / "m.csv", dest, model, *SETTINGS, "--json", *roots)
        assert answer.code == 3, answer.err
        found = {row["subject_id"]: row["reason"] for row in cases_rows(dest)}
        assert found == {
            "ann": "",
            "none": "unreadable",
            "odd": "bad_address",
            "shut": "unreadable",
            "nobucket": "bad_address",
            "up": "unreadable",
        }

    def test_the_own_bucket_that_refuses_ends_the_run(self, reached, store, s3):
        own = reached.removeprefix("s3://")
        store.write(f"{reached}/in/a.jpg", b"a")
        store.write(f"{reached}/in/m.csv", b"subject_id,uri\nann,a.jpg\n")
        rows_ = sources.read(f"{reached}/in/m.csv", sources.SourceKind.MANIFEST, store)
        deny(s3, own, key="in/a.jpg")
        with pytest.raises(StorageError, match="access denied"):
            list(rows_)


def deny(s3: S3Server, bucket: str, key: str = "*") -> None:
    """Forbid to read objects of a bucket, to whoever it is."""
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/{key}",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    s3.client().put_bucket_policy(Bucket=bucket, Policy=policy)


def cases_rows(dest: Path) -> list[dict[str, Any]]:
    """Outcomes with what is kept encrypted of them."""
    return [{**row, "detail": told(dest, row).get("detail", "")} for row in rows(dest, "inputs")]


class TestSource:
    @pytest.mark.slow
    def test_the_case_of_two_slashes(self, face_data, tmp_path, reached, model):
        folder = cases.make(face_data, "61", tmp_path / "case")
        bucket = (folder / "bucket").read_text()
        answer = enroll(f"s3://{bucket}//team/faces", tmp_path / "dest", model)
        assert answer.code == 1
        assert "a part of its key is empty or dots" in answer.errors[0]
        assert not (tmp_path / "dest").exists()
        answer = enroll(
            f"s3://{bucket}/team/faces//",
            tmp_path / "dest",
            model,
            *SETTINGS,
            "--dry-run",
            "--json",
        )
        assert answer.json()["subjects"] == 4

    @pytest.mark.parametrize(
        "address",
        [
            "s3://b//x", "s3://b/x//y", "s3://b/./x", "s3://b/x/..", "s3://b/x/../y", "s3://",
            "s3:///x", "s3://A_B!/x", "s3://a b/x", "gs://b/x", "s3a://b/x", "http://h/x",
            "S3://b/x", "file://host/x", "file:x", "file:///%ff", "file:///a%00b",
        ],
    )  # fmt: skip
    def test_what_is_no_source(self, tmp_path, address):
        with pytest.raises(StorageError, match=r"\S"):
            normalise(address)
        answer = ironmask("enroll", address, tmp_path / "dest")
        assert (answer.code, len(answer.errors)) == (1, 1)
        assert not (tmp_path / "dest").exists()

    @pytest.mark.parametrize(
        ("address", "full"),
        [
            ("/a//b/./c/../d/", "/a/b/d"),
            ("/a%20b", "/a%20b"),
            ("file:///a%20b/c", "/a b/c"),
            ("FILE:///a//b/../c", "/a/c"),
            ("file://localhost/a", "/a"),
            ("s3://b/a%20b/", "s3://b/a%20b"),
            ("s3://b", "s3://b"),
        ],
    )
    def test_what_an_address_means(self, address, full):
        assert normalise(address) == full

    def test_a_bucket_of_another_shape(self, reached, store):
        for key in ("flat/1.jpg", "flat/2.jpg", "spark/_SUCCESS", "spark/part-0.parquet"):
            store.write(f"{reached}/{key}", key.encode())
        with pytest.raises(SourceError, match="holds a table in parts"):
            sources.detect(f"{reached}/spark", store)
        found = Census(f"{reached}/flat", sources.SourceKind.FOLDER)
        list(found.passing(sources.read(f"{reached}/flat", found.kind, store)))
        with pytest.raises(SourceError, match="none of its 2 files lies in a folder of a person"):
            found.refuse_nobody()

    def test_the_table_in_a_bucket_is_no_input(self, reached, store):
        base = f"{reached}/in"
        names = {"a": "a.jpg", "b": "dest/b.parquet", "c": f"{base}/x/../dest/c", "d": "dest2/d"}
        for name in ("a.jpg", "dest/b.parquet", "dest/c", "dest2/d"):
            store.write(f"{base}/{name}", name.encode())
        lines = ["subject_id,uri", *(f"{name},{uri}" for name, uri in names.items()), ""]
        store.write(f"{base}/m.csv", "\n".join(lines).encode())
        kind, own = sources.SourceKind.MANIFEST, [f"{base}/dest"]
        rows_ = pa.concat_tables(sources.read(f"{base}/m.csv", kind, store, own=own)).to_pylist()
        assert {row["subject_id"]: row["reason"] for row in rows_} == {
            "a": "", "b": "own_file", "c": "own_file", "d": "",
        }  # fmt: skip
        assert {row["subject_id"] for row in rows_ if row["content"]} == {"a", "d"}

    def test_a_folder_by_its_file_address(self, tmp_path, local_store):
        (tmp_path / "a b" / "ann").mkdir(parents=True)
        (tmp_path / "a b" / "ann" / "1.jpg").write_bytes(b"1")
        source = normalise(f"file://{tmp_path}/a%20b")
        assert [row["subject_id"] for row in listed(source, local_store)] == ["ann"]


LOCALES = [
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "", "LANG": "de_DE.ISO-8859-1", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


class TestLocale:
    def said(
        self, locale: dict[str, str], *arguments: object
    ) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "pipelines.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, env={**os.environ, **locale})

    @pytest.mark.parametrize("locale", few(LOCALES, LOCALES[0]), ids=["C", "latin-1"])
    def test_names_are_utf8(self, tmp_path, locale, model):
        """In arguments, in folders, in manifests: whatever the locale takes them for."""
        source = tmp_path / "Zoë"
        (source / "José").mkdir(parents=True)
        shutil.copy(__file__, source / "José" / "é.jpg")
        bad = Path(os.fsdecode(os.fsencode(source) + b"/Jos\xe9"))
        bad.mkdir()
        (bad / "1.jpg").write_bytes(b"1")
        dest = tmp_path / "dést"
        done = self.said(
            locale, "enroll", source, dest, model, "--executor=local", "--json",
            f"--keys={keys_of(dest)}",
        )  # fmt: skip
        assert done.returncode == 3, done.stderr
        assert json.loads(done.stdout)["dest"] == str(dest)
        found = {row["subject_id"]: row["reason"] for row in cases_rows(dest)}
        assert found == {"José": "not_an_image", "Jos\\xe9": "name_not_utf8"}

    @pytest.mark.parametrize("locale", few(LOCALES, LOCALES[1]), ids=["C", "latin-1"])
    def test_a_manifest_of_another_coding_is_refused(self, tmp_path, locale, model):
        source, dest = tmp_path / "m.csv", tmp_path / "dest"
        source.write_bytes("subject_id,uri\nJosé,a.jpg\n".encode("latin-1"))
        done = self.said(locale, "enroll", source, dest, model, "--dry-run")
        assert done.returncode == 1, done.stdout
        errors = [line for line in done.stderr.splitlines() if line.startswith(b"error: ")]
        assert len(errors) == 1
        assert b"m.csv cannot be read as CSV" in errors[0]

    def test_a_process_that_takes_names_otherwise_reads_none(self):
        code = "from infra.store.objects import FsspecStore; FsspecStore()"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, env={**os.environ, **LOCALES[0]}
        )
        assert b"start it with PYTHONUTF8=1" in done.stderr
