"""Parameters: bits as published and measured, presets, refusals."""

from __future__ import annotations

import itertools
from dataclasses import FrozenInstanceError
from math import comb, log2

import pytest

from ironmask import DEFAULT_PRESET, PRESETS, Params, preset
from ironmask.errors import ParameterError
from ironmask.params import MAX_DIGESTS, MAX_N, MIN_N

CODEBOOK_BITS = [
    (8, 64.62, 2),
    (10, 78.1, 1),
    (12, 90.98, 2),
    (14, 103.40, 2),
    (16, 115.41, 2),
    (20, 138.4, 1),
    (24, 160.17, 2),
    (32, 200.9, 1),
]
TOLERANCE_BITS = [
    (16, 1, 105.5),
    (16, 2, 96.5),
    (16, 3, 88.1),
    (16, 4, 80.1),
    (16, 5, 72.5),
    (20, 4, 103.2),
    (14, 3, 76.1),
    (12, 1, 81.0),
]


@pytest.mark.parametrize(("alpha", "bits", "digits"), CODEBOOK_BITS)
def test_codebook_bits_at_512(alpha, bits, digits):
    params = Params(512, alpha, 0)
    assert round(params.codebook_bits, digits) == bits
    assert params.bits == params.codebook_bits


@pytest.mark.parametrize(("alpha", "tolerance", "bits"), TOLERANCE_BITS)
def test_bits_left_by_a_tolerance(alpha, tolerance, bits):
    assert round(Params(512, alpha, tolerance).bits, 1) == bits


@pytest.mark.parametrize(
    ("name", "bits"), [("paper", 115.4), ("balanced", 80.1), ("strict", 103.2)]
)
def test_preset_bits(name, bits):
    assert round(preset(name).bits, 1) == bits


def test_codebook_bits_count_every_codeword():
    supports = itertools.combinations(range(64), 2)
    codewords = sum(len(list(itertools.product((-1, 1), repeat=len(s)))) for s in supports)
    assert Params(64, 2, 0).codebook_bits == pytest.approx(log2(codewords))


def test_bits_formula_away_from_512():
    expected = log2(comb(128, 7) * 2**7 / comb(9, 7))
    assert Params(128, 9, 2).bits == pytest.approx(expected)


def test_match_size_and_digest_count():
    params = Params(512, 16, 4)
    assert params.match_size == 12
    assert params.digest_count == 1820


def test_presets_are_three_and_the_default_is_one_of_them():
    assert set(PRESETS) == {"paper", "balanced", "strict"}
    assert DEFAULT_PRESET == "balanced"
    assert preset(DEFAULT_PRESET) == Params()


def test_preset_takes_the_width():
    assert preset("strict", 256) == Params(256, 20, 4)


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(ParameterError, match="paper, balanced, strict"):
        preset("fast")


def test_digest_limit_is_8192():
    assert MAX_DIGESTS == 8192
    assert Params(512, 128, 2).digest_count == 8128
    with pytest.raises(ParameterError, match="8,568"):
        Params(512, 18, 5)
    with pytest.raises(ParameterError, match=r"1\.\.128"):
        Params(512, 129, 1)


@pytest.mark.parametrize(("alpha", "tolerance"), [(20, 4), (32, 3), (128, 1)])
def test_tolerances_below_the_limit_are_accepted(alpha, tolerance):
    assert Params(512, alpha, tolerance).digest_count == comb(alpha, tolerance)


@pytest.mark.parametrize(("alpha", "tolerance"), [(20, 5), (24, 4), (16, 8)])
def test_tolerances_above_the_limit_are_refused(alpha, tolerance):
    with pytest.raises(ParameterError, match="lower the tolerance"):
        Params(512, alpha, tolerance)


@pytest.mark.parametrize(
    ("n", "alpha", "tolerance", "named"),
    [
        (MIN_N - 1, 8, 0, "n is 63"),
        (MAX_N + 1, 8, 0, "n is"),
        (512, 0, 0, "alpha is 0"),
        (64, 65, 0, "alpha is 65"),
        (512, 16, -1, "tolerance is -1"),
        (512, 16, 16, "tolerance is 16"),
    ],
)
def test_out_of_range_is_refused(n, alpha, tolerance, named):
    with pytest.raises(ParameterError, match=named):
        Params(n, alpha, tolerance)


@pytest.mark.parametrize("n", [MIN_N, MAX_N])
def test_extreme_widths_are_accepted(n):
    assert Params(n, 8, 0).n == n


def test_params_are_values():
    assert Params() == Params(512, 16, 4)
    assert hash(Params()) == hash(Params(512, 16, 4))
    with pytest.raises(FrozenInstanceError):
        Params().alpha = 8  # type: ignore[misc]


def test_describe_states_the_bits():
    assert Params().describe() == "n 512, alpha 16, tolerance 4 (80.1 bits against guessing)"
