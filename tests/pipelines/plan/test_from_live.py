"""What is taken again is known by its content, wherever it lies now."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.destinations import WIDTH, job, vectors
from support.memory import MemoryStore

from pipelines.plan import from_live
from pipelines.plan.naming import Known
from pipelines.table.identities import Identities, of_vector, with_owner
from pipelines.table.text_set import TextSet

FIRST, SECOND = "/memory/first.parquet", "/memory/second.parquet"
NAMES = Identities(bytes(32))


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def put(store, uri: str, people: list[str], embeddings) -> None:
    column = pa.array([list(map(float, one)) for one in embeddings], pa.list_(pa.float32()))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"subject_id": people, "embedding": column}), sink)
    store.write(uri, memoryview(sink.getvalue()))


def known(*pairs) -> Known:
    """Contents that templates were made from, each with its owner."""
    owners = pa.array([subject for subject, _ in pairs], pa.large_string())
    contents = pa.array([NAMES.named(of_vector(one)) for _, one in pairs], pa.large_string())
    return Known(NAMES, TextSet([with_owner(owners, contents)]))


def taken(store, found: Known, *more: str) -> list[tuple[str, str]]:
    asked = job(source=FIRST, more_sources=more, renews=1, generation=2)
    batches = from_live.batches(asked, store, found, None, lambda batch: batch)
    return [(one["subject_id"], one["uri"]) for batch in batches for one in batch.to_pylist()]


def test_only_what_the_generation_was_made_from(store):
    own = vectors(3)
    put(store, FIRST, ["ann", "ann", "bob"], own)
    found = taken(store, known(("ann", own[0]), ("bob", own[2])))
    assert [subject for subject, _ in found] == ["ann", "bob"]
    assert len({uri for _, uri in found}) == 2


def test_a_content_serves_its_owner_only(store):
    own = vectors(2)
    put(store, FIRST, ["ann", "bob"], own)
    assert taken(store, known(("bob", own[0]), ("ann", own[1]))) == []


def test_it_may_have_moved_and_changed_its_scale(store):
    own = vectors(2)
    put(store, FIRST, ["zoe", "ann"], [vectors(1, 5)[0], own[0] * 3])
    assert [one for one, _ in taken(store, known(("ann", own[0])))] == ["ann"]


def test_each_person_comes_from_the_first_source_that_has_them(store):
    own = vectors(3)
    put(store, FIRST, ["ann"], own[:1])
    put(store, SECOND, ["ann", "bob"], own[1:])
    pairs = [("ann", own[0]), ("ann", own[1]), ("bob", own[2])]
    found = taken(store, known(*pairs), SECOND)
    assert [subject for subject, _ in found] == ["ann", "bob"]
    assert [FIRST in uri for _, uri in found] == [True, False]


def test_an_embedding_that_is_none_is_nobodys(store):
    put(store, FIRST, ["ann"], [np.zeros(WIDTH)])
    assert taken(store, known(("ann", vectors(1)[0]))) == []


def test_of_some_people_all_inputs_are_taken():
    first = pa.table({"subject_id": ["ann", "bob", "ann"], "uri": ["1", "2", "3"]})
    second = pa.table({"subject_id": ["bob"], "uri": ["4"]})
    people = TextSet([pa.array(["ann"])])
    (found,) = from_live.of_people(iter([first, second]), people)
    assert found["uri"].to_pylist() == ["1", "3"]
    assert list(from_live.of_people([second], TextSet())) == []
