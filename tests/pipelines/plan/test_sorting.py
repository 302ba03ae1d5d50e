"""Rows sorted by subject outside of memory, and kept together where they are read together."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from itertools import groupby, pairwise
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.plan import sorting, sources
from pipelines.plan.arrange import arrange
from pipelines.plan.naming import Known
from pipelines.plan.sorting import Order, by_subject
from pipelines.plan.windows import by_window
from pipelines.table.identities import Identities
from pipelines.table.text_set import TextSet

SCHEMA = pa.schema([("subject_id", pa.large_string()), ("row", pa.int64())])
# The last one sorts after all others as UTF-8, and before the one before it as UTF-16.
NAMES = ["", "a", "a ", "a-b", "a/b", "b", "B", "\u00e9", "\uff5e", "\U0001f600"]

names = st.lists(st.sampled_from(NAMES), max_size=60)
parts = st.integers(1, 20)


def tables(subjects: list[str], part: int) -> list[pa.Table]:
    rows = pa.table([subjects, range(len(subjects))], schema=SCHEMA)
    return [rows.slice(at, part) for at in range(0, len(rows), part)]


def pairs(found: Any) -> list[tuple[str, int]]:
    return [(row["subject_id"], row["row"]) for table in found for row in table.to_pylist()]


@pytest.fixture
def small_runs(monkeypatch):
    """Runs of a few rows, blocks of one or two."""
    monkeypatch.setattr(sorting, "_RUN_BYTES", 200)
    monkeypatch.setattr(sorting, "_BLOCK_BYTES", 40)


class TestBySubject:
    @given(names, parts)
    def test_in_memory(self, subjects, part):
        rows = list(zip(subjects, range(len(subjects)), strict=True))
        assert pairs(by_subject(tables(subjects, part))) == sorted(rows)

    @given(names, parts)
    def test_by_runs_and_blocks(self, subjects, part):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sorting, "_RUN_BYTES", 200)
            patch.setattr(sorting, "_BLOCK_BYTES", 40)
            rows = list(zip(subjects, range(len(subjects)), strict=True))
            assert pairs(by_subject(tables(subjects, part))) == sorted(rows)

    def test_a_merge_is_what_was_tried(self, small_runs, monkeypatch):
        written = []
        kept = sorting._written
        monkeypatch.setattr(
            sorting, "_written", lambda *of: written.append(kept(*of)) or written[-1]
        )
        subjects = [f"s{n * 7 % 100:02d}" for n in range(100)]
        assert pairs(by_subject(tables(subjects, 3)))[0] == ("s00", 0)
        assert len(written) > 5
        assert all(len(places) > 2 for places in written[:-1])

    def test_its_file_has_no_name(self, small_runs, tmp_path, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        found = by_subject(tables([f"s{n % 7}" for n in range(100)], 3))
        next(found)
        assert os.listdir(tmp_path) == []
        assert any(str(tmp_path) in path for path in _open_files())
        list(found)

    def test_of_nothing_nothing(self):
        assert list(by_subject([])) == []


def _open_files() -> list[str]:
    """What the open files of this process are called, or were once."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the folder's own
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return found


class TestOrder:
    @given(names, parts)
    def test_it_tells_whether_subjects_come_in_order(self, subjects, part):
        order = Order()
        passed = pairs(order.passing(tables(subjects, part)))
        assert [subject for subject, _ in passed] == subjects
        assert order.is_kept == (subjects == sorted(subjects))


class TestWindows:
    @given(names, parts, st.lists(st.integers(1, 60), max_size=4, unique=True))
    def test_subjects_are_where_their_first_row_is(self, subjects, part, more):
        starts = [0, *sorted(more)]
        rows = sorted(zip(subjects, range(len(subjects)), strict=True))
        ordered = pa.Table.from_pylist([{"subject_id": s, "row": r} for s, r in rows], SCHEMA)
        given_ = [ordered.slice(at, part) for at in range(0, len(ordered), part)]

        def window(subject: str) -> int:
            first = subjects.index(subject)
            return max(place for place, start in enumerate(starts) if start <= first)

        wanted = sorted(rows, key=lambda row: (window(row[0]), row))
        assert pairs(by_window(given_, starts)) == wanted


