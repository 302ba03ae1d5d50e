"""Searches that ran out of time: what is said of them, and that nothing more is."""

from __future__ import annotations

import pytest

from pipelines.auditing.frozen import Finding, Kind
from pipelines.auditing.unfinished import Unfinished, lasting


def search(seconds: float, *, late: bool = False) -> Finding:
    return Finding(Kind.ROW, "", not late, seconds, out_of_time=late)


def test_of_none_and_of_ended_ones_nothing():
    assert Unfinished.among([]) is None
    assert Unfinished.among([search(1), search(9)], foretold=99) is None


def test_the_mean_is_all_time_over_those_that_ended():
    found = Unfinished.among([search(1), search(3), search(10, late=True), search(8, late=True)])
    assert (found.count, found.had, found.needed) == (2, 10, 11)
    assert not found.is_bound
    assert "about 11.0 s" in found.describe()


def test_where_none_ended_there_is_a_bound():
    found = Unfinished.among([search(30, late=True), search(60, late=True)])
    assert (found.needed, found.is_bound) == (30, True)
    assert "at least 30.0 s" in found.describe()


@pytest.mark.parametrize(("foretold", "needed"), [(10, 20), (500, 500)])
def test_what_was_foretold_counts_only_as_a_greater_bound(foretold, needed):
    assert Unfinished.among([search(60, late=True)], foretold).needed == needed


def test_it_does_not_count_beside_what_was_measured():
    found = Unfinished.among([search(1), search(2, late=True)], foretold=500)
    assert found.needed == 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (6, "6.0 s"),
        (7199, "7,199.0 s"),
        (7200, "2 hours"),
        (86400 * 30, "30 days"),
        (11_217_816_686.6, "355 years"),
        (1e30, "3e+22 years"),
    ],
)
def test_long_times_are_told_in_long_units(seconds, text):
    assert lasting(seconds) == text
