"""Sets of texts that are larger than what is kept in memory."""

from __future__ import annotations

import tempfile

import numpy as np
import pyarrow as pa
import pytest

from ironmask.errors import StorageError
from pipelines.table import text_set
from pipelines.table.text_set import TextSet


def texts(*ranges: range) -> list[pa.Array]:
    return [pa.array([f"text {number}" for number in one]) for one in ranges]


@pytest.fixture(params=[1 << 20, 64])
def kept(request, monkeypatch):
    monkeypatch.setattr(text_set, "IN_MEMORY", request.param)


@pytest.mark.usefixtures("kept")
def test_a_set_holds_what_was_put_in_and_nothing_else():
    found = TextSet(texts(range(500), range(400, 900), range(3)))
    assert len(found) == 900
    (asked,) = texts(range(850, 950))
    assert found.has(asked).tolist() == [True] * 50 + [False] * 50
    assert not found.has(pa.nulls(2, pa.string())).any()


@pytest.mark.usefixtures("kept")
def test_sets_are_joined_and_taken_from_each_other():
    one, other = TextSet(texts(range(300))), TextSet(texts(range(200, 600)))
    (everything,) = texts(range(700))
    assert len(one.joined(other)) == 600
    assert one.joined(other).has(everything).sum() == 600
    assert np.flatnonzero(one.without(other).has(everything)).tolist() == list(range(200))
    assert len(one.without(TextSet())) == 300


def test_no_room_for_the_rest_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(text_set, "IN_MEMORY", 64)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(StorageError, match="TMPDIR"):
        TextSet(texts(range(100)))
