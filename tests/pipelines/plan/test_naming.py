"""Which contents are known: by keyed names, and by those of before while some lie in the clear."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipelines.plan.naming import Known, named
from pipelines.plan.sources import COLUMNS
from pipelines.table.identities import Identities, with_owner
from pipelines.table.text_set import TextSet

KEYED = Identities(bytes(32))
OTHER = Identities(bytes([1]) * 32)


def source(*rows: tuple[str, str | None, str | None]) -> pa.Table:
    """(subject, content, content as before) as a source gives them."""
    made = [
        {"subject_id": s, "uri": "u", "content": c, "before": b, "reason": "", "detail": ""}
        for s, c, b in rows
    ]
    return pa.Table.from_pylist(made, COLUMNS)


def texts(*names: str) -> TextSet:
    return TextSet([pa.array(names, pa.large_string())])


BATCH = source(("ann", "sha256:1", "vec:old1"), ("bob", "sha256:2", None), ("cid", None, None))


def test_by_the_keyed_name():
    known = Known(KEYED, texts(KEYED.named("sha256:2")))
    assert known.has(BATCH).tolist() == [False, True, False]


def test_under_another_key_nothing_is_known():
    known = Known(OTHER, texts(KEYED.named("sha256:1"), KEYED.named("sha256:2")))
    assert not known.has(BATCH).any()


@pytest.mark.parametrize("name", ["sha256:1", "vec:old1"])
def test_names_in_the_clear_count_only_where_there_are_such(name):
    assert not Known(KEYED, texts(name)).has(BATCH).any()
    assert Known(KEYED, texts(name), unkeyed=True).has(BATCH).tolist() == [True, False, False]


def test_names_of_before_that_were_keyed_since():
    known = Known(KEYED, texts(KEYED.named("vec:old1")), unkeyed=True)
    assert known.has(BATCH).tolist() == [True, False, False]
    assert not Known(KEYED, texts(KEYED.named("vec:old1"))).has(BATCH).any()


def test_what_has_no_content_is_never_known():
    known = Known(KEYED, texts("", "null", KEYED.named("")), unkeyed=True)
    assert not known.has(BATCH).any()


def test_with_its_owner_a_content_is_known_of_them_alone():
    own = with_owner(pa.array(["ann"]), pa.array([KEYED.named("sha256:1")]))
    known = Known(KEYED, TextSet([own]))
    assert known.has(BATCH, by_owner=True).tolist() == [True, False, False]
    theirs = source(("eve", "sha256:1", None))
    assert known.has(theirs, by_owner=True).tolist() == [False]
    assert not known.has(BATCH).any()


def test_a_plan_holds_keyed_names_only():
    found = named(BATCH, KEYED)
    assert found["content"].to_pylist() == [KEYED.named("sha256:1"), KEYED.named("sha256:2"), None]
    assert "before" not in found.column_names
    assert "sha256:" not in repr(found.to_pylist())
