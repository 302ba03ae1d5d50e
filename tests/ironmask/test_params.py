"""Parameters: bits as published and measured, presets, refusals."""

from __future__ import annotations

import itertools
from dataclasses import FrozenInstanceError
from math import comb, log2

import pytest

from ironmask import DEFAULT_PRESET, PRESETS, Params, preset
from ironmask.errors import ParameterError
from ironmask.params import (
    MAX_DIGESTS,
    MAX_N,
    MIN_N,
    SCHEME_VERSION,
    Structure,
    structure_for,
)

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


# N, alpha, tolerance and the bits that the design measured with.
WIDE_BITS = [
    (768, 16, 3, 95.8),
    (1024, 18, 3, 114.9),
    (1024, 16, 3, 101.2),
    (1536, 20, 4, 128.8),
    (1536, 16, 2, 118.9),
    (2048, 16, 1, 135.7),
]


@pytest.mark.parametrize(("code_width", "alpha", "tolerance", "bits"), WIDE_BITS)
@pytest.mark.parametrize("structure", Structure)
def test_bits_are_those_of_the_codes_width(code_width, alpha, tolerance, bits, structure):
    """The structure of the helper does not count, nor does the width of the embedding."""
    params = Params(512, alpha, tolerance, code_width, structure)
    assert round(params.bits, 1) == bits
    assert params.bits == Params(256, alpha, tolerance, code_width, structure).bits


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


def test_the_default_is_one_of_the_presets():
    assert DEFAULT_PRESET == "balanced"
    assert DEFAULT_PRESET in PRESETS
    assert {"paper", "compact", "strict"} < set(PRESETS)


def test_the_papers_preset_is_square_and_real():
    assert preset("paper") == Params(512, 16, 0)
    assert preset("paper").helper_shape == (512, 512)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("n", [64, 65, 66, 256, 512, 1000])
def test_presets_take_the_width(name, n):
    chosen, params = PRESETS[name], preset(name, n)
    assert (params.alpha, params.tolerance) == (chosen.alpha, chosen.tolerance)
    assert (params.n, params.code_width) == (n, chosen.widening * n)
    fits = n % 4 == 0 and chosen.prefers is Structure.QUATERNIONIC
    assert params.structure is (Structure.QUATERNIONIC if fits else Structure.REAL)
    assert params.version == SCHEME_VERSION


@pytest.mark.parametrize("name", PRESETS)
def test_presets_keep_eighty_bits(name):
    assert preset(name).bits >= 80


def test_the_stronger_presets_have_more_bits():
    compact, balanced, strict = (preset(name).bits for name in ("compact", "balanced", "strict"))
    assert compact < balanced < strict


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(ParameterError, match=", ".join(PRESETS)):
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
    assert Params(512, 16, 3, 1024, "quaternionic").describe() == (
        "n 512, code 1024 wide, quaternionic, alpha 16, tolerance 3 (101.2 bits against guessing)"
    )


def test_a_code_without_a_width_has_that_of_the_embedding():
    assert Params(512, 16, 4, 0) == Params(512, 16, 4, 512) == Params(512, 16, 4)
    assert not Params(512, 16, 4).is_wide
    assert Params(512, 16, 4, 513).is_wide


@pytest.mark.parametrize(
    ("structure", "code_width", "shape"),
    [
        ("real", 512, (512, 512)),
        ("real", 1024, (1024, 512)),
        ("quaternionic", 512, (128, 512)),
        ("quaternionic", 1024, (256, 512)),
    ],
)
def test_shape_of_the_stored_helper(structure, code_width, shape):
    params = Params(512, 16, 3, code_width, structure)
    assert params.helper_shape == shape
    assert params.structure is Structure(structure)


@pytest.mark.parametrize(
    ("n", "code_width", "expected"),
    [(512, 1024, "quaternionic"), (512, 1022, "real"), (510, 1024, "real"), (65, 65, "real")],
)
def test_structure_where_four_divides_both_widths(n, code_width, expected):
    assert structure_for(n, code_width) == expected
    Params(n, 8, 0, code_width, structure_for(n, code_width))


@pytest.mark.parametrize(("n", "code_width"), [(66, 132), (64, 66), (65, 0), (510, 1020)])
def test_quaternionic_widths_that_four_does_not_divide_are_refused(n, code_width):
    with pytest.raises(ParameterError, match=r"widths that 4 divides.*use structure real"):
        Params(n, 8, 0, code_width, "quaternionic")


@pytest.mark.parametrize(("n", "code_width"), [(512, 511), (512, 64), (512, -1), (64, MAX_N + 1)])
def test_codes_narrower_than_the_embedding_or_too_wide_are_refused(n, code_width):
    with pytest.raises(ParameterError, match=f"the code's width is {code_width}.*n is {n}"):
        Params(n, 8, 0, code_width)


@pytest.mark.parametrize("structure", ["complex", "", "Real", "octonionic"])
def test_unknown_structures_are_refused(structure):
    with pytest.raises(ParameterError, match="the structures are real, quaternionic"):
        Params(512, 16, 4, structure=structure)


@pytest.mark.parametrize("version", [0, 3, -1])
def test_unknown_versions_are_refused(version):
    with pytest.raises(ParameterError, match=f"scheme version {version} is unknown.*upgrade"):
        Params(512, 16, 4, version=version)


@pytest.mark.parametrize(
    "other", [{"code_width": 1024}, {"structure": "quaternionic"}, {"code_width": 513}]
)
def test_version_1_has_square_real_helpers_alone(other):
    assert Params(512, 16, 4, version=1).helper_shape == (512, 512)
    with pytest.raises(ParameterError, match="version 1 has square real helpers alone"):
        Params(512, 16, 4, version=1, **other)


def test_alpha_may_exceed_the_embedding_where_the_code_is_wide():
    assert Params(64, 65, 0, 128).alpha == 65
    with pytest.raises(ParameterError, match=r"1\.\.64"):
        Params(64, 65, 0)


@pytest.mark.parametrize(
    "params",
    [
        Params(512, 16, 4, version=1),
        Params(512, 16, 4),
        Params(65, 8, 1, 130),
        Params(512, 18, 3, 1024, "quaternionic"),
    ],
)
def test_what_a_row_records_gives_the_parameters_back(params):
    assert Params.recorded(params.recording()) == params
    assert all(type(value) in (int, str) for value in params.recording().values())


def test_records_of_version_1_name_neither_width_nor_structure():
    expected = Params(512, 16, 4, version=1)
    assert Params.recorded({"n": 512, "alpha": 16, "tolerance": 4}) == expected
    as_row = {"scheme_version": 1, "code_width": None, "structure": None}
    assert Params.recorded({"n": 512, "alpha": 16, "tolerance": 4, **as_row}) == expected


@pytest.mark.parametrize("other", [{}, {"structure": "octonionic"}, {"alpha": 500}])
def test_a_version_of_a_later_release_is_refused_whatever_it_holds(other):
    of = {"n": 512, "alpha": 16, "tolerance": 4, "scheme_version": 3, **other}
    with pytest.raises(ParameterError, match="version 3 is unknown"):
        Params.recorded(of)
