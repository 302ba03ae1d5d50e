"""Rates in words: with counts and intervals, and no rate where so few errors support none."""

from __future__ import annotations

import pytest

from ironmask.metrics import Difference, Rate
from ironmask.metrics.intervals import Interval
from pipelines.report.rate_texts import (
    chance_text,
    difference_text,
    rate_text,
    tar_percent,
    tar_text,
)


def rate(errors: int, trials: int, low: float = 0.01, high: float = 0.2) -> Rate:
    return Rate(errors, trials, errors / trials, Interval(low, high), Interval(0.02, 0.3), 0.25)


def test_a_supported_rate_has_counts_and_both_intervals():
    assert rate_text(rate(1234, 12340)) == "0.1 (0.01 to 0.2) [0.02 to 0.3]; 1,234 of 12,340"


@pytest.mark.parametrize("errors", [0, 1, 29])
def test_of_few_errors_only_the_bound_is_said(errors):
    text = rate_text(rate(errors, 1000))
    assert text == f"at most 0.25, unsupported ({errors} of 1,000)"


def test_from_thirty_errors_on_it_is_supported():
    assert rate_text(rate(30, 1000)).startswith("0.03 (")


def test_an_acceptance_turns_the_interval_around():
    assert tar_text(rate(100, 1000)) == "0.9000 (0.8000 to 0.9900)"
    assert tar_percent(rate(100, 1000)) == "90.0 % (80.0 to 99.0 %)"


def test_a_perfect_one_stays_one():
    assert tar_text(rate(0, 10, 0.0, 0.3)) == "1.0000 (0.7000 to 1.0000)"


def test_a_difference_is_seen_from_the_accepts():
    found = Difference(0.1, Interval(0.05, 0.15), 0.001)
    assert difference_text(found) == "-0.1000 (-0.1500 to -0.0500)"


def test_no_difference_has_no_minus():
    assert difference_text(Difference(0.0, Interval(0.0, 0.0), 1.0)) == (
        "+0.0000 (+0.0000 to +0.0000)"
    )


def test_what_is_not_supported_says_so():
    assert difference_text(None) == "not supported"
    assert chance_text(None) == ""


@pytest.mark.parametrize(
    ("p", "text"), [(0.5, "0.5000"), (0.0001, "0.0001"), (0.00009, "< 0.0001"), (0.0, "< 0.0001")]
)
def test_chances_are_never_said_to_be_none(p, text):
    assert chance_text(Difference(0.1, Interval(0, 0.2), p)) == text
