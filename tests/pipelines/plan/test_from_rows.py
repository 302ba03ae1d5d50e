"""A plan from a generation's own files: a shard for each, with its used inputs."""

from __future__ import annotations

import pyarrow as pa
import pytest
from support.destinations import OTHER_RUN, Place, commit, context, enrolled, failed, row, written

from ironmask.errors import TableError, TamperedError
from pipelines.plan import from_rows
from pipelines.plan.arrange import SCHEMA
from pipelines.spec.outcomes import Outcome, Reason
from pipelines.spec.template_job import Purpose


@pytest.fixture
def dest():
    return Place().held()


def renewing(dest, purpose: Purpose = Purpose.ROTATE_MAC):
    return context(dest, purpose=purpose, renews=1, generation=2).job


def planned(dest, purpose: Purpose = Purpose.ROTATE_MAC) -> list[pa.Table]:
    return list(from_rows.planned(renewing(dest, purpose), dest.tables, dest.store))


def test_of_nothing_nothing(dest):
    assert planned(dest) == []


def test_a_shard_for_each_file_which_its_rows_name(dest):
    first = enrolled(dest, ["ann", "bob"])
    second = enrolled(dest, ["cid"], OTHER_RUN)
    tables = planned(dest)
    assert [one.schema.equals(SCHEMA) for one in tables] == [True, True]
    assert [set(one["shard"].to_pylist()) for one in tables] == [{0}, {1}]
    by_people = {tuple(one["subject_id"].to_pylist()): one.to_pylist()[0] for one in tables}
    for people, result in ((("ann", "bob"), first), (("cid",), second)):
        found = by_people[people]
        assert found["detail"] == result.files["templates"].path
        assert found["content"] == result.files["inputs"].path
        assert found["outcome"] is None


def test_only_inputs_that_were_used_are_taken(dest):
    lost = row("dan")
    lost.settle(Outcome.USED, Reason.LOST)
    enrolled(dest, ["ann", failed("bob"), lost])
    (found,) = planned(dest)
    assert found["uri"].to_pylist() == ["ann/0.jpg"]


def test_files_without_templates_are_no_shard(dest):
    enrolled(dest, [failed("bob")])
    enrolled(dest, ["ann"], OTHER_RUN)
    assert [one["subject_id"].to_pylist() for one in planned(dest)] == [["ann"]]


def test_files_whose_people_are_done_are_left_out_and_numbers_have_no_gap(dest):
    for number, run_id in enumerate(("aa" * 6, "bb" * 6, "cc" * 6)):
        enrolled(dest, [f"s{number}"], run_id)
    enrolled(dest, ["s1"], OTHER_RUN, generation=2)
    found = planned(dest)
    assert sorted(one["subject_id"][0].as_py() for one in found) == ["s0", "s2"]
    assert [one["shard"][0].as_py() for one in found] == [0, 1]


def test_a_rekey_tells_no_old_number_by_the_new(dest):
    """Of a rotation the order is fixed; a rekey draws one, so that many are not all the same."""
    for number in range(6):
        enrolled(dest, [f"s{number}"], f"{number:012x}")

    def order(purpose: Purpose) -> tuple[str, ...]:
        return tuple(one["subject_id"][0].as_py() for one in planned(dest, purpose))

    assert len({order(Purpose.ROTATE_MAC) for _ in range(5)}) == 1
    drawn = {order(Purpose.REKEY) for _ in range(8)}
    assert len(drawn) > 1
    assert {frozenset(one) for one in drawn} == {frozenset(f"s{n}" for n in range(6))}


def test_templates_whose_inputs_are_not_listed_stop_it(dest):
    result = written(context(dest), ["ann"])
    commit(dest, result, 1, ["templates"])
    with pytest.raises(TableError, match="is listed, and its inputs are not"):
        planned(dest)


def test_a_damaged_file_is_named(dest):
    result = enrolled(dest, ["ann"])
    uri = f"{dest.tables.dest}/inputs/{result.files['inputs'].path}"
    dest.store.write(uri, b"PAR1 no more")
    with pytest.raises(TamperedError, match="cannot be read as Parquet"):
        planned(dest)
