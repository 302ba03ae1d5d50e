"""What happens in a run is counted and logged, with its run, shard and node, and names nobody."""

from __future__ import annotations

import logging
from collections import Counter

import pytest
from support.destinations import RUN, plan

from pipelines.ports import DataFile
from pipelines.run import events
from pipelines.run.events import Events
from pipelines.shard.context import InputRow, ShardResult, subjects_by_outcome
from pipelines.spec.outcomes import Outcome, Reason

PLAN = plan()


class Clock:
    """The module's clocks, which stand still between two steps of a test."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1e9 + self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(events, "time", made)
    return made


def result(shard: int, used: int = 2, failed: int = 0) -> ShardResult:
    outcomes = Counter({("used", ""): used, ("failed", "no_face"): failed})
    files = {"templates": DataFile("f", 1000, used, "", {}, {}, {})}
    subjects = Counter({("used", ""): used})
    return ShardResult(shard, files, outcomes, used, {"protect": 1.5}, subjects, node="worker-7")


def test_shards_are_in_flight_from_when_they_are_handed_out(clock):
    told = Events()
    with told.of_run(PLAN, "enrol", 0, 0):
        for shard in (0, 1, 2):
            told.handed_out(shard)
            clock.now += 10
        assert (len(told.figures().handed), told.figures().oldest) == (3, 30)
        told.finished(result(0))
        assert told.figures().handed.keys() == {1, 2}
        assert told.figures().oldest == 20
    assert told.figures().handed == {}
    assert told.figures().oldest == 0


def test_what_is_finished_waits_until_it_is_committed(clock):
    told = Events()
    with told.of_run(PLAN, "enrol", 5, 40):
        told.finished(result(0))
        told.finished(result(1, failed=1))
        seen = told.figures()
        assert (seen.run.waiting, seen.run.shards_committed) == (2, 5)
        assert (seen.run.inputs_committed, seen.run.committed_at) == (40, 0)
        told.committed(2, 45, 0.25)
        seen = told.figures()
    assert (seen.run.waiting, seen.run.shards_committed, seen.run.inputs_committed) == (0, 7, 45)
    assert (seen.commits, seen.commit_seconds, seen.run.committed_at) == (1, 0.25, 1e9 + 100)
    assert seen.outcomes == {("used", ""): 4, ("failed", "no_face"): 1}
    assert seen.subjects == {("used", ""): 4}
    assert (seen.stages, seen.written) == ({"protect": 3.0}, {"templates": 2000})


def test_counts_go_on_over_the_runs_of_a_process(clock):
    told = Events()
    for _ in range(2):
        with told.of_run(PLAN, "enrol", 0, 0):
            told.finished(result(0))
    seen = told.figures()
    assert (seen.shards, seen.run.waiting) == (2, 0)
    told.finished(result(1))
    assert seen.shards == 2, "figures that were given change no more"


def test_events_are_logged_with_run_shard_and_node(clock, caplog):
    told = Events()
    with caplog.at_level(logging.DEBUG, "ironmask"), told.of_run(PLAN, "enrol", 0, 0):
        told.handed_out(3)
        clock.now += 4
        told.finished(result(3))
        told.committed(1, 2, 0.5)
        told.again(4, "its worker died", "worker-8")
        told.excluded("worker-8", "it has no keyset file")
    finished, committed, again, excluded = caplog.records
    assert {record.run_id for record in caplog.records} == {RUN}
    assert (finished.getMessage(), finished.levelname) == ("shard finished", "DEBUG")
    assert (finished.shard, finished.node, finished.seconds) == (3, "worker-7", 4)
    assert (finished.inputs, finished.stages) == (2, {"protect": 1.5})
    assert (committed.levelname, committed.shards, committed.inputs_committed) == ("INFO", 1, 2)
    assert (again.levelname, again.shard, again.node) == ("WARNING", 4, "worker-8")
    assert again.getMessage() == "shard 4 is submitted again: its worker died"
    assert (excluded.levelname, excluded.node) == ("WARNING", "worker-8")
    seen = told.figures()
    assert (seen.resubmitted, seen.excluded) == (1, {"worker-8"})


def row(subject: str, outcome: Outcome, reason: Reason = Reason.NONE) -> InputRow:
    made = InputRow(f"{subject}/x.jpg", subject, 0, RUN)
    made.settle(outcome, reason)
    return made


def test_a_subject_counts_once_by_what_says_most():
    rows = [
        row("a", Outcome.FAILED, Reason.NO_FACE),
        row("a", Outcome.USED),
        row("b", Outcome.FAILED, Reason.NO_FACE),
        row("b", Outcome.FAILED, Reason.NO_FACE),
        row("b", Outcome.FAILED, Reason.EMPTY_FILE),
        row("c", Outcome.SKIPPED, Reason.ALREADY_ENROLLED),
        row("", Outcome.FAILED, Reason.NO_SUBJECT),
    ]
    assert subjects_by_outcome(rows) == {
        ("used", ""): 1,
        ("failed", "no_face"): 1,
        ("skipped", "already_enrolled"): 1,
    }
