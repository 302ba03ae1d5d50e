"""A few kills of a repair around what it takes out; all of them are a slow test."""

from __future__ import annotations

import pytest
from faults import repair_kills as kills
from faults.drivers import driver
from faults.kill_driver import AFTER, Point

# Outcomes say that people are lost, the logs list their files no more, these go, a plan is there.
STEPS = [
    Point("commit runs", AFTER, 1),
    Point("commit inputs", AFTER, 1),
    Point("commit templates", AFTER, 1),
    Point("destroy file of templates", AFTER, 1),
    Point("write plan", AFTER, 1),
    Point("commit templates", AFTER, 2),
]


def test_around_the_taking_out(tmp_path):
    with driver(tmp_path / "logs") as runs:
        table = kills.broken(tmp_path, runs)
        found = kills.points(runs, table)
        assert set(STEPS) <= set(found)
        seen = kills.at_points(runs, table, STEPS)
    assert [line for line in seen.lines(len(STEPS)) if not line.holds] == []


@pytest.mark.slow
def test_every_point(tmp_path):
    assert [line for line in kills.run(tmp_path) if not line.holds] == []
