"""A short round of what the world refuses."""

from __future__ import annotations

import random

import pytest
from faults import refusals
from faults.drivers import driver


@pytest.fixture
def runs(tmp_path):
    with driver(tmp_path / "runs") as found:
        yield found


def held(lines) -> list:
    return [line for line in lines if not line.holds]


@pytest.mark.slow
def test_full_disks(runs, tmp_path):
    if not refusals.can_mount():
        pytest.skip("file systems cannot be mounted here: needs root")
    seen = refusals.full_disks(runs, tmp_path, 3, random.Random(4))
    assert held(seen.lines("full disk", 3)) == []


@pytest.mark.slow
def test_keys(runs, tmp_path):
    assert held(refusals.keys(runs, tmp_path).lines("keys", 10)) == []


@pytest.mark.slow
def test_keys_that_are_destroyed_in_the_middle(runs, tmp_path):
    seen, after = refusals.revoked_meanwhile(runs, tmp_path)
    assert held(seen.lines("revoked", 1)) == []
    assert after <= 1
