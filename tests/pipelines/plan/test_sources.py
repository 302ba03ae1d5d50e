"""Listing inputs: folder trees, manifests, Parquet files of embeddings."""

from __future__ import annotations

import os
from collections import defaultdict
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.enrolling import unit_vectors, write_embeddings
from support.s3 import S3Server

from infra.settings import load as load_settings
from infra.store.objects import FsspecStore
from ironmask.errors import SourceError, StorageError
from pipelines.plan import sources
from pipelines.plan.subject_folders import cut_by_folder
from pipelines.plan.windows import starts_of
from pipelines.ports import Entry
from pipelines.setup import ports
from pipelines.spec.template_job import SourceKind


def read(
    source: Path,
    kind: SourceKind,
    store: FsspecStore,
    limit: int | None = None,
    allow_roots: tuple[str, ...] = (),
    key_before: bytes | None = None,
) -> list[dict[str, Any]]:
    tables = list(sources.read(str(source), kind, store, limit, allow_roots, key_before))
    for table in tables:
        assert table.schema == sources.COLUMNS
    return pa.concat_tables([sources.COLUMNS.empty_table(), *tables]).to_pylist()


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def settled(rows: list[dict[str, Any]]) -> dict[str, tuple[str | None, str]]:
    return {os.path.basename(row["uri"]): (row["outcome"], row["reason"]) for row in rows}


class TestFolder:
    @pytest.fixture
    def tree(self, tmp_path: Path, local_store: FsspecStore):
        root = tmp_path / "tree"
        root.mkdir()
        return root, lambda: read(root, SourceKind.FOLDER, local_store)

    def test_subject_is_the_folder_and_content_is_hashed(self, tree):
        root, listed = tree
        put(root / "bob" / "2.jpg", b"two")
        put(root / "ann" / "1.jpg", b"one")
        rows = listed()
        assert [(row["subject_id"], row["uri"]) for row in rows] == [
            ("ann", str(root / "ann" / "1.jpg")),
            ("bob", str(root / "bob" / "2.jpg")),
        ]
        assert rows[0]["content"] == f"sha256:{sha256(b'one').hexdigest()}"
        assert all(row["outcome"] is None and row["row"] is None for row in rows)

    def test_deeper_folders_belong_to_the_subject(self, tree):
        root, listed = tree
        put(root / "ann" / "2019" / "may" / "1.jpg", b"1")
        put(root / "ann" / "2020" / "1.jpg", b"2")
        put(root / "ann" / "z.jpg", b"3")
        assert {row["subject_id"] for row in listed()} == {"ann"}
        assert len(listed()) == 3

    def test_hidden_files_and_folders_are_skipped(self, tree):
        root, listed = tree
        put(root / "ann" / "1.jpg", b"1")
        put(root / "ann" / ".DS_Store", b"2")
        put(root / "ann" / ".thumbnails" / "small.jpg", b"3")
        put(root / ".cache" / "old.jpg", b"4")
        hidden = ("skipped", "hidden_file")
        assert settled(listed()) == {
            "1.jpg": (None, ""),
            ".DS_Store": hidden,
            "small.jpg": hidden,
            "old.jpg": hidden,
        }

    def test_a_dot_in_the_way_to_the_source_hides_nothing(self, tmp_path, local_store):
        put(tmp_path / ".private" / "faces" / "ann" / "1.jpg")
        rows = read(tmp_path / ".private" / "faces", SourceKind.FOLDER, local_store)
        assert settled(rows) == {"1.jpg": (None, "")}

    def test_files_outside_a_subject_are_skipped(self, tree):
        root, listed = tree
        put(root / "readme.txt")
        put(root / ".hidden")
        put(root / "ann" / "1.jpg")
        assert settled(listed()) == {
            "readme.txt": ("skipped", "no_subject"),
            ".hidden": ("skipped", "hidden_file"),
            "1.jpg": (None, ""),
        }

    def test_an_empty_subject_has_one_row(self, tree):
        root, listed = tree
        (root / "ann").mkdir()
        (root / "bob" / "deep" / "deeper").mkdir(parents=True)
        assert [(r["subject_id"], r["outcome"], r["reason"]) for r in listed()] == [
            ("ann", "skipped", "empty_subject"),
            ("bob", "skipped", "empty_subject"),
        ]

    @pytest.mark.parametrize(
        "name",
        [
            "José Ñandú",
            "李小龙",
            "with space",
            "a=b",
            "100%",
            "%2e%2e",
            "line\nbreak",
            "#1",
            "a?b*c[d]",
            "quote'\"",
            "back\\slash",
            "~",
            "-rf",
            "x" * 255,
            "007",
        ],
    )
    def test_odd_names_come_back_as_they_are(self, tree, name, local_store):
        root, listed = tree
        put(root / name / name, b"content")
        (row,) = listed()
        assert (row["subject_id"], row["uri"]) == (name, str(root / name / name))
        assert row["outcome"] is None
        assert local_store.read(row["uri"]) == b"content"

    def test_names_that_are_not_utf8_fail_readably(self, tree):
        root, listed = tree
        folder = os.fsencode(root / "ann")
        os.mkdir(folder)
        Path(os.fsdecode(folder + b"/caf\xe9.jpg")).write_bytes(b"1")
        put(root / "ann" / "fine.jpg")
        bad = Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe"))
        put(bad / "2.jpg", b"2")
        rows = listed()
        assert settled(rows) == {
            "caf\\xe9.jpg": ("failed", "name_not_utf8"),
            "fine.jpg": (None, ""),
            "2.jpg": ("failed", "name_not_utf8"),
        }
        assert {row["subject_id"] for row in rows} == {"ann", "\\xff\\xfe"}

    def test_what_cannot_be_read_has_no_content_yet(self, tree):
        root, listed = tree
        (root / "ann").mkdir()
        (root / "ann" / "gone.jpg").symlink_to(root / "nowhere")
        (row,) = listed()
        assert (row["content"], row["outcome"]) == (None, None)

    def test_subjects_stay_whole_over_batches(self, tree, monkeypatch):
        root, listed = tree
        for number in range(10):
            put(root / f"s{number // 3}" / f"{number}.jpg", b"%d" % number)
        whole = listed()
        monkeypatch.setattr(sources, "_BATCH", 2)
        assert listed() == whole
        assert [row["content"] for row in whole] == [
            f"sha256:{sha256(b'%d' % number).hexdigest()}" for number in range(10)
        ]


