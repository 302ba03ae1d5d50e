"""Spectra add up, find what is not used, and their bound holds where chi-square can be counted."""

from __future__ import annotations

import numpy as np
import pytest

from ironmask import Params
from ironmask.errors import ParameterError, TemplateError
from ironmask.spectrum import Spectrum


@pytest.fixture
def rng():
    return np.random.default_rng(17)


def test_parts_add_up(rng):
    faces = rng.standard_normal((300, 64)) * np.linspace(1, 3, 64)
    whole = Spectrum.of(faces, 64)
    parts = Spectrum.of(faces[:100], 64) + Spectrum.of(faces[100:], 64)
    assert parts.count == whole.count == 300
    np.testing.assert_allclose(parts.eigenvalues, whole.eigenvalues, atol=1e-12)
    assert whole.eigenvalues.sum() == pytest.approx(1)
    unit = faces / np.linalg.norm(faces, axis=1, keepdims=True)
    np.testing.assert_allclose(
        whole.eigenvalues, np.linalg.svd(unit, compute_uv=False) ** 2 / 300, atol=1e-12
    )


def test_a_sphere_that_is_filled_gives_nothing_away(rng):
    found = Spectrum.of(rng.standard_normal((20_000, 64)), 64)
    assert found.effective_rank == pytest.approx(64, abs=0.2)
    params = Params(64, 8, 0)
    assert found.bits_left(params) == pytest.approx(params.bits, abs=0.5)


def test_a_subspace_is_found(rng):
    """Of 64 dimensions 16 are used: the helper alone determines the template."""
    basis = np.linalg.qr(rng.standard_normal((64, 64)))[0]
    found = Spectrum.of(rng.standard_normal((5000, 16)) @ basis[:16], 64)
    assert found.effective_rank == pytest.approx(16, abs=0.1)
    assert found.beyond[16] < 1e-12
    np.testing.assert_allclose(found.directions[:, :16].T @ basis[16:].T, 0, atol=1e-6)
    assert found.known_bits() > 200
    assert found.weakest() == 48
    assert found.bits_left(Params(64, 8, 0)) == 0


def test_bits_are_those_of_the_likelihood(rng):
    """Of a million wrong vectors as many look as right as the bits say, to within a factor."""
    strong, weak, share = 44, 20, 0.25
    scale = np.concatenate([
        np.full(strong, np.sqrt((1 - share) / strong)), np.full(weak, np.sqrt(share / weak))
    ])  # fmt: skip
    found = Spectrum.of(rng.standard_normal((200_000, 64)) * scale, 64)
    inside = (rng.standard_normal((200_000, weak)) ** 2).sum(axis=1) / 64
    outside = (rng.standard_normal((200_000, strong)) ** 2).sum(axis=1) / 64
    ratio = outside / 2 * (64 - strong / (1 - share)) + inside / 2 * (64 - weak / share)
    typical = (1 - share) / 2 * (64 - strong / (1 - share)) + share / 2 * (64 - weak / share)
    measured = -np.log2(np.mean(ratio >= typical))
    # Stein's lemma leaves out a factor that grows with the root of the dimensions.
    assert found.known_bits() <= measured < found.known_bits() + 5


def test_what_is_no_spectrum_is_refused(rng):
    with pytest.raises(ParameterError, match="different widths"):
        Spectrum.of(rng.standard_normal((3, 8)), 8) + Spectrum.of(rng.standard_normal((3, 9)), 9)
    with pytest.raises(ParameterError, match="width 64"):
        Spectrum.of(rng.standard_normal((3, 8)), 8).bits_left(Params(64, 8, 0))
    with pytest.raises(ParameterError, match="no embeddings"):
        _ = Spectrum(0, np.zeros((8, 8))).eigenvalues
    with pytest.raises(TemplateError):
        Spectrum.of(np.full((2, 8), np.nan), 8)
