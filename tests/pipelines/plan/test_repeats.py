"""Of equal contents the first in the source counts, wherever the others lie."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pyarrow as pa
import pytest

from pipelines.plan import repeats, sorting
from pipelines.plan.sources import COLUMNS
from pipelines.table import text_set
from pipelines.table.text_set import Sorter, TextSet, hashes

Row = tuple[str, str, str | None, str | None]
"""Subject, address, content and outcome."""


def tables(rows: list[Row], each: int) -> Iterator[pa.Table]:
    for start in range(0, len(rows), each):
        names = zip(*rows[start : start + each], strict=True)
        known = dict(zip(("subject_id", "uri", "content", "outcome"), names, strict=True))
        columns = [
            pa.array(known.get(field.name, [None] * len(known["uri"])), field.type)
            for field in COLUMNS
        ]
        yield pa.Table.from_arrays(columns, schema=COLUMNS)


def repeated(rows: list[Row]) -> TextSet:
    sorter = Sorter(repeats=True)
    for table in tables(rows, 5):
        sorter.add(hashes(table["content"].filter(repeats.may_repeat(table))))
    return TextSet.of(sorter.repeated())


def expected(rows: list[Row]) -> dict[int, tuple[bool, str]]:
    """What a reader of the whole source would say."""
    first: dict[str, Row] = {}
    found = {}
    for number, row in enumerate(rows):
        subject, _, content, outcome = row
        if content is None or outcome is not None:
            continue
        if content in first:
            found[number] = (first[content][0] == subject, first[content][1])
        first.setdefault(content, row)
    return found


def told(rows: list[Row], each: int) -> dict[int, tuple[bool, str]]:
    found, start = {}, 0
    for table, later in repeats.found(lambda: tables(rows, each), repeated(rows)):
        found |= {start + row: (same, uri) for row, same, uri in later}
        start += len(table)
    assert start == len(rows)
    return found


@pytest.fixture(params=[False, True], ids=["in memory", "on disk"])
def small(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(sorting, "_RUN_BYTES", 2000)
        monkeypatch.setattr(sorting, "_BLOCK_BYTES", 300)
        monkeypatch.setattr(text_set, "IN_MEMORY", 16)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("each", [1, 7, 1000])
@pytest.mark.parametrize("contents", [3, 40, 400])
def test_each_later_input_names_the_first_one(contents: int, each: int) -> None:
    drawn = random.Random(f"{contents} {each}")
    rows: list[Row] = [
        (
            f"s{drawn.randrange(30)}",
            f"{number}.jpg",
            None if drawn.random() < 0.1 else f"content {drawn.randrange(contents)}",
            "failed" if drawn.random() < 0.1 else None,
        )
        for number in range(300)
    ]
    assert told(rows, each) == expected(rows) != {}


def test_without_repeated_contents_the_source_is_read_once():
    rows: list[Row] = [(f"s{n}", f"{n}.jpg", f"content {n}", None) for n in range(20)]
    reads = []

    def source() -> Iterator[pa.Table]:
        reads.append(1)
        return tables(rows, 6)

    assert [later for _, later in repeats.found(source, repeated(rows))] == [[]] * 4
    assert len(reads) == 1


def test_a_hash_counts_as_repeated_in_different_runs_as_well(monkeypatch):
    monkeypatch.setattr(text_set, "IN_MEMORY", 8)
    sorter = Sorter(repeats=True)
    names = [f"text {number}" for number in range(100)]
    for name in [*names, "text 3", "text 99", "text 3"]:
        sorter.add(hashes(pa.array([name])))
    found = TextSet.of(sorter.repeated())
    assert len(found) == 2
    assert found.has(pa.array(["text 3", "text 99", "text 4"])).tolist() == [True, True, False]
