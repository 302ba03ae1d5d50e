"""Decode success against the angle between template and probe, isotropic noise, n = 512.

By rotation invariance P t' is the codeword turned by the angle towards a uniform direction, so the
cells are drawn there; some go through real rows as well.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from ironmask import Params, codeword, helper, protect_batch, verify_batch
from ironmask.params import Structure

N, WIDE = 512, 1024
ANGLES = (40, 45, 47, 50, 55)
TABLE = {
    8: (1.000, 1.000, 1.000, 0.999, 0.932),
    12: (1.000, 0.995, 0.971, 0.859, 0.315),
    14: (0.999, 0.961, 0.879, 0.617, 0.090),
    16: (0.996, 0.870, 0.688, 0.341, 0.015),
    24: (0.726, 0.141, 0.036, 0.002, 0.000),
}
CELLS = [
    (alpha, angle, success)
    for alpha, row in TABLE.items()
    for angle, success in zip(ANGLES, row, strict=True)
]
# The printed table was itself measured on some thousand trials; more of ours would test its luck.
PRINTED_TRIALS = 2_000
TRIALS = 8_000
ROWS, PROBES = 40, 100
PRINTED_DIGITS = 0.0005
MILLION = 1_000_000


def probes_at(angle, vectors, rng):
    """Unit vectors at exactly this angle from the given ones, uniform among those."""
    noise = rng.standard_normal(vectors.shape)
    noise -= np.sum(noise * vectors, axis=1, keepdims=True) * vectors
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    return np.cos(np.radians(angle)) * vectors + np.sin(np.radians(angle)) * noise


def assert_printed_rate(observed, printed):
    """Within four standard errors of some rate that prints as the table does."""
    low, high = max(printed - PRINTED_DIGITS, 0), min(printed + PRINTED_DIGITS, 1)
    rate = min(max(printed, PRINTED_DIGITS), 1 - PRINTED_DIGITS)
    error = np.sqrt(rate * (1 - rate) / PRINTED_TRIALS)
    assert low - 4 * error <= observed <= high + 4 * error


def assert_precise_rate(observed, rate, trials, between=0.0):
    """Within four standard errors of a rate measured on a million trials, and one trial.

    between: the standard error that differences between rows add.
    """
    error = np.sqrt(rate * (1 - rate) * (1 / trials + 1 / MILLION) + between**2)
    assert abs(observed - rate) <= 4 * error + 1 / trials


def decode_success(alpha, angle, trials):
    rng = np.random.default_rng([alpha, angle])
    code = codeword.sample(rng, N, alpha, trials)
    found = codeword.decode(probes_at(angle, codeword.dense(code, N), rng), alpha)
    return (found == code).all(axis=1).mean()


@pytest.fixture(scope="module")
def precise(vectors):
    """Rates of a million trials without the package, by the code's width, alpha and angle."""
    return {
        (cell.get("code_width", N), cell["alpha"], angle): rate
        for cell in vectors("decode_rates")
        for angle, rate in zip(cell["angles"], cell["rates"], strict=True)
    }


@pytest.mark.parametrize(("alpha", "angle", "printed"), CELLS)
def test_decode_success_is_that_of_the_table(alpha, angle, printed):
    assert_printed_rate(decode_success(alpha, angle, PRINTED_TRIALS), printed)


@pytest.mark.parametrize(("alpha", "angle", "printed"), CELLS)
def test_decode_success_agrees_with_an_independent_program(alpha, angle, printed, precise):
    assert_precise_rate(decode_success(alpha, angle, TRIALS), precise[N, alpha, angle], TRIALS)


@pytest.mark.parametrize("encoding", [pytest.param("float32", marks=pytest.mark.slow), "int8"])
@pytest.mark.parametrize("structure", Structure)
@pytest.mark.parametrize("alpha", [12, 16, 24])
def test_decode_success_through_real_rows(alpha, structure, encoding, precise):
    """The same rows meet probes at every angle of the table, at tolerance 0."""
    accepted = acceptance(Params(N, alpha, 0, N, structure), encoding)
    for angle in ANGLES:
        assert_precise_rate(accepted[angle].mean(), precise[N, alpha, angle], ROWS * PROBES)


@pytest.mark.slow
@pytest.mark.parametrize("structure", Structure)
@pytest.mark.parametrize("alpha", [16, 18])
def test_decode_success_through_wide_rows(alpha, structure, precise):
    """The rate is that of codes of width N. Of one row it differs: noise fills n dimensions."""
    accepted = acceptance(Params(N, alpha, 0, WIDE, structure), "int8")
    for angle in ANGLES:
        of_rows = accepted[angle].mean(axis=1)
        between = of_rows.std() / np.sqrt(ROWS)
        rate = precise[WIDE, alpha, angle]
        assert_precise_rate(of_rows.mean(), rate, ROWS * PROBES, between)
        if 0.1 < rate < 0.9:
            assert abs(of_rows.mean() - precise.get((N, alpha, angle), 0)) > 0.05


def acceptance(params, encoding):
    """Which probes decode to the codeword, of ROWS rows and PROBES probes each: by angle."""
    rng = np.random.default_rng([7, params.alpha])
    templates = rng.standard_normal((ROWS, N))
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    keys = [rng.bytes(32) for _ in range(ROWS)]
    rows = protect_batch(templates, params, keys, encoding=encoding, rng=rng)
    return {
        angle: np.array(
            [
                decoded(row, probes_at(angle, np.tile(t, (PROBES, 1)), rng), t)
                for row, t in zip(rows, templates, strict=True)
            ]
        )
        for angle in ANGLES
    }


def decoded(row, probes, template):
    """Which probes decode to what the template decodes to."""
    vectors = np.concatenate([template[None], probes]).astype(np.float32)
    u = helper.project(row.helper, row.params, row.encoding, vectors)
    found = codeword.decode(u, row.params.alpha)
    return (found[1:] == found[0]).all(axis=1)


def test_trying_more_subsets_accepts_more():
    """At 50 degrees a third of the probes decode to the codeword, and most are found nearby."""
    rng = np.random.default_rng(8)
    template = rng.standard_normal((1, N))
    template /= np.linalg.norm(template)
    probes = probes_at(50, np.tile(template, (200, 1)), rng)
    row = protect_batch(template, Params(N, 16, 0), [b"k" * 32], rng=rng)[0]
    alone = decoded(row, probes, template[0])
    found = verify_batch(row, probes, b"k" * 32)
    assert (found >= alone).all()
    assert found.mean() > alone.mean() + 0.2


@pytest.mark.slow
def test_tolerance_accepts_more_in_order():
    """Every probe that a smaller tolerance accepts, a larger one accepts too."""
    accepted = [accepted_probes(tolerance) for tolerance in range(5)]
    for fewer, more in pairwise(accepted):
        assert (more >= fewer).all()
        assert more.sum() > fewer.sum()


def accepted_probes(tolerance):
    """Answers of one row, the same for every tolerance, to 150 probes at 63 degrees."""
    rng = np.random.default_rng(5)
    template = rng.standard_normal((1, N))
    template /= np.linalg.norm(template)
    probes = probes_at(63, np.tile(template, (150, 1)), np.random.default_rng(6))
    row = protect_batch(template, Params(N, 16, tolerance), [b"k" * 32], rng=rng)[0]
    return verify_batch(row, probes, b"k" * 32)
