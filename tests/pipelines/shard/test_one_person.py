"""Faces of one subject that are not of one person: who stays, who fails, and what is said."""

from __future__ import annotations

import numpy as np
import pytest
from support.destinations import job, row, vectors

from pipelines.shard.agreement import of_one_person

BAR = 0.5


def subject(name: str, *people: int):
    """A subject whose inputs are of some people, by their numbers."""
    faces = vectors(6)
    noise = vectors(len(people), seed=9) * 0.1
    rows = [row(name, number) for number in range(len(people))]
    return name, rows, (faces[list(people)] + noise).astype(np.float32)


def asked(*subjects, **changes):
    return of_one_person(job(agreement=BAR, **changes), list(subjects))


def outcomes(one) -> list[tuple[str, str]]:
    return [(each.outcome, each.reason) for each in one[1]]


@pytest.mark.parametrize("people", [(0,), (0, 0), (0, 0, 0)])
def test_those_that_agree_stay_as_they_are(people):
    one = subject("ann", *people)
    (found,) = asked(one)
    assert found == one
    assert set(outcomes(one)) == {("", "")}


def test_the_minority_fails_and_the_others_stay():
    one = subject("ann", 0, 1, 0, 0)
    ((name, rows, kept),) = asked(one)
    assert name == "ann"
    assert [each.uri for each in rows] == ["ann/0.jpg", "ann/2.jpg", "ann/3.jpg"]
    assert np.array_equal(kept, one[2][[0, 2, 3]])
    assert outcomes(one)[1] == ("failed", "other_face")
    assert {outcomes(one)[n] for n in (0, 2, 3)} == {("", "")}


@pytest.mark.parametrize("people", [(0, 1), (0, 0, 1, 1), (0, 1, 2)])
def test_without_a_majority_all_fail(people):
    one = subject("ann", *people)
    assert asked(one) == []
    assert set(outcomes(one)) == {("failed", "faces_disagree")}


def test_one_subject_says_nothing_of_another():
    good, bad = subject("ann", 0, 0), subject("bob", 1, 2)
    assert [name for name, _, _ in asked(bad, good)] == ["ann"]
    assert set(outcomes(good)) == {("", "")}


def test_other_faces_that_are_kept_are_told_and_stay():
    minority, none = subject("ann", 0, 1, 0), subject("bob", 2, 3)
    found = asked(minority, none, keeps_other_faces=True)
    assert found == [minority, none]
    assert outcomes(minority) == [("", ""), ("", "other_face"), ("", "")]
    assert outcomes(none) == [("", "faces_disagree")] * 2


def test_nobody_asked_for_it():
    one = subject("ann", 0, 1)
    assert of_one_person(job(agreement=None), [one]) == [one]
    assert set(outcomes(one)) == {("", "")}


def test_of_no_subject_none():
    assert asked() == []
