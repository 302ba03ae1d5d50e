"""How far a manifest reaches, what its addresses may hold, and what it takes of memory."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.command import ironmask
from support.enrolling import enroll
from support.pictures import photos
from support.s3 import S3Server
from support.table import keys_of, rows

from infra.settings import load as load_settings
from infra.store.objects import FsspecStore
from ironmask.errors import ParameterError, SourceError
from pipelines.enrolment.request import EnrolRequest
from pipelines.plan import manifest, sources, tabular
from pipelines.plan.reach import Reach
from pipelines.setup import ports
from pipelines.spec.addresses import has_secret, resolved, scrubbed, shown
from pipelines.spec.outcomes import Reason
from pipelines.spec.template_job import SourceKind
from pipelines.spec.workplace import Workplace


def write(path: Path, pairs: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([("subject_id", "uri"), *pairs])
    return path


def listed(source: Any, store: FsspecStore, *roots: str) -> list[dict[str, Any]]:
    kind = sources.detect(str(source), store)
    found = sources.read(str(source), kind, store, 1 << 20, roots)
    return pa.concat_tables([sources.COLUMNS.empty_table(), *found]).to_pylist()


def reasons(found: list[dict[str, Any]]) -> dict[str, str]:
    return {row["subject_id"]: row["reason"] for row in found}


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A folder with a photo, beside another folder with one."""
    for name in ("in/a.jpg", "in/deep/b.jpg", "out/c.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "in"


class TestReach:
    def test_what_lies_outside_is_one_failed_input_each(self, people, local_store, tmp_path):
        (people / "link.jpg").symlink_to(tmp_path / "out" / "c.jpg")
        (people / "inner.jpg").symlink_to("deep/b.jpg")
        (people / "folder").symlink_to(tmp_path / "out")
        source = write(
            people / "m.csv",
            {
                "ok": "a.jpg",
                "deep": "deep/../deep/./b.jpg",
                "inner": "inner.jpg",
                "up": "../out/c.jpg",
                "absolute": tmp_path / "out" / "c.jpg",
                "link": "link.jpg",
                "folder": "folder/c.jpg",
                "encoded": f"file://{tmp_path}/in/%2e%2e/out/c.jpg",
                "memory": "/proc/self/mem",
                "shadow": "/etc/shadow",
                "bucket": "s3://anywhere/c.jpg",
                "sibling": f"{people}side/c.jpg",
            }.items(),
        )
        found = listed(source, local_store)
        outside = {row["subject_id"] for row in found if row["reason"] == Reason.OUTSIDE_ROOTS}
        assert outside == {
            "up", "absolute", "link", "folder", "encoded", "memory", "shadow", "bucket", "sibling",
        }  # fmt: skip
        for row in found:
            if row["subject_id"] in outside:
                assert (row["outcome"], row["content"]) == ("failed", None)
                assert "--allow-root" in row["detail"]
            else:
                assert row["outcome"] is None
                assert row["content"].startswith("sha256:")

    def test_roots_that_are_named_are_reached(self, people, local_store, tmp_path):
        source = write(people / "m.csv", [("c", "../out/c.jpg"), ("d", "/etc/hostname")])
        found = listed(source, local_store, str(tmp_path / "out"))
        assert reasons(found) == {"c": "", "d": "outside_roots"}

    def test_a_manifest_behind_a_link_reaches_the_folder_that_it_is_named_in(
        self, people, local_store, tmp_path
    ):
        real = write(tmp_path / "elsewhere" / "m.csv", [("a", "a.jpg")])
        (people / "m.csv").symlink_to(real)
        assert reasons(listed(people / "m.csv", local_store)) == {"a": ""}

    def test_links_of_a_tree_may_stay_in_it_and_not_leave_it(self, tmp_path, local_store):
        tree, out = tmp_path / "tree", tmp_path / "out"
        for path in (tree / "ann" / "1.jpg", tree / "bob" / "2.jpg", out / "eve" / "3.jpg"):
            path.parent.mkdir(parents=True)
            path.write_bytes(path.name.encode())
        (tree / "ann" / "in.jpg").symlink_to("../bob/2.jpg")
        (tree / "ann" / "out.jpg").symlink_to(out / "eve" / "3.jpg")
        (tree / "bob" / "folder").symlink_to(out)
        (tree / "eve").symlink_to(out / "eve")
        (tree / "root").symlink_to("/")
        found = listed(tree, local_store)
        by_uri = {os.path.relpath(row["uri"], tree): row["reason"] for row in found}
        assert by_uri == {
            "ann/1.jpg": "",
            "ann/in.jpg": "link_elsewhere",
            "ann/out.jpg": "outside_roots",
            "bob/2.jpg": "",
            "bob/folder": "outside_roots",
            "eve": "outside_roots",
            "root": "outside_roots",
        }
        allowed = listed(tree, local_store, str(out))
        by_uri = {os.path.relpath(row["uri"], tree): row["reason"] for row in allowed}
        assert by_uri["ann/out.jpg"] == by_uri["bob/folder/eve/3.jpg"] == by_uri["eve/3.jpg"] == ""
        assert by_uri["root"] == "outside_roots"

    def test_a_tree_behind_a_link_is_the_tree(self, people, local_store, tmp_path):
        (tmp_path / "tree" / "ann").mkdir(parents=True)
        (tmp_path / "tree" / "ann" / "1.jpg").write_bytes(b"1")
        (tmp_path / "alias").symlink_to("tree")
        assert reasons(listed(tmp_path / "alias", local_store)) == {"ann": ""}

    def test_what_is_no_regular_file_fails_and_is_not_waited_for(self, people, local_store):
        os.mkfifo(people / "pipe.jpg")
        found = list(
            local_store.read_many(
                [
                    str(people / "pipe.jpg"), "/dev/zero", str(people / "deep"), "/proc/self/mem",
                    "/proc/kmsg", "/sys/kernel/profiling", str(people / "a.jpg"),
                ],
                1000,
            )
        )  # fmt: skip
        assert [getattr(one, "reason", one) for one in found[:4]] == ["not_a_regular_file"] * 4
        assert all(isinstance(one, OSError) for one in found[:-1])
        assert found[-1] == b"in/a.jpg"

    def test_a_pipe_that_takes_a_files_place(self, people, local_store, monkeypatch):
        """What was a file when it was looked at may be a pipe when it is opened."""
        pipe, file = people / "pipe.jpg", os.stat(people / "a.jpg")
        os.mkfifo(pipe)
        monkeypatch.setattr(os, "stat", lambda *_, **__: file)
        (found,) = local_store.read_many([str(pipe)], 1000)
        assert found.reason == Reason.NOT_A_REGULAR_FILE

    def test_a_bucket_is_reached_below_the_manifests_folder(
        self, s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
    ):
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)
        text = "subject_id,uri\n" + "".join(
            f"{subject},{uri}\n"
            for subject, uri in {
                "ok": "a.jpg",
                "dots": "deep/../a.jpg",
                "up": "../other/b.jpg",
                "side": f"{bucket}/input/c.jpg",
                "else": "s3://another-bucket/in/a.jpg",
                "disk": "/etc/passwd",
                "file": "file:///etc/passwd",
                "none": "s3:///x.jpg",
                "above": "../../../x.jpg",
            }.items()
        )
        name = bucket.removeprefix("s3://")
        contents = {"in/m.csv": text, "in/a.jpg": "a", "other/b.jpg": "b", "input/c.jpg": "c"}
        for key, content in contents.items():
            s3.client().put_object(Bucket=name, Key=key, Body=content.encode())
        store = ports.open_store(load_settings()[1])
        outside = dict.fromkeys(["up", "side", "else", "disk", "file"], "outside_roots")
        bad = dict.fromkeys(["none", "above"], "bad_address")
        sound = {"ok": "", "dots": ""}
        assert reasons(listed(f"{bucket}/in/m.csv", store)) == {**sound, **outside, **bad}
        found = listed(f"{bucket}/in/m.csv", store, f"{bucket}/other", "/etc")
        assert reasons(found)["up"] == reasons(found)["disk"] == ""