class TestBucket:
    @pytest.fixture
    def put_keys(self, s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch):
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)

        def put_all(*keys: str) -> str:
            name = bucket.removeprefix("s3://")
            for key in keys:
                s3.client().put_object(Bucket=name, Key=key, Body=key.encode())
            return f"{bucket}/in"

        return put_all

    @pytest.mark.slow
    def test_the_same_rows_as_of_a_folder(self, put_keys, tmp_path):
        """Names around the slash in byte order, deep folders, files beside them, hidden ones."""
        names = [
            "a/1.jpg", "a/deep/2.jpg", "a/.hidden", "a-b/1.jpg", "a0/1.jpg", "a.jpg", "b/1.jpg",
            ".h/1.jpg", "é ü/1.jpg",
        ]  # fmt: skip
        source = put_keys(*(f"in/{name}" for name in names), "in2/c/1.jpg", "other")
        for name in names:
            put(tmp_path / "in" / name, f"in/{name}".encode())
        store = ports.open_store(load_settings()[1])
        there = list(sources.read(source, SourceKind.FOLDER, store))
        here = read(tmp_path / "in", SourceKind.FOLDER, store)
        rows = pa.concat_tables(there).to_pylist()
        assert all(row["content"].startswith("md5:") for row in rows if not row["outcome"])

        def facts(found: list[dict[str, Any]], base: str) -> list[tuple[object, ...]]:
            wanted = ("subject_id", "outcome", "reason", "detail")
            return sorted(
                (row["uri"].removeprefix(base), *(str(row[name]) for name in wanted))
                for row in found
            )

        assert facts(rows, source) == facts(here, str(tmp_path / "in"))
        subjects = [row["subject_id"] for row in rows]
        assert len(list(groupby(subjects))) == len(set(subjects))

    def test_keys_that_come_apart_are_refused(self):
        keys = ["a/1", "b/1", "a/2"]
        found = iter([Entry(f"s3://b/in/{key}", 1) for key in keys])
        with pytest.raises(SourceError, match="s3://b/in: the server does not list"):
            list(cut_by_folder("s3://b/in", found))

    def test_a_key_with_an_empty_part_is_refused(self):
        found = iter([Entry("s3://b/in//1.jpg", 1)])
        with pytest.raises(SourceError, match=r"s3://b/in//1\.jpg: a part of its key is empty"):
            list(cut_by_folder("s3://b/in/", found))


