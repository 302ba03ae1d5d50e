"""What a run says about itself while it works: counts alone, and nothing that is damaged."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

import pytest
from support.destinations import DEST, RUN, Place, plan
from support.memory import MemoryStore

from pipelines.run import live_note
from pipelines.run.events import Events
from pipelines.run.live_note import Counted, Journal, Note, last_note
from pipelines.run.summary import Tally
from pipelines.table.layout import progress_file

NOTE = Note(RUN, 1.0, 2.0, 3, 4, 5, 6, {"no_face": 1})


class Clock:
    """The module's clock, which stands still between two steps of a test."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(live_note, "time", made)
    return made


def test_handed_out_shards_are_counted_as_they_go():
    shards = Counted(iter([4, 7, 9]))
    assert shards.count == 0
    assert next(shards) == 4
    assert shards.count == 1
    assert list(shards) == [7, 9]
    assert shards.count == 3
    assert list(shards) == []
    assert shards.count == 3


def test_a_note_tells_where_the_run_is(clock):
    dest = Place().held()
    counts = Counter({("used", ""): 5, ("failed", "no_face"): 2, ("failed", "truncated"): 1})
    tally = Tally(outcomes=counts, before=10, shards=2)
    journal = Journal(dest, plan(), tally)
    clock.now += 60
    journal.note(handed=6, waiting=1)
    found = last_note(DEST, dest.store)
    assert found is not None
    assert (found.run_id, found.seconds) == (RUN, 60)
    assert (found.settled, found.inputs) == (18, 8)
    assert (found.in_flight, found.waiting) == (4, 1)
    assert found.failed == {"no_face": 2, "truncated": 1}


def test_a_note_tells_what_was_lost_in_this_call_alone(clock, monkeypatch):
    dest, told = Place().held(), Events()
    monkeypatch.setattr(live_note, "HERE", told)
    for node in ("node-1", "node-2"):
        with told.of_run(plan(), "enrol", 0, 0):
            told.again(7, "lost")
            told.excluded(node, "KeyNotFoundError")
            journal = Journal(dest, plan(), Tally())
            clock.now += 60
            journal.note(1, 0)
        found = last_note(DEST, dest.store)
        assert (found.resubmitted, found.excluded) == (1, 1)
    assert (told.figures().resubmitted, len(told.figures().excluded)) == (2, 2)


def test_notes_are_a_few_seconds_apart(clock):
    dest = Place().held()
    tally = Tally()
    journal = Journal(dest, plan(), tally)
    journal.note(1, 0)
    assert last_note(DEST, dest.store) is None
    clock.now += 6
    journal.note(2, 0)
    clock.now += 1
    journal.note(3, 0)
    assert last_note(DEST, dest.store).in_flight == 2
    clock.now += 6
    journal.note(4, 0)
    assert last_note(DEST, dest.store).in_flight == 4


def test_none_is_none():
    assert last_note(DEST, MemoryStore()) is None


def test_what_is_written_is_read():
    store = MemoryStore()
    store.write(progress_file(DEST), json.dumps(asdict(NOTE)).encode())
    assert last_note(DEST, store) == NOTE


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"7", b"\xff", b"{}", b'{"run_id": "x", "more": 1}']
)
def test_a_damaged_one_says_nothing(content):
    store = MemoryStore()
    store.write(progress_file(DEST), content)
    assert last_note(DEST, store) is None
