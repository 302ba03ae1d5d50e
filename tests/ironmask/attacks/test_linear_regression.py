"""The published attack on several issues needs the trials that its formula says."""

from __future__ import annotations

import numpy as np
import pytest
from support.issues import capture, issued, unit
from support.marks import slow

from ironmask import codeword
from ironmask.attacks import recover_by_regression, regression_bits
from ironmask.errors import ParameterError
from ironmask.params import Structure

N, ALPHA = 64, 4


@pytest.fixture
def rng():
    return np.random.default_rng(31)


def test_the_published_figures():
    assert regression_bits(512, 16, 2) == pytest.approx(32.6, abs=0.05)
    assert regression_bits(512, 16, 511) == pytest.approx(23.4, abs=0.05)


def test_four_rows_of_quaternions_are_one_and_wide_codes_have_more_zeros():
    quaternionic = Structure.QUATERNIONIC
    assert regression_bits(512, 16, 2, 512, quaternionic) == pytest.approx(32.3, abs=0.05)
    assert regression_bits(512, 16, 2, 1024) < regression_bits(512, 16, 2) / 2


@pytest.mark.slow
@pytest.mark.parametrize("structure", Structure)
@pytest.mark.parametrize(("issues", "code_width"), [(2, N), slow(4, N)])
def test_trials_are_as_predicted(issues, code_width, structure, rng):
    trials = []
    for _ in range(30):
        template = unit(rng, N)
        stolen = issued([template] * issues, rng, ALPHA, "float32", code_width, structure)
        found = recover_by_regression(stolen, ALPHA, rng, structure=structure)
        assert found.cosine(*[template] * issues) > 0.999
        trials.append(found.trials)
    # Trials come in batches of 64, of which the last is used up by half on average.
    expected = 2 ** regression_bits(N, ALPHA, issues, code_width, structure) + 32
    assert expected / 2 < np.mean(trials) < 2 * expected


def test_captures_that_differ_a_little(rng):
    template = unit(rng, N)
    captures = [template, capture(template, 3, rng)]
    found = recover_by_regression(issued(captures, rng, ALPHA), ALPHA, rng)
    assert found.cosine(*captures) > 0.999


def test_different_people_give_nothing(rng):
    helpers = issued([unit(rng, N), unit(rng, N)], rng, ALPHA)
    found = recover_by_regression(helpers, ALPHA, rng, limit=1000)
    assert (found.success, found.trials) == (False, 1000)


def test_a_digest_decides_the_sign(rng):
    template = unit(rng, N)
    helpers = issued([template] * 2, rng, ALPHA)
    known = [codeword.decode(p @ template, ALPHA)[0].tolist() for p in helpers]
    found = recover_by_regression(
        helpers, ALPHA, rng, confirm=lambda codes: [c.tolist() for c in codes] == known
    )
    assert found.templates[0] @ template > 0.999


def test_what_makes_no_sense_is_refused(rng):
    with pytest.raises(ParameterError, match="two issues"):
        recover_by_regression(issued([unit(rng, N)], rng, ALPHA), ALPHA, rng)
    with pytest.raises(ParameterError, match="cannot all be zero"):
        regression_bits(64, 40, 2)
