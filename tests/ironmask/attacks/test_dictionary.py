"""A helper in the clear picks its owner out of a crowd; digests are never asked."""

from __future__ import annotations

import numpy as np
import pytest
from support.issues import capture, issued, unit

from ironmask.attacks import best_match, codeword_cosines, dictionary_bits
from ironmask.errors import ParameterError, TemplateError
from ironmask.params import Structure

N, ALPHA = 512, 16


@pytest.fixture
def rng():
    return np.random.default_rng(29)


@pytest.mark.parametrize("structure", Structure)
@pytest.mark.parametrize("code_width", [N, 2 * N])
def test_another_photo_stands_out_of_a_crowd(code_width, structure, rng):
    template = unit(rng, N)
    (helper,) = issued([template], rng, ALPHA, "int8", code_width, structure)
    crowd = rng.standard_normal((5000, N))
    crowd[1234] = 7 * capture(template, 50, rng)
    found = best_match(helper, crowd, ALPHA)
    assert found.place == 1234
    assert found.deviations > 8
    assert found.score > 0.6


def test_scores_are_cosines(rng):
    template = unit(rng, N)
    (helper,) = issued([template], rng, ALPHA)
    scores = codeword_cosines(helper, np.stack([template, unit(rng, N)]), ALPHA)
    assert scores[0] == pytest.approx(1, abs=1e-4)
    u = np.sort(np.abs(helper @ unit(rng, N)))[-ALPHA:]
    assert scores[1] == pytest.approx(u.sum() / 4, abs=0.1)


def test_bits_of_a_rate():
    assert dictionary_bits(1, 1 << 20) == (20.0, True)
    bits, measured = dictionary_bits(0, 3 << 20)
    assert (bits, measured) == (20.0, False)
    assert dictionary_bits(0, 1) == (0.0, False)


def test_what_makes_no_sense_is_refused(rng):
    helper = np.eye(N, dtype=np.float32)
    with pytest.raises(ParameterError, match="three"):
        best_match(helper, rng.standard_normal((2, N)), ALPHA)
    with pytest.raises(TemplateError):
        codeword_cosines(helper, np.zeros((2, N)), ALPHA)
    with pytest.raises(ParameterError):
        dictionary_bits(2, 1)
