"""Noise where embeddings are not: unit vectors, a known loss of cosine, a flat spectrum."""

from __future__ import annotations

import numpy as np
import pytest

from ironmask import Params, protect, verify
from ironmask.attacks import codeword_cosines
from ironmask.errors import ParameterError, TemplateError
from ironmask.filling import Filling
from ironmask.helper import decode
from ironmask.spectrum import Spectrum

N, RANK, SHARE = 128, 80, 0.2
KEY = bytes(32)


@pytest.fixture
def rng():
    return np.random.default_rng(53)


@pytest.fixture
def basis(rng):
    return np.linalg.qr(rng.standard_normal((N, N)))[0]


@pytest.fixture
def embeddings(basis, rng):
    found = rng.standard_normal((4000, RANK)) @ basis[:, :RANK].T
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_what_is_mixed_in(basis, embeddings, rng):
    filling = Filling(basis[:, RANK:], SHARE)
    filled = filling.filled(embeddings, rng)
    np.testing.assert_allclose(np.linalg.norm(filled, axis=1), 1, atol=1e-12)
    cosines = (filled * embeddings).sum(axis=1)
    np.testing.assert_allclose(cosines, np.sqrt(1 - SHARE), atol=1e-12)
    inside = filled @ basis[:, RANK:]
    np.testing.assert_allclose((inside**2).sum(axis=1), SHARE, atol=1e-12)
    # Every time another noise, without a preferred direction.
    again = filling.filled(embeddings, rng) @ basis[:, RANK:]
    assert abs((inside * again).sum(axis=1).mean()) < 0.01
    moments = inside.T @ inside / len(inside) * (N - RANK) / SHARE
    assert np.abs(moments - np.eye(N - RANK)).max() < 0.15


def test_its_spectrum_is_the_measured_one(embeddings, rng):
    space = Spectrum.of(embeddings, N)
    filling = Filling.of(space, SHARE, N - RANK)
    measured = Spectrum.of(filling.filled(embeddings, rng), N)
    foretold = filling.spectrum(space)
    np.testing.assert_allclose(measured.eigenvalues, foretold.eigenvalues, atol=2e-3)
    params = Params(N, 16, 0)
    assert space.bits_left(params) == 0
    assert foretold.bits_left(params) > 50


def test_a_filled_row_verifies(embeddings, rng):
    space = Spectrum.of(embeddings, N)
    filling = Filling.of(space, SHARE, N - RANK)
    for fill, cosine in ((filling, np.sqrt(1 - SHARE)), (None, 1)):
        row = protect(embeddings[0], Params(N, 8, 2), KEY, filling=fill)
        assert verify(row, embeddings[0], KEY)
        assert not verify(row, embeddings[1], KEY)
        (p,) = decode([row.helper], row.params, row.encoding)
        assert codeword_cosines(p, embeddings[:1], 8)[0] == pytest.approx(cosine, abs=0.01)


def test_what_makes_no_sense_is_refused(basis):
    for share in (0, 1, -0.1, float("nan")):
        with pytest.raises(ParameterError, match="share"):
            Filling(basis[:, RANK:], share)
    for columns in (0, N):
        with pytest.raises(ParameterError, match="directions"):
            Filling(basis[:, :columns], SHARE)
    with pytest.raises(TemplateError, match="filled"):
        Filling(basis[:, RANK:], SHARE).filled(basis[:, -1][None], np.random.default_rng())


def test_nothing_is_shown(basis):
    assert "array" not in repr(Filling(basis[:, RANK:], SHARE))
