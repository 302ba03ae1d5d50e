"""Thresholds come from strangers, hits are counted by people."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import stdtrit

from ironmask.attacks.inversion import Scores, other_photos, thresholds
from ironmask.errors import ParameterError, ProtocolError

PEOPLE = np.repeat(np.arange(150), 2)


@pytest.fixture
def embeddings():
    return np.random.default_rng(11).standard_normal((300, 24))


@pytest.mark.parametrize("far", [0.5, 0.1, 1e-2, 1e-3])
def test_a_threshold_accepts_the_share_of_strangers(embeddings, far):
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    different = np.triu(PEOPLE[:, None] != PEOPLE)
    cosines = (unit @ unit.T)[different]
    (found,) = thresholds(3 * embeddings, PEOPLE, [far])
    assert found.comparisons == len(cosines) == 300 * 298 // 2
    assert found.pairs == 150 * 149 // 2
    above = int((cosines >= found.cosine).sum())
    assert above == pytest.approx(found.accepted, abs=2)
    assert found.accepted <= far * len(cosines) < found.accepted + 3


def test_rates_that_strangers_cannot_tell_are_said_to_be_unsupported(embeddings):
    found = thresholds(embeddings, PEOPLE, [1e-2, 1e-3, 1e-4, 1e-6])
    assert [one.supported for one in found] == [True, False, False, False]
    assert [one.far for one in found] == [1e-2, 1e-3, 1e-4, 1e-6]
    assert found[-1].accepted == 0
    assert (np.diff([one.cosine for one in found]) > 0).all()


def test_photos_of_one_person_are_no_strangers():
    vectors = np.repeat(np.eye(60, 64), 2, axis=0)
    (found,) = thresholds(vectors, np.repeat(np.arange(60), 2), [0.05])
    assert found.cosine < 0.01


def test_no_strangers_no_threshold(embeddings):
    with pytest.raises(ParameterError, match="two people"):
        thresholds(embeddings, np.zeros(300), [0.1])
    with pytest.raises(ParameterError, match=r"0\.\.1"):
        thresholds(embeddings, PEOPLE, [0.0])


def test_hits_are_shares_with_intervals_by_people(embeddings):
    (threshold,) = thresholds(embeddings, PEOPLE, [1e-2])
    made = embeddings.copy()
    made[:60] = -made[:60]
    found = Scores.of(made, 2 * embeddings, PEOPLE).hits(threshold)
    assert (found.hits, found.trials, found.people) == (240, 300, 150)
    assert found.share == 0.8
    # Both photos of a person hit or miss together, so 300 trials tell what 150 do.
    alone = Scores.of(made[::2], embeddings[::2], PEOPLE[::2]).hits(threshold)
    for end in ("low", "high"):
        assert getattr(found.interval, end) == pytest.approx(getattr(alone.interval, end), abs=0.01)
    assert alone.interval.low < 0.8 < alone.interval.high


def test_all_hit():
    rows = np.eye(20)
    (threshold,) = thresholds(np.eye(60), range(60), [0.1])
    found = Scores.of(rows, rows, range(20)).hits(threshold)
    assert found.share == 1
    assert found.interval.high == 1
    # Wilson (1927): m / (m + z^2). Of 20 people one is spent on the mean, so m = 19, and z is
    # Student's t of 19 degrees of freedom.
    assert found.interval.low == pytest.approx(19 / (19 + stdtrit(19, 0.975) ** 2), abs=1e-6)


def test_other_photos_of_the_same_people():
    people = np.array(["a", "b", "a", "c", "a", "b"])
    which, photo = other_photos([2, 3, 5], people)
    assert list(zip(which.tolist(), photo.tolist(), strict=True)) == [(0, 0), (0, 4), (2, 1)]


def test_rows_that_do_not_match_are_refused(embeddings):
    with pytest.raises(ProtocolError, match="300 reconstructions, 299 photos"):
        Scores.of(embeddings, embeddings[1:], PEOPLE)
