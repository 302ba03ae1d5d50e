"""A dozen kills of a re-protection around its turn; all hundred of them are a slow test."""

from __future__ import annotations

import random

import pytest
from faults import renewal_kills as kills
from faults.drivers import driver
from faults.kill_driver import AFTER, BEFORE, Point


@pytest.fixture
def runs(tmp_path):
    with driver(tmp_path / "logs") as found:
        yield found


@pytest.mark.slow
def test_around_the_turn(runs, tmp_path):
    work = kills.made(tmp_path, runs, 8)
    chosen = [
        Point("commit generations", AFTER, 2),
        Point("destroy keys", AFTER, 1),
        Point("commit templates", AFTER, 2),
        Point("destroy file of templates", AFTER, 2),
    ]
    found = kills.points(runs, work, "reprotect")
    assert set(chosen) <= set(found)
    seen = kills.at_points(runs, work, "reprotect", chosen)
    assert [line for line in seen.lines("turn", len(chosen)) if not line.holds] == []


@pytest.mark.slow
def test_an_erasure_that_was_broken_off_is_finished(runs, tmp_path):
    work = kills.made(tmp_path, runs, 8)
    some = [
        Point("commit inputs", AFTER, 1),
        Point("destroy file of inputs", BEFORE, 1),
    ]
    assert kills.erasure(runs, work, "s003", some) == []


@pytest.mark.slow
@pytest.mark.timeout(3_000)
def test_a_hundred_points(tmp_path):
    assert [line for line in kills.run(1, tmp_path) if not line.holds] == []


def test_every_kind_of_step_is_among_the_chosen():
    found = [Point(step, side, n) for step in "abc" for side in (BEFORE, AFTER) for n in range(9)]
    some = kills.chosen(found, 20, random.Random(1))
    assert len(some) == len(set(some)) == 20
    assert {(point.step, point.side) for point in some} == {
        (step, side) for step in "abc" for side in (BEFORE, AFTER)
    }
