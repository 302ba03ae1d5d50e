"""Stored embeddings of a shard: the rows that were planned, from the file that was planned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.destinations import WIDTH, job, vectors

from ironmask.errors import SourceError
from pipelines.run.begin import prepare_plan
from pipelines.shard.context import Context
from pipelines.shard.embeddings import load_embeddings
from pipelines.table.identities import of_vector

SOURCE = job().source


def put(store, people: list[str], embeddings, group: int = 1 << 20) -> None:
    column = pa.array(
        [None if one is None else list(map(float, one)) for one in embeddings],
        pa.list_(pa.float32()),
    )
    sink = pa.BufferOutputStream()
    names = pa.array(people, pa.string())
    table = pa.table({"subject_id": names, "embedding": column})
    pq.write_table(table, sink, row_group_size=group)
    store.write(SOURCE, memoryview(sink.getvalue()))


def planned(place, shard_size: int = 256) -> Context:
    dest = place.held()
    asked = job(shard_size=shard_size)
    frozen = prepare_plan(asked, dest)
    return Context(asked, frozen, place.tables.table_id, place.store, dest.keys)


def test_each_row_has_its_embedding_and_its_name(place):
    own = vectors(3)
    put(place.store, ["ann", "bob", "cid"], own)
    rows, found = load_embeddings(planned(place), 0)
    assert [one.subject_id for one in rows.rows] == ["ann", "bob", "cid"]
    assert rows.indices == [0, 1, 2]
    assert np.array_equal(found, own)
    assert found.dtype == np.float32
    assert [one.contents for one in rows.rows] == [[of_vector(one)] for one in own]


def test_shards_read_the_row_groups_that_hold_them(place):
    own = vectors(7)
    put(place.store, [f"s{n}" for n in range(7)], own, group=2)
    context = planned(place, shard_size=3)
    found = [load_embeddings(context, number) for number in range(context.plan.shards)]
    assert [one.subject_id for rows, _ in found for one in rows.rows] == [f"s{n}" for n in range(7)]
    assert np.array_equal(np.concatenate([vectors for _, vectors in found]), own)


def test_people_whose_rows_lie_apart_are_together(place):
    own = vectors(4)
    put(place.store, ["ann", "bob", "ann", "bob"], own, group=1)
    rows, found = load_embeddings(planned(place), 0)
    assert [one.subject_id for one in rows.rows] == ["ann", "ann", "bob", "bob"]
    assert np.array_equal(found, own[[0, 2, 1, 3]])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (None, "0 values where the table has 64"),
        ([1.0] * 3, "3 values where the table has 64"),
        ([1.0] * (WIDTH + 1), "65 values"),
        ([], "0 values"),
    ],
)
def test_one_of_another_width_fails_and_the_others_stay(place, wrong, said):
    put(place.store, ["ann", "bob"], [wrong, vectors(1)[0]])
    rows, found = load_embeddings(planned(place), 0)
    assert (rows.rows[0].outcome, rows.rows[0].reason) == ("failed", "wrong_width")
    assert said in rows.rows[0].detail
    assert (rows.indices, found.shape) == ([1], (1, WIDTH))


def test_where_none_can_be_used_the_width_stays(place):
    put(place.store, ["ann"], [[1.0]])
    rows, found = load_embeddings(planned(place), 0)
    assert (rows.indices, found.shape) == ([], (0, WIDTH))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39, 0.0])
def test_values_are_left_to_whoever_protects_them(place, value):
    put(place.store, ["ann"], [[value] * WIDTH])
    rows, found = load_embeddings(planned(place), 0)
    assert rows.indices == [0]
    assert rows.rows[0].contents == []
    assert found.shape == (1, WIDTH)


def test_a_file_that_was_replaced_is_refused(place):
    put(place.store, ["ann"], vectors(1))
    context = planned(place)
    put(place.store, ["ann"], vectors(1, seed=5))
    with pytest.raises(SourceError, match="was replaced after the run was planned"):
        load_embeddings(context, 0)


def test_a_row_of_another_person_now_is_not_theirs(place):
    """The version that the plan names is the same: somebody has forged it."""
    put(place.store, ["ann", "bob"], vectors(2))
    context = planned(place)
    put(place.store, ["bob", "ann"], vectors(2))
    forged = replace(context.plan, source_version=place.store.version(SOURCE))
    rows, found = load_embeddings(replace(context, plan=forged), 0)
    assert {(one.outcome, one.reason) for one in rows.rows} == {("failed", "changed_since_plan")}
    assert len(found) == 0