class TestManifest:
    @pytest.fixture
    def csv(self, tmp_path: Path, local_store: FsspecStore):
        def listed(content: str | bytes) -> list[dict[str, Any]]:
            data = content.encode() if isinstance(content, str) else content
            path = put(tmp_path / "m.csv", data)
            return read(path, SourceKind.MANIFEST, local_store, allow_roots=("s3://b",))

        return listed

    def test_relative_addresses_start_at_the_manifest(self, csv, tmp_path):
        put(tmp_path / "in" / "1.jpg", b"one")
        far = put(tmp_path / "far.jpg", b"two")
        rows = csv(f"subject_id,uri\nann,in/1.jpg\nbob,{far}\ncid,file://{far}\n")
        assert [row["uri"] for row in rows] == [
            str(tmp_path / "in" / "1.jpg"),
            str(far),
            str(far),
        ]
        assert [row["content"] for row in rows] == [
            f"sha256:{sha256(content).hexdigest()}" for content in (b"one", b"two", b"two")
        ]

    def test_a_store_that_cannot_be_asked_is_no_fault_of_an_image(self, csv, monkeypatch):
        monkeypatch.setenv("IRONMASK_S3_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("IRONMASK_S3_ALLOW_HTTP", "true")
        with pytest.raises(StorageError, match="s3://b/k"):
            csv("subject_id,uri\nann,s3://b/k\n")

    def test_ids_stay_text(self, csv):
        rows = csv("subject_id,uri\n007,a\n7,b\n1e3,c\nNA,d\nnull,e\nnan,f\ntrue,g\n")
        assert {row["subject_id"] for row in rows} == {
            "007", "7", "1e3", "NA", "null", "nan", "true",
        }  # fmt: skip
        assert {row["outcome"] for row in rows} == {None}

    def test_quotes_commas_and_line_breaks(self, csv, tmp_path):
        rows = csv('subject_id,uri\n"a,""b""","x y.jpg"\n"two\nlines",z\n')
        assert [(row["subject_id"], row["uri"]) for row in rows] == [
            ('a,"b"', str(tmp_path / "x y.jpg")),
            ("two\nlines", str(tmp_path / "z")),
        ]

    def test_a_byte_order_mark_is_no_part_of_the_header(self, csv):
        assert [row["subject_id"] for row in csv("\ufeffsubject_id,uri\nann,a\n")] == ["ann"]

    def test_a_very_long_id(self, csv):
        assert csv(f"subject_id,uri\n{'x' * 1000},a\n")[0]["subject_id"] == "x" * 1000

    def test_absent_values_fail(self, csv):
        rows = csv('subject_id,uri\n,a\n"",b\nann,\nann,c\n" ",d\n')
        assert sorted((row["subject_id"], row["reason"]) for row in rows if row["outcome"]) == [
            ("", "no_subject"),
            ("", "no_subject"),
            ("", "no_subject"),
            ("ann", "bad_address"),
        ]
        assert {row["outcome"] for row in rows if row["outcome"]} == {"failed"}
        assert sum(row["outcome"] is None for row in rows) == 1

    def test_other_columns_do_not_matter(self, csv):
        assert csv("note,uri,subject_id\n1,a,ann\n")[0]["subject_id"] == "ann"

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("subject,uri\na,b\n", "lacks the column subject_id"),
            ("id,path\na,b\n", "lacks the column subject_id and uri"),
            ("subject_id,uri,uri\na,b,c\n", "has the column uri more than once"),
        ],
    )
    def test_a_missing_or_repeated_column_is_named(self, csv, content, words):
        with pytest.raises(SourceError, match=words):
            csv(content)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"subject_id,uri\na,b,c\n",
            b"subject_id,uri\n\xff,a",
            b"subject_id,uri,n\xe9\na,b,c\n",
        ],
    )
    def test_what_is_no_csv_is_refused(self, csv, content):
        with pytest.raises(SourceError, match=r"m\.csv cannot be read as CSV"):
            csv(content)

    def test_numeric_ids_of_a_parquet_become_text(self, tmp_path, local_store):
        path = tmp_path / "m.parquet"
        pq.write_table(pa.table({"subject_id": [7, None, 12], "uri": ["a", "b", "c"]}), path)
        rows = read(path, SourceKind.MANIFEST, local_store)
        assert sorted((row["subject_id"], row["outcome"]) for row in rows if row["subject_id"]) == [
            ("12", None),
            ("7", None),
        ]
        assert [row["outcome"] for row in rows if not row["subject_id"]] == ["failed"]

    def test_ids_that_are_no_text_are_refused(self, tmp_path, local_store):
        path = tmp_path / "m.parquet"
        pq.write_table(pa.table({"subject_id": [[1]], "uri": ["a"]}), path)
        with pytest.raises(SourceError, match="subject_id holds no text"):
            read(path, SourceKind.MANIFEST, local_store)

    def test_a_damaged_parquet_is_refused(self, tmp_path, local_store):
        path = put(tmp_path / "m.parquet", b"PAR1 and nothing else")
        with pytest.raises(SourceError, match="cannot be read as Parquet"):
            sources.detect(str(path), local_store)

    def test_subjects_stay_together_over_batches(self, tmp_path, local_store):
        """An unusable row late in a batch must not part a subject that spans two batches."""
        count = 4100
        subjects = [f"s{number // 3:05d}" for number in range(count)]
        addresses: list[str | None] = [f"{number}.jpg" for number in range(count)]
        subjects.append("zoe")
        addresses.append(None)
        path = tmp_path / "m.parquet"
        pq.write_table(pa.table({"subject_id": subjects, "uri": addresses}), path)
        assert_together(read(path, SourceKind.MANIFEST, local_store), count + 1)


