"""A log of an earlier release names the columns of today's files, by an entry under the seal."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from support.destinations import (
    OTHER_RUN,
    Place,
    commit,
    context,
    enrolled,
    failed,
    people,
    written,
)
from support.enrolling import PowerCutError
from support.memory_tables import MemoryTable

from ironmask.errors import TableError
from pipelines.table import log_chain
from pipelines.table.log_seal_file import read
from pipelines.table.schemas import TEMPLATES

LATER = ("details", "code_width", "structure", "conditioner", "own_secret")


@pytest.fixture
def place(monkeypatch) -> Place:
    """A destination whose templates were created by a release that knew fewer columns."""
    fewer = pa.schema([field for field in TEMPLATES if field.name not in LATER])

    def create(self: MemoryTable) -> None:
        with monkeypatch.context() as earlier:
            if self.uri.endswith("/templates"):
                earlier.setattr(self, "_schema", fewer)
            whole(self)

    whole = MemoryTable.create
    with monkeypatch.context() as earlier:
        earlier.setattr(MemoryTable, "create", create)
        return Place()


def columns(place: Place) -> list[str]:
    """What the log names."""
    about = place.tables.table("templates")._state().about
    return [column["name"] for column in json.loads(about["schemaString"])]


def seal(place: Place):
    return read(place.tables.dest, place.store, place.keyring.log_seal_key_of)


def test_before_the_first_new_file_nothing_is_written(place):
    dest = place.held()
    enrolled(dest, [failed("ann")])
    dest.log_seal.end()
    assert not set(LATER) & set(columns(place))


def test_the_first_new_file_comes_after_its_columns(place):
    dest = place.held()
    enrolled(dest, ["ann"])
    enrolled(dest, ["bob"], OTHER_RUN)
    dest.log_seal.end()
    assert columns(place)[-len(LATER) :] == list(LATER)
    assert people(dest) == ["ann", "bob"]
    # Its creation, its columns, two commits.
    assert seal(place).logs["templates"].version == 3
    assert list(log_chain.broken_logs(place.tables, place.store, seal(place))) == []
    assert len(place.reader().table("templates").rows()) == 2


def cut(place: Place, monkeypatch, *, written_first: bool) -> None:
    """A run that ends before, or after, the entry with the columns comes."""
    widen = MemoryTable.widen

    def end(self, begin):
        if self.uri.endswith("/templates"):
            if written_first:
                widen(self, begin)
            else:
                begin(self._state().about)
            raise PowerCutError
        return widen(self, begin)

    dest = place.held()
    with monkeypatch.context() as broken:
        broken.setattr(MemoryTable, "widen", end)
        with pytest.raises(PowerCutError):
            commit(dest, written(context(dest), ["ann"]), 1)


@pytest.mark.parametrize("written_first", [False, True])
def test_a_run_that_was_cut_there_goes_on(place, monkeypatch, written_first):
    cut(place, monkeypatch, written_first=written_first)
    assert (set(LATER) <= set(columns(place))) == written_first
    assert len(place.reader().table("templates").rows()) == 0
    dest = place.held()
    enrolled(dest, ["bob"])
    dest.log_seal.end()
    assert set(LATER) <= set(columns(place))
    assert people(dest) == ["bob"]
    assert list(log_chain.broken_logs(place.tables, place.store, seal(place))) == []


@pytest.mark.parametrize(
    ("name", "value"), [("id", "other"), ("partitionColumns", []), ("schemaString", "[]")]
)
def test_what_came_must_be_what_was_announced(place, monkeypatch, name, value):
    cut(place, monkeypatch, written_first=True)
    uri = log_chain.entry(place.tables, "templates", 1)
    said = json.loads(place.store.read(uri))
    said["metaData"][name] = value
    place.store.write(uri, json.dumps(said).encode())
    with pytest.raises(TableError, match="not what the run that holds the seal was about"):
        place.held()


def test_beside_an_announced_commit_it_is_somebody_elses(place, monkeypatch):
    """A commit adds no columns by the way."""
    dest = place.held()
    enrolled(dest, ["ann"])
    result = written(context(dest, OTHER_RUN), ["bob"])
    whole = MemoryTable.commit

    def more(self, *arguments, **named):
        whole(self, *arguments, **named)
        uri = f"{self.uri}/_delta_log/{self._state().version:020d}.json"
        about = json.dumps({"metaData": self._state().about})
        place.store.write(uri, place.store.read(uri) + b"\n" + about.encode())

    monkeypatch.setattr(MemoryTable, "commit", more)
    with pytest.raises(TableError, match="not what the run that holds the seal was about"):
        commit(dest, result, 1)
