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

from infra.storage import FsspecStore
from ironmask.errors import StorageError, TableError
from pipelines import plan, sources

NONE = pa.array([], pa.string())
Inputs = list[tuple[str, str | None]]


def source(inputs: Inputs, **settled: Any) -> pa.Table:
    """(subject, content) pairs as a source gives them."""
    content = [
        {"subject_id": subject, "uri": f"u{place}", "content": found, "reason": "", "detail": ""}
        for place, (subject, found) in enumerate(inputs)
    ]
    return pa.Table.from_pylist([{**row, **settled} for row in content], sources.COLUMNS)


def build(inputs: Inputs, live=(), used=(), shard_size: int = 4) -> list[dict[str, Any]]:
    held = [pa.array(list(names), pa.string()) for names in (live, used)]
    return plan.build([source(inputs)], *held, shard_size).to_pylist()


def reasons(rows: list[dict[str, Any]]) -> list[str]:
    return [row["reason"] for row in rows]


# Whole subjects of one to nine inputs, in the order a source lists them.
sizes = st.lists(st.integers(1, 9), min_size=1, max_size=30)


class TestShards:
    @given(sizes, st.integers(1, 12))
    def test_whole_subjects_without_gaps(self, counts, shard_size):
        inputs = [(f"s{n}", None) for n, count in enumerate(counts) for _ in range(count)]
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
        rows = plan.build([table], pa.array(["a"]), pa.array(["x"]), 4).to_pylist()
        assert reasons(rows) == ["name_not_utf8"] * 2

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["x", "y", None]))))
    def test_each_known_content_is_kept_once(self, drawn):
        inputs: Inputs = sorted([("a", "z"), *drawn], key=lambda item: item[0])
        rows = build(inputs)
        kept = [row["content"] for row in rows if row["outcome"] is None and row["content"]]
        assert sorted(kept) == sorted({content for _, content in inputs if content})


class TestFile:
    @pytest.fixture
    def write(self, tmp_path: Path, local_store: FsspecStore):
        def written(inputs: Inputs, shard_size: int = 2, name: str = "p") -> plan.Plan:
            table = plan.build([source(inputs)], NONE, NONE, shard_size)
            uri = str(tmp_path / f"{name}.parquet")
            return plan.write(table, "0123456789ab", uri, {"settings": "s"}, local_store)

        return written

    def test_round_trip(self, write, local_store):
        inputs: Inputs = [("a", "1"), ("a", "1"), ("b\n\u00e9", None), ("c", "3"), ("d", "1")]
        frozen = write(inputs)
        assert plan.load(frozen.uri, local_store) == (frozen, {"settings": "s"})
        assert (frozen.inputs, frozen.subjects, frozen.shards, frozen.todo) == (5, 4, 3, 3)
        rows = [row for n in range(frozen.shards) for row in frozen.shard(n, local_store)]
        assert rows == plan.build([source(inputs)], NONE, NONE, 2).to_pylist()

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

    def test_a_missing_plan(self, tmp_path, local_store):
        with pytest.raises(StorageError, match="does not exist"):
            plan.load(str(tmp_path / "absent.parquet"), local_store)

    @pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 4096])
    def test_what_is_no_plan(self, tmp_path, local_store, content):
        path = tmp_path / "p.parquet"
        path.write_bytes(content)
        with pytest.raises(TableError, match=r"p\.parquet cannot be read as a plan"):
            plan.load(str(path), local_store)

    def test_another_parquet_is_no_plan(self, tmp_path, local_store):
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"a": [1]}), tmp_path / "p.parquet")
        with pytest.raises(TableError, match="cannot be read as a plan"):
            plan.load(str(tmp_path / "p.parquet"), local_store)

    def test_damage_never_passes(self, write, local_store):
        """Whatever byte is changed: the same rows come back, or a named error."""
        frozen = write([(f"subject {n}", f"sha256:{n:064x}") for n in range(12)], shard_size=6)
        sound = [frozen.shard(number, local_store) for number in range(frozen.shards)]
        path = Path(frozen.uri)
        content = path.read_bytes()
        refused = 0
        for place in range(0, len(content), 9):
            damaged = bytearray(content)
            damaged[place] ^= 0x20
            path.write_bytes(damaged)
            try:
                loaded, _ = plan.load(frozen.uri, local_store)
                found = [loaded.shard(number, local_store) for number in range(frozen.shards)]
            except (TableError, StorageError):
                refused += 1
                continue
            if loaded == frozen:
                assert found == sound
        assert refused > len(content) // 18
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(TableError):
            plan.load(frozen.uri, local_store)

    def test_shards_cover_the_plan(self, write, local_store):
        frozen = write([(f"s{n // 2}", None) for n in range(9)], shard_size=4)
        subjects = [
            [row["subject_id"] for row in frozen.shard(n, local_store)]
            for n in range(frozen.shards)
        ]
        for one, following in pairwise(subjects):
            assert not set(one) & set(following)
        assert sum(map(len, subjects)) == frozen.inputs
