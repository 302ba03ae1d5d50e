"""A destination that is held: the one way in which its tables are changed, and only while it is."""

from __future__ import annotations

import pyarrow as pa
import pytest
from support.destinations import commit, context, written

from ironmask.errors import BusyError, TableError
from pipelines.ports import DataFile
from pipelines.table.log_entries import Commit
from pipelines.table.schemas import METRICS


def rows(*values: float) -> pa.Table:
    made = [{"run_id": "r", "name": "n", "label": "l", "value": value, "at": 0} for value in values]
    return pa.Table.from_pylist(made, METRICS)


def values(dest) -> list[float]:
    found: list[float] = dest.tables.table("metrics").rows(["value"])["value"].to_pylist()
    return sorted(found)


def test_rows_are_seen_as_soon_as_they_are_added(place):
    dest = place.held()
    dest.append("metrics", rows(1, 2))
    dest.append("metrics", rows(2))
    assert values(dest) == [1, 2, 2]


def test_under_a_name_they_are_added_once(place):
    dest = place.held()
    dest.append("metrics", rows(1), "first")
    dest.append("metrics", rows(9), "first")
    dest.append("metrics", rows(2), "second")
    assert values(dest) == [1, 2]


def test_also_where_another_process_did(place):
    before = place.held()
    before.append("metrics", rows(1), "first")
    before.log_seal.end()
    dest = place.held()
    dest.append("metrics", rows(9), "first")
    assert values(dest) == [1]
    assert len(place.data()) == 1


def test_the_name_of_a_file_says_its_content(place):
    dest = place.held()
    dest.append("metrics", rows(1))
    (path,) = place.listed("metrics")
    assert path.startswith("rows-")
    dest.store.write(f"{dest.tables.dest}/metrics/{path}", b"other")
    with pytest.raises(Exception, match="is not what was written"):
        values(place.held())


def test_whom_another_run_has_ousted_changes_nothing(place):
    def ousted() -> None:
        raise BusyError("taken over")

    result = written(context(place.held()), ["ann"])
    dest = place.held(check=ousted)
    for change in (
        lambda: dest.append("metrics", rows(1)),
        lambda: commit(dest, result, 1),
        lambda: dest.commit(Commit("inputs", [], "run", 1)),
    ):
        with pytest.raises(BusyError):
            change()
    assert not any(place.listed(name) for name in ("metrics", "templates", "inputs"))


def test_what_somebody_else_added_is_refused(place):
    dest = place.held()
    file = DataFile("stray.parquet", 1, 1, "", {}, {}, {})
    place.tables.table("inputs").commit([file], "somebody", 1)
    with pytest.raises(TableError, match="is not what the run that holds the seal"):
        dest.append("metrics", rows(1))
    assert not place.listed("metrics")


def test_sequences_are_those_that_the_seal_vouches_for(place):
    dest = place.held()
    assert dest.sequence("inputs", "run") == 0
    result = written(context(dest), ["ann"])
    commit(dest, result, 4)
    commit(dest, result, 4)
    commit(dest, result, 3)
    run_id = context(dest).plan.run_id
    assert dest.sequence("inputs", f"{run_id}/inputs") == 4
    assert len(place.listed("inputs")) == 1


def test_keys_and_holds_are_not_shown(place):
    assert "Tink" not in repr(place.held())
