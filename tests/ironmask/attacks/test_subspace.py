"""One issue of an embedding from a subspace gives it away; one of any other, nothing."""

from __future__ import annotations

import numpy as np
import pytest
from test_issues import issued, unit

from ironmask.attacks import guesses_needed, recover_from_subspace
from ironmask.errors import ParameterError

N, RANK, ALPHA = 128, 48, 8


@pytest.fixture
def rng():
    return np.random.default_rng(23)


@pytest.fixture
def directions(rng):
    """(n, rank): what the embeddings of this model use."""
    return np.linalg.qr(rng.standard_normal((N, RANK)))[0]


@pytest.mark.parametrize("encoding", ["float32", "int8"])
def test_an_embedding_of_the_subspace(encoding, directions, rng):
    for _ in range(5):
        template = directions @ unit(rng, RANK)
        (helper,) = issued([template], rng, ALPHA, encoding)
        found = recover_from_subspace(helper, directions, ALPHA, rng, guessed=1)
        assert found.cosine(template) > 0.999
        assert found.trials <= N


def test_a_little_energy_outside_does_not_help(directions, rng):
    template = directions @ unit(rng, RANK) + 0.1 * unit(rng)
    (helper,) = issued([template / np.linalg.norm(template)], rng, ALPHA)
    found = recover_from_subspace(helper, directions, ALPHA, rng, limit=1 << 14)
    assert found.cosine(template) > 0.999


def test_an_embedding_of_the_whole_sphere_gives_nothing(directions, rng):
    """Where the space is filled, the codeword is not in the span, and no other is believed."""
    template = unit(rng)
    (helper,) = issued([template], rng, ALPHA)
    found = recover_from_subspace(helper, directions, ALPHA, rng, limit=1 << 14)
    assert (found.success, found.trials) == (False, 1 << 14)


def test_noise_outside_is_a_remedy(directions, rng):
    """Three tenths of the energy in fresh noise where embeddings are not: the attack fails."""
    outside = np.linalg.qr(np.concatenate([directions, rng.standard_normal((N, N - RANK))], 1))[0]
    filled = np.sqrt(0.7) * directions @ unit(rng, RANK)
    filled += np.sqrt(0.3) * outside[:, RANK:] @ unit(rng, N - RANK)
    (helper,) = issued([filled], rng, ALPHA)
    assert not recover_from_subspace(helper, directions, ALPHA, rng, limit=1 << 14).success


def test_a_digest_decides_the_sign(directions, rng):
    template = directions @ unit(rng, RANK)
    (helper,) = issued([template], rng, ALPHA)
    seen = []

    def is_right(codes):
        (code,) = codes
        seen.append(code)
        u = helper @ template
        return bool((np.sign(code) == np.sign(u[np.abs(code) - 1])).all())

    found = recover_from_subspace(helper, directions, ALPHA, rng, guessed=1, confirm=is_right)
    assert found.cosine(template) > 0.999
    assert found.templates[0] @ template > 0.999
    assert seen


def test_trials_that_are_needed():
    assert guesses_needed(512, 16, 1, 1.0) == 32
    assert guesses_needed(512, 16, 3, 0.94) == pytest.approx(
        512 / 16 * 511 / 15 * 510 / 14 * 4 / 0.94
    )


@pytest.mark.parametrize(("rank", "guessed"), [(N, 1), (RANK, 0), (RANK, ALPHA)])
def test_what_makes_no_sense_is_refused(rank, guessed, rng):
    with pytest.raises(ParameterError):
        recover_from_subspace(
            np.eye(N, dtype=np.float32), np.eye(N)[:, :rank], ALPHA, rng, guessed=guessed
        )