def assert_together(rows: list[dict[str, Any]], count: int) -> None:
    assert len(rows) == count
    places = defaultdict(list)
    for place, row in enumerate(rows):
        places[row["subject_id"]].append(place)
    for found in places.values():
        assert found == list(range(found[0], found[0] + len(found)))


class TestEmbeddings:
    @pytest.fixture
    def parquet(self, tmp_path: Path, local_store: FsspecStore):
        path = tmp_path / "e.parquet"

        def listed(subjects: list[Any], embedding: Any) -> list[dict[str, Any]]:
            pq.write_table(pa.table({"subject_id": subjects, "embedding": embedding}), path)
            assert sources.detect(str(path), local_store) is SourceKind.EMBEDDINGS
            return read(path, SourceKind.EMBEDDINGS, local_store)

        return path, listed

    @pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
    @pytest.mark.parametrize("shape", [pa.list_, pa.large_list, lambda t: pa.list_(t, 64)])
    def test_every_float_and_list_type(self, parquet, local_store, kind, shape):
        path, listed = parquet
        narrow = kind.to_pandas_dtype()
        vectors = [v.astype(narrow) for v in unit_vectors(3)]
        column = pa.array([list(v) for v in vectors], shape(kind))
        rows = listed(["b", "a", "b"], column)
        assert [(row["subject_id"], row["row"]) for row in rows] == [("b", 0), ("a", 1), ("b", 2)]
        assert [row["uri"] for row in rows] == [f"{path}#row={row['row']}" for row in rows]
        assert all(row["content"].startswith("vec:") for row in rows)
        assert sources.embedding_width(str(path), local_store) == 64

    def test_equal_directions_have_equal_contents_under_one_key(self, parquet, local_store):
        path, listed = parquet
        first, second = unit_vectors(2)
        column = pa.array([list(first), list(second), list(first)])
        rows = listed(["a", "b", "c"], column)
        by_subject = {row["subject_id"]: row["content"] for row in rows}
        assert by_subject["a"] == by_subject["c"] != by_subject["b"]
        scaled = pa.array([list(3 * first), list(-first), list(second)], pa.list_(pa.float64()))
        again = {row["subject_id"]: row["content"] for row in listed(["a", "b", "c"], scaled)}
        assert again["a"] == by_subject["a"]
        assert again["b"] not in by_subject.values()
        assert again["c"] == by_subject["b"]
        before = read(path, SourceKind.EMBEDDINGS, local_store, key_before=bytes(31) + b"1")
        assert {row["content"] for row in before} == set(again.values())
        assert not {row["before"] for row in before} & {None, *again.values()}

    def test_no_content_where_there_is_no_direction(self, parquet):
        _, listed = parquet
        bad = [None, [], [0.0] * 64, [np.nan] * 64, [None] * 64, [np.inf] + [0.0] * 63]
        column = pa.array(bad, pa.list_(pa.float32()))
        rows = listed([f"s{n}" for n in range(len(bad))], column)
        assert [row["content"] for row in rows] == [None] * len(bad)
        assert [row["outcome"] for row in rows] == [None] * len(bad)

    def test_rows_without_a_subject_are_skipped(self, parquet):
        _, listed = parquet
        rows = listed(["a", None, ""], pa.array([[1.0] * 64] * 3))
        assert [(row["subject_id"], row["reason"]) for row in rows] == [
            ("a", ""),
            ("", "no_subject"),
            ("", "no_subject"),
        ]

    def test_numeric_ids_become_text(self, parquet):
        _, listed = parquet
        assert listed([7], pa.array([[1.0] * 64]))[0]["subject_id"] == "7"

    def test_rows_come_as_they_lie(self, parquet):
        _, listed = parquet
        subjects = [f"s{n % 700}" for n in range(5000)]
        vectors = pa.array(list(unit_vectors(5000, width=4)))
        rows = listed(subjects, vectors)
        assert [row["row"] for row in rows] == list(range(5000))
        assert [row["subject_id"] for row in rows] == subjects

    def test_windows_are_whole_row_groups_that_fit(self, tmp_path, local_store):
        path = tmp_path / "e.parquet"
        table = pa.table({"subject_id": list("abcdefg"), "embedding": list(unit_vectors(7))})
        pq.write_table(table, path, row_group_size=2, use_dictionary=False, compression=None)
        group = pq.read_metadata(path).row_group(0).total_byte_size
        assert starts_of(str(path), local_store, 9 * group) == [0]
        assert starts_of(str(path), local_store, 2 * group) == [0, 4]
        assert starts_of(str(path), local_store, 1) == [0, 2, 4, 6]

    def test_the_commonest_width_counts(self, tmp_path, local_store):
        wide, narrow = unit_vectors(3), unit_vectors(1, width=63)
        path = write_embeddings(tmp_path / "e.parquet", list("abcd"), [narrow[0], *wide])
        assert sources.embedding_width(str(path), local_store) == 64

    @pytest.mark.parametrize(
        "column", [pa.array(["x"]), pa.array([1.0]), pa.array([["x"]]), pa.array([[[1.0]]])]
    )
    def test_what_is_no_list_of_floats_is_refused(self, parquet, local_store, column):
        path, listed = parquet
        with pytest.raises(SourceError, match="must hold lists of floats"):
            listed(["a"], column)
        with pytest.raises(SourceError, match="must hold lists of floats"):
            sources.embedding_width(str(path), local_store)

    def test_a_missing_column_is_named(self, tmp_path, local_store):
        path = tmp_path / "e.parquet"
        pq.write_table(pa.table({"embedding": [[1.0]]}), path)
        with pytest.raises(SourceError, match="lacks the column subject_id"):
            sources.embedding_width(str(path), local_store)

    def test_no_row_no_width(self, tmp_path, local_store):
        path = write_embeddings(tmp_path / "e.parquet", [], [])
        with pytest.raises(SourceError, match="holds no embeddings"):
            sources.embedding_width(str(path), local_store)


class TestDetect:
    def test_kinds(self, tmp_path, local_store):
        put(tmp_path / "m.CSV", b"subject_id,uri\n")
        manifest = tmp_path / "m.parquet"
        pq.write_table(pa.table({"subject_id": ["a"], "uri": ["b"]}), manifest)
        stored = write_embeddings(tmp_path / "e.parquet", ["a"], unit_vectors(1))
        found = {
            path: sources.detect(str(path), local_store)
            for path in (tmp_path, tmp_path / "m.CSV", manifest, stored)
        }
        assert list(found.values()) == ["folder", "manifest", "manifest", "embeddings"]

    def test_what_is_none(self, tmp_path, local_store):
        with pytest.raises(SourceError, match="does not exist"):
            sources.detect(str(tmp_path / "absent"), local_store)
        with pytest.raises(SourceError, match="neither a folder nor"):
            sources.detect(str(put(tmp_path / "a.zip")), local_store)
