"""The files of a log, column by column: the same files, lines and digest as one by one."""

from __future__ import annotations

import random

import pytest

from pipelines.ports import DataFile
from pipelines.table import list_digest
from pipelines.table.list_digest import digest_of_columns
from pipelines.table.listing import Listing, digest_of, line


def file(name: str, low: str = "", high: str = "", generation: str = "1") -> DataFile:
    ends = [{"subject_id": end} if end else {} for end in (low, high)]
    return DataFile(f"{name}.parquet", len(name), 2, "", {"generation": generation}, *ends)


FILES = [file("b", "ann", "bob"), file("a", "cid", "eve"), file("c"), file('"é', "x", "y", "2")]


def test_files_come_back_in_the_order_of_their_paths():
    assert list(Listing.of(FILES)) == sorted(FILES, key=lambda one: one.path)
    assert Listing.of(FILES)[1] == FILES[1]
    assert list(Listing.of([])) == []


def test_the_digest_is_that_of_the_lines_in_any_order():
    some = random.Random(1).sample(FILES, len(FILES))
    assert digest_of_columns(Listing.of(some).columns) == digest_of(map(line, FILES))
    assert digest_of_columns(Listing.of(FILES[1:]).columns) != digest_of_columns(
        Listing.of(FILES).columns
    )
    assert digest_of_columns(Listing.of([]).columns) == digest_of([])


@pytest.mark.parametrize("names", [["a", "a b", "a!", "a-b", "b"], [f"{n:05d}" for n in range(99)]])
def test_a_digest_made_part_by_part_is_the_same(names, monkeypatch):
    monkeypatch.setattr(list_digest, "_CHUNK", 2)
    files = [DataFile(name, 1, 2, "", {}, {}, {}) for name in names]
    random.Random(2).shuffle(files)
    assert digest_of_columns(Listing.of(files).columns) == digest_of(map(line, files))


def test_a_commit_takes_files_out_and_puts_others_in_their_place():
    again = file("b", "dan", "dan")
    found = Listing.of(FILES).changed([again, file("d")], ["a.parquet"])
    assert list(found) == sorted([again, FILES[2], FILES[3], file("d")], key=lambda one: one.path)


@pytest.mark.parametrize("more", [[], [f"zz{number}" for number in range(20)]])
def test_who_may_be_in_a_file_is_told_by_its_range(more):
    listing = Listing.of(FILES)
    names = [one.path[:-8] for one in listing]
    found = {
        person: {names[place] for place in listing.may_hold([person, *more]).nonzero()[0]}
        for person in ("ann", "bb", "bob", "dan", "xx")
    }
    # Nothing is known of one file, which may hold anybody.
    assert found == {
        "ann": {"b", "c"},
        "bb": {"b", "c"},
        "bob": {"b", "c"},
        "dan": {"a", "c"},
        "xx": {'"é', "c"},
    }


def test_without_statistics_anybody_may_be_anywhere():
    assert Listing.of([file("c")]).may_hold(["ann"]).all()
