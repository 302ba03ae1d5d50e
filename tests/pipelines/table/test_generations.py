"""The life of a generation: one is live at any time, and no step is taken twice."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from support.destinations import Place

from ironmask.errors import BusyError, TableError
from pipelines.spec.template_job import Purpose
from pipelines.table import generations
from pipelines.table.generations import State
from pipelines.table.schemas import GENERATIONS


@pytest.fixture
def place() -> Place:
    made = Place()
    made.keyring.add_generation(2)
    return made


@pytest.fixture
def dest(place):
    return place.held()


def states(dest) -> dict[int, str]:
    return {number: one.state.value for number, one in generations.read(dest.tables).items()}


def add(dest, **changes: Any) -> None:
    """A row as somebody with the keys could write it."""
    row = {
        "generation": 1,
        "state": "live",
        "purpose": "enrol",
        "parent": None,
        "key_id": "k",
        "at": datetime.now(UTC),
        "proof": "",
    }
    dest.append("generations", pa.Table.from_pylist([row | changes], GENERATIONS))


def switched(place):
    """Generation 2 has taken the place of generation 1."""
    first = place.held()
    generations.begin(first)
    first.log_seal.end()
    second = place.held(2)
    generations.prepare(second, 2, 1, Purpose.REPROTECT)
    generations.switch(second, 2, {"lost": 3})
    return second


def test_before_the_first_run_the_first_is_live_and_none_is_there(dest):
    assert generations.read(dest.tables) == {}
    assert generations.live(dest.tables) == generations.FIRST == 1


def test_the_first_begins_once(dest):
    for _ in range(2):
        generations.begin(dest)
    assert states(dest) == {1: "live"}
    assert dest.tables.table("generations").rows().num_rows == 1
    assert generations.read(dest.tables)[1].key_id == dest.keys.key_id


def test_a_prepared_one_is_not_live(place):
    generations.begin(place.held())
    second = place.held(2)
    for _ in range(2):
        generations.prepare(second, 2, 1, Purpose.REKEY)
    assert states(second) == {1: "live", 2: "preparing"}
    assert second.tables.table("generations").rows().num_rows == 2
    one = generations.read(second.tables)[2]
    assert (one.parent, one.purpose, one.key_id) == (1, Purpose.REKEY, second.keys.key_id)
    assert generations.live(second.tables) == 1


def test_a_switch_is_one_commit(place):
    generations.begin(place.held())
    second = place.held(2)
    generations.prepare(second, 2, 1, Purpose.REPROTECT)
    before = len(place.listed("generations"))
    generations.switch(second, 2, {"lost": 3})
    assert len(place.listed("generations")) == before + 1
    assert states(second) == {1: "retired", 2: "live"}
    assert generations.read(second.tables)[2].proof == {"lost": 3}


def test_a_second_switch_changes_nothing(place):
    dest = switched(place)
    before = dest.tables.table("generations").rows().num_rows
    generations.switch(dest, 2, {"lost": 9})
    assert dest.tables.table("generations").rows().num_rows == before
    assert generations.read(dest.tables)[2].proof == {"lost": 3}


def test_what_was_given_up_cannot_become_live(place):
    generations.begin(place.held())
    second = place.held(2)
    generations.prepare(second, 2, 1, Purpose.REPROTECT)
    generations.destroyed(second, 2, {})
    with pytest.raises(TableError, match="generation 2 is destroyed, not preparing"):
        generations.switch(second, 2, {})
    assert states(second) == {1: "live", 2: "destroyed"}


def test_a_live_one_cannot_be_said_to_be_gone(place):
    dest = switched(place)
    with pytest.raises(TableError, match="generation 2 is live and stays"):
        generations.destroyed(dest, 2, {})
    assert states(dest) == {1: "retired", 2: "live"}


def test_of_a_destroyed_one_the_first_proof_stays(place):
    dest = switched(place)
    generations.destroyed(dest, 1, {"files": 4})
    generations.destroyed(dest, 1, {"files": 0})
    assert generations.read(dest.tables)[1].proof == {"files": 4}
    assert states(dest) == {1: "destroyed", 2: "live"}


def test_the_furthest_word_counts_whatever_the_order_of_rows(dest):
    for state in ("destroyed", "preparing", "retired"):
        add(dest, generation=3, state=state, at=datetime(2001, 1, 1, tzinfo=UTC))
    add(dest)
    assert states(dest) == {1: "live", 3: "destroyed"}


def test_they_come_in_the_order_of_their_numbers(dest):
    for number in (12, 3, 7):
        add(dest, generation=number, state="retired")
    add(dest, generation=1)
    found = generations.read(dest.tables)
    assert list(found) == [1, 3, 7, 12]
    assert [one.number for one in generations.in_state(found, State.RETIRED)] == [3, 7, 12]
    assert generations.in_state(found, State.PREPARING) == []


@pytest.mark.parametrize("rows", [({}, {"generation": 2}), ({"state": "retired"},)])
def test_exactly_one_must_be_live(dest, rows):
    for changes in rows:
        add(dest, **changes)
    with pytest.raises(TableError, match=r"generations are live where one must be"):
        generations.read(dest.tables)


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "born"},
        {"state": ""},
        {"purpose": "fun"},
        {"proof": "{"},
        {"proof": "\x00"},
        {"proof": "[]"},
        {"proof": "[" * 100_000},
    ],
)
def test_a_row_that_cannot_be_read_is_named(dest, changes):
    add(dest)
    add(dest, generation=2, **changes)
    with pytest.raises(TableError, match="a row of its generations cannot be read"):
        generations.read(dest.tables)


def test_nothing_is_said_by_whom_another_run_has_ousted(place):
    def ousted() -> None:
        raise BusyError("taken over")

    dest = place.held(check=ousted)
    with pytest.raises(BusyError):
        generations.begin(dest)
    assert generations.read(dest.tables) == {}
