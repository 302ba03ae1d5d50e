"""The frozen plan: whole subjects in shards, duplicates, digest, file."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.store.objects import FsspecStore
from ironmask.errors import StorageError, TableError
from pipelines.plan import plans, sources
from pipelines.plan.arrange import arrange
from pipelines.plan.naming import Known
from pipelines.table.identities import Identities
from pipelines.table.text_set import TextSet

Inputs = list[tuple[str, str | None]]
IDENTITIES = Identities(bytes(32))


def source(inputs: Inputs, **settled: Any) -> pa.Table:
    """(subject, content) pairs as a source gives them."""
    content = [
        {"subject_id": subject, "uri": f"u{place}", "content": found, "reason": "", "detail": ""}
        for place, (subject, found) in enumerate(inputs)
    ]
    return pa.Table.from_pylist([{**row, **settled} for row in content], sources.COLUMNS)


def build(inputs: Inputs, live=(), used=(), shard_size: int = 4) -> list[dict[str, Any]]:
    return arranged([source(inputs)], live, used, shard_size)


def arranged(batches, live=(), used=(), shard_size: int = 4) -> list[dict[str, Any]]:
    known = Known(IDENTITIES, texts(IDENTITIES.all_named(used)))
    tables = arrange(batches, texts(live), known, shard_size)
    return [row for table in tables for row in table.to_pylist()]


def texts(names) -> TextSet:
    return TextSet([pa.array(list(names), pa.string())])


def reasons(rows: list[dict[str, Any]]) -> list[str]:
    return [row["reason"] for row in rows]


# Whole subjects of one to nine inputs, in the order a source lists them.
sizes = st.lists(st.integers(1, 9), min_size=1, max_size=30)


class TestShards:
    @given(sizes, st.integers(1, 12))
    def test_whole_subjects_without_gaps(self, counts, shard_size):
        inputs = [(f"s{n:02d}", None) for n, count in enumerate(counts) for _ in range(count)]
        rows = build(inputs, shard_size=shard_size)
        assert [row["uri"] for row in rows] == [f"u{n}" for n in range(len(inputs))]
        numbers = [row["shard"] for row in rows]
        assert numbers == sorted(numbers)
        assert sorted(set(numbers)) == list(range(numbers[-1] + 1))
        homes: dict[str, set[int]] = {}
        for row in rows:
            homes.setdefault(row["subject_id"], set()).add(row["shard"])
        assert all(len(found) == 1 for found in homes.values())

    @given(sizes, st.integers(1, 12))
    def test_no_shard_is_much_larger_than_asked(self, counts, shard_size):
        inputs = [(f"s{n}", None) for n, count in enumerate(counts) for _ in range(count)]
        numbers = [row["shard"] for row in build(inputs, shard_size=shard_size)]
        assert max(np.bincount(numbers)) <= shard_size + max(counts) - 1


class TestDuplicates:
    def test_same_content_of_one_subject(self):
        rows = build([("a", "x"), ("a", "x"), ("a", "y"), ("a", "x")])
        assert reasons(rows) == ["", "duplicate_content", "", "duplicate_content"]
        assert [row["outcome"] for row in rows] == [None, "duplicate", None, "duplicate"]
        assert rows[1]["detail"] == "same content as u0"

    def test_same_content_of_another_subject(self):
        rows = build([("a", "x"), ("b", "x"), ("b", "y"), ("c", "x"), ("c", "x")])
        other = "duplicate_other_subject"
        assert reasons(rows) == ["", other, "", other, other]
        assert rows[1]["detail"] == "another subject has the same content: u0"

    def test_unknown_content_is_never_a_duplicate(self):
        assert reasons(build([("a", None), ("a", None), ("b", None)])) == ["", "", ""]

    def test_content_in_use_is_refused(self):
        rows = build([("a", "x"), ("a", "y"), ("b", "x")], used=["x"])
        other = "duplicate_other_subject"
        assert reasons(rows) == [other, "", other]
        assert {row["outcome"] for row in rows if row["reason"]} == {"duplicate"}

    def test_live_subjects_are_skipped_first(self):
        rows = build([("a", "x"), ("b", "y"), ("b", "x")], live=["a"], used=["x"])
        assert reasons(rows) == ["already_enrolled", "", "duplicate_other_subject"]
        assert rows[0]["outcome"] == "skipped"

    def test_a_skipped_input_is_no_original(self):
        """A live subject's photo must not make another's look like its copy without cause."""
        assert reasons(build([("a", "x"), ("b", "x")], live=["a"])) == ["already_enrolled", ""]

    def test_settled_inputs_stay_as_they_are(self):
        table = source([("a", "x"), ("a", "x")], outcome="failed", reason="name_not_utf8")
        rows = arranged([table], ["a"], ["x"])
        assert reasons(rows) == ["name_not_utf8"] * 2

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["x", "y", None]))))
    def test_each_known_content_is_kept_once(self, drawn):
        inputs: Inputs = sorted([("a", "z"), *drawn], key=lambda item: item[0])
        rows = build(inputs)
        kept = [row["content"] for row in rows if row["outcome"] is None and row["content"]]
        named = IDENTITIES.all_named({content for _, content in inputs if content})
        assert sorted(kept) == sorted(named)


subjects = st.sampled_from(["", "a", "b", "c", "d", "e"])
contents = st.sampled_from(["u", "v", "w", "x", "y", None])


def naive(batches: list[Inputs], live: set[str], used: set[str], size: int) -> list[Any]:
    """The same rules over the whole source at once."""
    rows: list[Any] = []
    first: dict[str, tuple[str, str]] = {}
    starts: dict[str, int] = {}
    for place, (subject, content) in enumerate(item for batch in batches for item in batch):
        starts.setdefault(subject, place)
        uri = f"u{place}"
        if subject in live:
            reason = "already_enrolled"
        elif content in used:
            reason = "duplicate_other_subject"
        elif content is None or content not in first:
            reason = ""
            first[content or uri] = subject, uri
        else:
            same = first[content][0] == subject
            reason = "duplicate_content" if same else "duplicate_other_subject"
        rows.append((subject, uri, reason, starts[subject] // size))
    raw = sorted({row[3] for row in rows})
    return [(*row[:3], raw.index(row[3])) for row in rows]


class TestStreaming:
    @given(
        st.lists(st.lists(st.tuples(subjects, contents), max_size=7), max_size=6),
        st.sets(subjects, max_size=2),
        st.sets(st.sampled_from(["u", "v", "w"]), max_size=2),
        st.integers(1, 5),
    )
    def test_batches_give_what_the_whole_gives(self, drawn, live, used, size):
        """However the source is cut, also within a subject."""
        everything = sorted((i for batch in drawn for i in batch), key=lambda item: item[0])
        cuts = np.cumsum([0, *map(len, drawn)])
        batches = [everything[a:b] for a, b in pairwise(cuts)]
        tables, place = [], 0
        for batch in batches:
            if batch:
                table = source(batch)
                uris = pa.array([f"u{place + n}" for n in range(len(batch))], pa.large_string())
                tables.append(table.set_column(1, table.schema.field("uri"), uris))
                place += len(batch)
        rows = arranged(tables, live, used, size)
        found = [(r["subject_id"], r["uri"], r["reason"], r["shard"]) for r in rows]
        assert found == naive(batches, live, used, size)

    def test_a_full_temporary_folder_is_named(self, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", "/dev/full-of-nothing")
        with pytest.raises(StorageError, match=r"/dev/full-of-nothing: .* TMPDIR"):
            build([("a", "x")])


class TestFile:
    @pytest.fixture
    def write(self, tmp_path: Path, local_store: FsspecStore):
        def written(inputs: Inputs, shard_size: int = 2, name: str = "p") -> plans.Plan:
            rows = arrange([source(inputs)], TextSet(), Known(IDENTITIES), shard_size)
            uri = str(tmp_path / name)
            return plans.write(rows, "0123456789ab", uri, {"settings": "s"}, local_store)

        return written

    def test_round_trip(self, write, local_store):
        inputs: Inputs = [("a", "1"), ("a", "1"), ("b\n\u00e9", None), ("c", "3"), ("d", "1")]
        frozen = write(inputs)
        assert plans.load(frozen.uri, local_store) == (frozen, {"settings": "s"})
        assert (frozen.inputs, frozen.subjects, frozen.shards, frozen.todo) == (5, 4, 3, 3)
        rows = [row for n in range(frozen.shards) for row in frozen.shard(n, local_store)]
        assert rows == build(inputs, shard_size=2)
        assert rows == [r for t in plans.tables(frozen, local_store) for r in t.to_pylist()]

    def test_one_row_group_a_shard(self, write, local_store):
        frozen = write([(f"s{n}", None) for n in range(10)], shard_size=3)
        for number in range(frozen.shards):
            assert {row["shard"] for row in frozen.shard(number, local_store)} == {number}

    def test_the_digest_depends_on_the_inputs_alone(self, write):
        inputs: Inputs = [("a", "1"), ("b", "2")]
        assert write(inputs).digest == write(inputs, name="elsewhere").digest

    @pytest.mark.parametrize(
        "other",
        [
            [("a", "1"), ("b", "3")],
            [("a", "1"), ("c", "2")],
            [("b", "2"), ("a", "1")],
            [("a", "1")],
            [("a", "1"), ("b", "2"), ("c", "3")],
            [("a", "1"), ("b", None)],
        ],
    )
    def test_the_digest_changes_with_any_input(self, write, other):
        assert write([("a", "1"), ("b", "2")]).digest != write(other).digest

    def test_the_digest_changes_with_the_shards(self, write):
        inputs: Inputs = [("a", "1"), ("b", "2"), ("c", "3")]
        assert write(inputs, shard_size=1).digest != write(inputs, shard_size=2).digest

    def test_fields_do_not_run_together(self, write):
        assert write([('a", "', "1")]).digest != write([("a", '", "1')]).digest

    def test_many_shards_lie_in_several_parts(self, write, local_store, monkeypatch):
        monkeypatch.setattr("pipelines.plan.plans.PART_SHARDS", 3)
        frozen = write([(f"s{n:02d}", None) for n in range(17)], shard_size=2)
        assert len(list(Path(frozen.uri).glob("part-*.parquet"))) == 3
        found = [row["uri"] for n in range(frozen.shards) for row in frozen.shard(n, local_store)]
        assert found == [f"u{n}" for n in range(17)]

    def test_a_missing_plan(self, tmp_path, local_store):
        with pytest.raises(StorageError, match="does not exist"):
            plans.load(str(tmp_path / "absent"), local_store)

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": "other"}'])
    def test_what_is_no_plan(self, tmp_path, local_store, content):
        (tmp_path / "plan.json").write_bytes(content)
        with pytest.raises(TableError, match=r"plan\.json cannot be read as a plan"):
            plans.load(str(tmp_path), local_store)

    def test_another_parquet_is_no_part(self, write, local_store):
        import pyarrow.parquet as pq

        frozen = write([("a", "1")])
        pq.write_table(pa.table({"a": [1]}), Path(frozen.uri) / "part-00000.parquet")
        with pytest.raises(TableError, match="is not what was frozen"):
            frozen.shard(0, local_store)

    def test_damage_never_passes(self, write, local_store):
        """Whatever byte of a part is changed: the same rows come back, or a named error."""
        frozen = write([(f"subject {n}", f"sha256:{n:064x}") for n in range(12)], shard_size=6)
        sound = [frozen.shard(number, local_store) for number in range(frozen.shards)]
        assert plans.verify(frozen, local_store) == []
        path = Path(frozen.uri) / "part-00000.parquet"
        content = path.read_bytes()
        for place in range(0, len(content), 9):
            damaged = bytearray(content)
            damaged[place] ^= 0x20
            path.write_bytes(damaged)
            assert plans.verify(frozen, local_store) == [f"{path} is not what was frozen"]
            assert plans.digest_of(frozen, local_store) != frozen.digest
            plans._part.cache_clear()
            try:
                found = [frozen.shard(number, local_store) for number in range(frozen.shards)]
            except (TableError, StorageError):
                continue
            assert found == sound
        path.unlink()
        assert plans.verify(frozen, local_store) == [f"{path} does not exist"]

    def test_shards_cover_the_plan(self, write, local_store):
        frozen = write([(f"s{n // 2}", None) for n in range(9)], shard_size=4)
        subjects = [
            [row["subject_id"] for row in frozen.shard(n, local_store)]
            for n in range(frozen.shards)
        ]
        for one, following in pairwise(subjects):
            assert not set(one) & set(following)
        assert sum(map(len, subjects)) == frozen.inputs