class TestRuns:
    @pytest.fixture
    def model(self, face_data: Path) -> str:
        return f"--model={face_data / 'models' / 'buffalo_sc'}"

    @pytest.mark.slow
    def test_a_run_survives_and_a_retry_takes_what_was_allowed(self, tmp_path, face_data, model):
        found = photos(face_data)
        near = tmp_path / "in" / "near.jpg"
        near.parent.mkdir()
        near.write_bytes(next(found).read_bytes())
        far = tmp_path / "out" / "far.jpg"
        far.parent.mkdir()
        far.write_bytes(next(found).read_bytes())
        source = write(
            tmp_path / "in" / "m.csv",
            [("ann", "near.jpg"), ("bob", far), ("mem", "/proc/self/mem"), ("pass", "/etc/passwd")],
        )
        dest = tmp_path / "dest"
        settings = ("--alpha=16", "--tolerance=4", model, "--json")
        answer = enroll(source, dest, *settings)
        assert answer.code == 3, answer.err
        assert answer.json()["reasons"] == {"outside_roots": 3}
        assert not any(
            row["identities"] for row in rows(dest, "inputs") if row["outcome"] != "used"
        )
        root = f"--allow-root={far.parent}"
        again = enroll(source, dest, *settings, "--retry-failed=outside_roots", root)
        assert (again.json()["used"], again.json()["reasons"]) == (1, {"outside_roots": 2})
        configured = [json.loads(row["config"])["job"] for row in rows(dest, "runs")]
        assert [str(far.parent)] in [job["allow_roots"] for job in configured]
        keys = f"--keys={keys_of(dest)}"
        done = ironmask("reprotect", dest, model, keys, "--executor=local", "--json")
        assert done.code == 0, done.err
        assert {row["subject_id"] for row in rows(dest, "templates")} == {"ann", "bob"}

    def test_a_link_that_is_turned_after_the_plan_is_not_followed(self, tmp_path, face_data, model):
        folder = tmp_path / "in"
        folder.mkdir()
        photo = next(photos(face_data)).read_bytes()
        (folder / "real.jpg").write_bytes(photo)
        (tmp_path / "outside.jpg").write_bytes(photo)
        (folder / "a.jpg").symlink_to("real.jpg")
        source, dest = write(folder / "m.csv", [("ann", "a.jpg")]), tmp_path / "dest"
        code = (
            "import os, sys\nfrom pipelines import cli\nfrom pipelines.plan import plans\n"
            "write = plans.write\n"
            "def turn(*a, **k):\n"
            f"    made = write(*a, **k); os.unlink({str(folder / 'a.jpg')!r})\n"
            f"    os.symlink({str(tmp_path / 'outside.jpg')!r}, {str(folder / 'a.jpg')!r})\n"
            "    return made\n"
            "plans.write = turn\ncli.main()\n"
        )
        command = [sys.executable, "-c", code, "enroll", str(source), str(dest), model]
        command += [f"--keys={keys_of(dest)}", "--executor=local"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 3, done.stderr
        (row,) = rows(dest, "inputs")
        assert (row["reason"], row["identities"]) == ("outside_roots", None)

    def test_no_secret_of_an_address_is_kept_or_said(self, tmp_path, face_data, model):
        folder = tmp_path / "in"
        folder.mkdir()
        (folder / "a.jpg").write_bytes(next(photos(face_data)).read_bytes())
        source = write(
            folder / "m.csv",
            [
                ("ann", "a.jpg"),
                ("v4", "https://b.s3/x.jpg?X-Amz-Credential=C4NARY&X-Amz-Signature=C4NARY"),
                ("v2", "https://b.s3/x.jpg?AWSAccessKeyId=C4NARY&Signature=C4NARY&Expires=1"),
                ("sas", "https://a.blob/c/x.jpg?sv=1&sig=C4NARY%2F"),
                ("user", "s3://AKIA:C4NARY@bucket/x.jpg"),
                ("pass", "https://user:C4N/ARY@host/x.jpg"),
                ("key", "s3://bucket/x.jpg?X-Amz-Security-Token=C4NARY"),
                ("relative", "x.jpg?X-Amz-Signature=C4NARY"),
                ("", "https://b.s3/x.jpg?sig=C4NARY"),
                ("data", "data:image/jpeg;base64,C4NARY"),
            ],
        )
        dest = tmp_path / "dest"
        environment = {**os.environ, "IRONMASK_LOG_LEVEL": "debug"}
        command = [sys.executable, "-m", "pipelines.cli", "enroll", str(source), str(dest), model]
        command += [f"--keys={keys_of(dest)}", "--executor=local", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 3, done.stderr
        assert json.loads(done.stdout)["reasons"] == {
            "secret_in_address": 7,
            "bad_address": 1,
            "no_subject": 1,
        }
        said = (done.stdout + done.stderr).encode()
        kept = [path.read_bytes() for path in dest.rglob("*") if path.is_file()]
        texts = [json.dumps(rows(dest, name), default=str).encode() for name in ("inputs", "runs")]
        plans = [
            json.dumps(pq.ParquetFile(path).read().to_pylist()).encode()
            for path in dest.rglob("plans/**/*.parquet")
        ]
        for secret in (b"C4NARY", b"C4N/ARY", b"ARY@"):
            assert not any(secret in text for text in [said, *kept, *texts, *plans])

    @pytest.mark.parametrize(
        "address",
        [
            "s3://AKIA:C4NARY@bucket/prefix",
            "s3://bucket/prefix?X-Amz-Signature=C4NARY",
            "https://host/faces?sig=C4NARY",
            "faces?X-Amz-Signature=C4NARY",
        ],
    )
    def test_options_that_carry_secrets_are_refused(self, tmp_path, address, model):
        source = tmp_path / "faces"
        source.mkdir()
        commands = [
            ["enroll", address, tmp_path / "d", model],
            ["enroll", source, address, model],
            ["enroll", source, tmp_path / "d", model, f"--allow-root={address}"],
            ["enroll", source, tmp_path / "d", f"--model={address}"],
            ["enroll", source, tmp_path / "d", model, f"--keys={address}"],
            ["inspect", address],
            ["evaluate", address, tmp_path / "o"],
            ["models", "pull", "buffalo_sc", f"--source={address}"],
        ]
        for command in commands:
            answer = ironmask(*command)
            assert answer.code != 0
            assert len(answer.errors) == 1, (command, answer.err)
            assert "carries credentials" in answer.errors[0], (command, answer.err)
            assert "C4NARY" not in answer.err + answer.out
        assert not (tmp_path / "d").exists()

    def test_a_cluster_with_credentials_is_refused(self):
        with pytest.raises(ParameterError, match="--ray-address carries"):
            Workplace(ray_address="ray://user:C4NARY@head:10001")
        assert EnrolRequest("a", "b").inputs.allow_roots == ()


class TestAddresses:
    @pytest.mark.parametrize(
        ("address", "text"),
        [
            ("/a/b c.jpg", "/a/b c.jpg"),
            ("a?b*c[d].jpg", "a?b*c[d].jpg"),
            ("h?x=1.jpg", "h?x=1.jpg"),
            ("s3://b/k@2x.jpg", "s3://b/k@2x.jpg"),
            ("s3://b/design=1/x.jpg", "s3://b/design=1/x.jpg"),
            ("http://h:80/a@b.jpg", "http://h:80/a@b.jpg"),
            ("https://h/x?y=1", "https://h/x?<removed>"),
            ("https://u:p/w@h/x", "https://h/x"),
            ("s3://b/x?X-Goog-Signature=1", "s3://b/x?<removed>"),
            ("x%3FX-Amz-Signature%3D1", "x%3F<removed>"),
            ("https://h/x#access_token=1", "https://h/x#<removed>"),
        ],
    )
    def test_what_is_shown(self, address, text):
        assert shown(address) == text == shown(text)
        assert has_secret(address) == (address != text)

    def test_texts_of_libraries(self):
        text = "no answer from 'https://u:p@h/x?a=b' (X-Amz-Signature=abc&x=1)"
        assert scrubbed(text) == (
            "no answer from 'https://h/x?<removed>' (X-Amz-Signature=<removed>&x=1)"
        )

    @pytest.mark.parametrize(
        ("address", "on_disk", "in_bucket"),
        [
            ("a%20b.jpg", "/m/a%20b.jpg", "s3://b/m/a%20b.jpg"),
            ("x/../y//z.jpg", "/m/y/z.jpg", "s3://b/m/y/z.jpg"),
            ("./x.jpg", "/m/x.jpg", "s3://b/m/x.jpg"),
            ("s3://b/x//y.jpg", "s3://b/x//y.jpg", "s3://b/x//y.jpg"),
            ("S3://b/x/../y%20.jpg", "s3://b/y%20.jpg", "s3://b/y%20.jpg"),
            ("12:30.jpg", "/m/12:30.jpg", "s3://b/m/12:30.jpg"),
            ("../x.jpg", "/x.jpg", "s3://b/x.jpg"),
            ("file:///a%20b.jpg", "/a b.jpg", "/a b.jpg"),
            ("FILE://localhost/a.jpg", "/a.jpg", "/a.jpg"),
            ("file:/a.jpg", "/a.jpg", "/a.jpg"),
        ],
    )
    def test_what_an_address_means(self, address, on_disk, in_bucket):
        assert resolved(address, "/m") == on_disk
        assert resolved(address, "s3://b/m") == in_bucket

    @pytest.mark.parametrize(
        "address",
        [
            "s3:///x.jpg", "s3://b", "s3://b/", "s3://b/../x", "http://h/x.jpg", "s3a://b/x",
            "data:image/png;base64,AA", "file://host/x.jpg", "file:x.jpg", "file:///%ff.jpg",
            "a\0b", "file:///a%00b", "s3://A_B!/x", "s3://a b/x", "s3://b\u00e9/x", "gs://b/x",
        ],
    )  # fmt: skip
    def test_what_no_input_can_have(self, address):
        with pytest.raises(ValueError, match=r"\S"):
            resolved(address, "/m")


MEASURE = """
import sys
from pathlib import Path
from infra.store.objects import FsspecStore
from pipelines.plan import manifest
count = sum(1 for _ in manifest._sorted_pairs(sys.argv[1], FsspecStore()))
status = Path("/proc/self/status").read_text()
print(count, next(line.split()[1] for line in status.splitlines() if "VmHWM" in line))
"""


class TestMemory:
    def measured(self, source: Path) -> tuple[int, int]:
        """Rows, and the most KiB that reading them took."""
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(source)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        assert done.returncode == 0, done.stderr
        count, peak = done.stdout.split()
        return int(count), int(peak)

    @pytest.mark.slow
    def test_a_small_file_of_many_equal_texts(self, tmp_path):
        """Some hundred KiB that stand for 2 GiB of text, in one row group."""
        rows_, size = 250_000, 4_000
        codes = pa.array(np.arange(rows_, dtype=np.int32) % 3)
        texts = [
            pa.DictionaryArray.from_arrays(codes, pa.array([letter * size for letter in letters]))
            for letters in ("bac", "xyz")
        ]
        source = tmp_path / "m.parquet"
        table = pa.table({"subject_id": texts[0], "uri": texts[1]})
        pq.write_table(table, source, row_group_size=rows_, compression="zstd")
        assert source.stat().st_size < 300_000
        small = write(tmp_path / "small.csv", [("a", "b")])
        _, least = self.measured(small)
        count, peak = self.measured(source)
        assert count == rows_
        assert peak - least < 400_000

    def test_runs_are_merged_in_order(self, tmp_path, local_store, monkeypatch):
        names = [f"s{number:04d}" for number in np.random.default_rng(1).permutation(3000) % 700]
        pairs = [(name, f"{place}.jpg") for place, name in enumerate(names)]
        source = write(tmp_path / "m.csv", pairs)
        whole = list(manifest._sorted_pairs(str(source), local_store))
        monkeypatch.setattr(manifest, "_RUN_BYTES", 1 << 10)
        monkeypatch.setattr(manifest, "_BLOCK_BYTES", 200)
        monkeypatch.setattr(tabular, "_PART_ROWS", 64)
        assert list(manifest._sorted_pairs(str(source), local_store)) == whole
        assert whole == sorted(pairs, key=lambda pair: pair[0])
        rows_ = list(
            manifest.listed(str(source), local_store, Reach((str(tmp_path),), local_store))
        )
        assert [(row.subject, Path(row.uri).name) for row in rows_] == whole

    @pytest.mark.parametrize("name", ["subject_id", "uri"])
    def test_a_text_that_is_no_name_is_refused(self, tmp_path, local_store, name):
        columns = {"subject_id": ["a", "b"], "uri": ["c", "d"]}
        columns[name][1] = "x" * (tabular.MOST_TEXT + 1)
        pq.write_table(pa.table(columns), tmp_path / "m.parquet")
        with pytest.raises(SourceError, match=rf"column {name} holds a text of 32,769 bytes"):
            listed(tmp_path / "m.parquet", local_store)

    def test_a_row_group_that_no_memory_may_take_is_refused(
        self, tmp_path, local_store, monkeypatch
    ):
        source = tmp_path / "m.parquet"
        pq.write_table(pa.table({"subject_id": ["a"] * 9, "uri": list("abcdefghi")}), source)
        monkeypatch.setattr(tabular, "_MOST_GROUP", 20)
        with pytest.raises(SourceError, match=r"row group 0.*smaller row groups"):
            listed(source, local_store)

    def test_a_row_without_an_end_is_refused(self, tmp_path, local_store):
        source = tmp_path / "m.csv"
        source.write_text('subject_id,uri\nann,"' + "x\n" * (2 << 20))
        with pytest.raises(SourceError, match=r"m\.csv cannot be read as CSV"):
            listed(source, local_store)

    @pytest.mark.parametrize(
        "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
    )
    def test_every_type_of_text(self, tmp_path, local_store, kind):
        (tmp_path / "x.jpg").write_bytes(b"x")
        table = pa.table({"subject_id": ["b", "a", None], "uri": ["x.jpg", "x.jpg", "x.jpg"]})
        fields = [pa.field(name, kind) for name in table.column_names]
        pq.write_table(table.cast(pa.schema(fields)), tmp_path / "m.parquet")
        assert reasons(listed(tmp_path / "m.parquet", local_store)) == {
            "": "no_subject",
            "a": "",
            "b": "",
        }

    def test_kinds_of_source_are_told_as_before(self, tmp_path, local_store):
        source = write(tmp_path / "m.csv", [("a", "b")])
        assert sources.detect(str(source), local_store) is SourceKind.MANIFEST

    @pytest.mark.parametrize("blocks", [1, 2, 3])
    def test_rows_lie_across_the_blocks_of_a_csv(self, tmp_path, local_store, blocks):
        rows_ = [(f"s{number:07d}", f"{number:0100d}.jpg") for number in range(blocks * 10_000)]
        source = write(tmp_path / "m.csv", rows_)
        assert source.stat().st_size > blocks << 20
        assert list(manifest._sorted_pairs(str(source), local_store)) == rows_
