"""The note of an erasure that was broken off: nothing else in its place is believed."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from support.memory import MemoryStore

from ironmask.errors import BusyError, TableError
from pipelines.table.erasing import Erased, read_note, refuse_unfinished_erasure
from pipelines.table.layout import erasure_file

DEST = "/memory/dest"
NOTE = Erased("0123456789ab", "erased-00ff", 1, 2, 0)


def put(content: bytes) -> MemoryStore:
    store = MemoryStore()
    store.write(erasure_file(DEST), content)
    return store


def test_none_is_no_refusal():
    assert read_note(DEST, MemoryStore()) is None
    refuse_unfinished_erasure(DEST, MemoryStore())


def test_one_is_read_and_refused():
    store = put(json.dumps(asdict(NOTE)).encode())
    assert read_note(DEST, store) == NOTE
    with pytest.raises(BusyError, match="was broken off: finish it first") as caught:
        refuse_unfinished_erasure(DEST, store)
    assert NOTE.pseudonym not in str(caught.value)


CHANGES = [
    {"run_id": "0123456789AB"},
    {"run_id": "../../etc"},
    {"run_id": 7},
    {"run_id": ""},
    {"pseudonym": "ann"},
    {"pseudonym": "erased-"},
    {"pseudonym": "erased-00ff\n"},
    {"pseudonym": None},
    {"templates": -1},
    {"outcomes": 1.5},
    {"embeddings": True},
    {"embeddings": "0"},
    {"more": 1},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_field_that_is_none_is_named_and_not_quoted(change):
    store = put(json.dumps({**asdict(NOTE), **change}).encode())
    with pytest.raises(TableError, match=r"erasing\.json is no note of an erasure"):
        read_note(DEST, store)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"{}", b"7", b"\xff", b"[" * 200_000, b'{"run_id":']
)
def test_what_is_no_note(content):
    with pytest.raises(TableError, match="no note of an erasure"):
        read_note(DEST, put(content))


@pytest.mark.parametrize("name", asdict(NOTE))
def test_a_field_that_is_missing(name):
    said = asdict(NOTE)
    del said[name]
    with pytest.raises(TableError):
        read_note(DEST, put(json.dumps(said).encode()))