def source(listed: list[tuple[str, str]], part: int) -> list[pa.Table]:
    """(subject, content) pairs as a source gives them, in batches; each has its own row."""
    rows = [
        {"subject_id": subject, "uri": f"{subject}/{content}", "content": content, "row": place}
        for place, (subject, content) in enumerate(listed)
    ]
    whole = pa.Table.from_pylist([{**r, "reason": "", "detail": ""} for r in rows], sources.COLUMNS)
    return [whole.slice(at, part) for at in range(0, len(whole), part)]


def arranged(listed: list[tuple[str, str]], windows=(), size: int = 8) -> list[dict[str, Any]]:
    known = Known(Identities(bytes(32)))
    found = arrange(source(listed, 13), TextSet(), known, size, windows)
    return [row for table in found for row in table.to_pylist()]


class TestArranged:
    @pytest.fixture
    def listed(self) -> list[tuple[str, str]]:
        return [(f"s{n:03d}", f"{n}-{k}") for n in range(100) for k in range(1 + n % 3)]

    @pytest.fixture
    def shuffled(self, listed) -> list[tuple[str, str]]:
        mixed = list(listed)
        Random(7).shuffle(mixed)
        assert mixed != listed
        return mixed

    def test_a_shuffled_source_gives_the_same_shards(self, listed, shuffled, small_runs):
        def shards(rows):
            return [(row["shard"], row["subject_id"]) for row in rows]

        def contents(rows):
            return sorted((row["subject_id"], row["uri"], row["outcome"]) for row in rows)

        ordered, other = arranged(listed), arranged(shuffled)
        assert shards(ordered) == shards(other)
        assert contents(ordered) == contents(other)
        assert [row["uri"] for row in ordered] == ["/".join(one) for one in listed]

    def test_no_two_shards_can_hold_one_subject(self, shuffled):
        rows = arranged(shuffled)
        ranges = [
            (min(own), max(own))
            for _, group in groupby(rows, lambda row: row["shard"])
            if (own := [row["subject_id"] for row in group])
        ]
        assert len(ranges) > 10
        assert all(high < low for (_, high), (low, _) in pairwise(ranges))

    def test_rows_of_a_subject_keep_the_order_of_the_source(self, shuffled):
        rows = arranged(shuffled)
        for _, group in groupby(rows, lambda row: row["subject_id"]):
            places = [row["row"] for row in group]
            assert places == sorted(places)

    def test_of_equal_contents_the_first_in_the_source_is_kept(self):
        rows = arranged([("c", "x"), ("a", "x"), ("b", "y"), ("a", "z"), ("c", "z"), ("a", "x")])
        said = [(row["uri"], row["reason"], row["detail"]) for row in rows]
        other = "another subject has the same content: "
        assert said == [
            ("a/x", "duplicate_other_subject", f"{other}c/x"),
            ("a/z", "", ""),
            ("a/x", "duplicate_other_subject", f"{other}c/x"),
            ("b/y", "", ""),
            ("c/x", "", ""),
            ("c/z", "duplicate_other_subject", f"{other}a/z"),
        ]

    def test_windows_come_one_after_the_other(self, shuffled):
        half = len(shuffled) // 2
        rows = arranged(shuffled, windows=[0, half])
        early = {subject for subject, _ in shuffled[:half]}
        subjects = [row["subject_id"] for row in rows]
        own = [subject for subject in subjects if subject in early]
        rest = [subject for subject in subjects if subject not in early]
        assert rest
        assert subjects == sorted(own) + sorted(rest)
        assert [row["shard"] for row in rows] == sorted(row["shard"] for row in rows)

    def test_a_source_in_order_needs_no_windows(self, listed):
        assert arranged(listed, windows=[0, 50]) == arranged(listed)
