"""The rule by which a setting is chosen, on settings whose rates are set by hand."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from ironmask import Params, choosing
from ironmask.acceptance import ANGLES, Acceptance
from ironmask.choosing import Candidate, Limits, catalogue, choose, undominated
from ironmask.errors import ParameterError
from ironmask.metrics import Curve, Expected, Rates
from ironmask.params import Structure, structure_for

N = 512
HIGH = np.linspace(1, 0, 201)


def curve(least=1e-7):
    """Its bound falls from 1 to the least."""
    falling = np.geomspace(1, least, 201)
    fmr = Rates(falling, falling / 2, falling * 2, falling, falling / 4)
    fnmr = Rates(1 - HIGH, *[1 - HIGH] * 4)
    return Curve(np.arange(-100, 101) / 100, 1000, 50_000_000, fmr, fnmr)


def one(params, tar, fmr, error=0.005):
    """A candidate whose FMR has a bound of twice its value."""
    fnmr = 1 - tar
    return Candidate(
        params, "int8", Expected(fmr, fmr / 2, 2 * fmr, 2 * fmr, fmr / 3),
        Expected(fnmr, fnmr - 2 * error, fnmr + 2 * error, fnmr + 2 * error, error),
    )  # fmt: skip


def setting(code_width, alpha, tolerance):
    return Params(N, alpha, tolerance, code_width, structure_for(N, code_width))


SMALL, WIDE, LAX, STRICT = (
    setting(512, 16, 4), setting(1024, 18, 3), setting(1024, 16, 3), setting(1024, 28, 0)
)  # fmt: skip


def test_the_most_accepting_one_that_keeps_to_the_rate():
    every = [one(SMALL, 0.9, 1e-7), one(WIDE, 0.95, 4e-7), one(LAX, 0.97, 2e-6)]
    assert choose(every, curve(), 1e-6).params == WIDE
    assert choose(every, curve(), 1e-5).params == LAX
    assert choose(reversed(every), curve(), 1e-6).params == WIDE


def test_by_the_bound_and_not_by_the_rate_itself():
    every = [one(SMALL, 0.9, 1e-7), one(LAX, 0.97, 6e-7)]
    assert choose(every, curve(), 1e-6).params == SMALL


def test_never_the_one_with_most_bits():
    assert STRICT.bits > 200
    every = [one(STRICT, 0.01, 0.0), one(WIDE, 0.95, 1e-7)]
    assert choose(every, curve(), 1e-6).params == WIDE


def test_within_a_standard_error_the_smaller_row_and_then_more_bits():
    near, apart = one(SMALL, 0.946, 1e-7), one(SMALL, 0.944, 1e-7)
    best = one(WIDE, 0.95, 1e-7)
    assert choose([best, near], curve(), 1e-6) is near
    assert choose([best, apart], curve(), 1e-6) is best
    # As many bytes as another one, and more bits.
    few, many = setting(1024, 16, 0), setting(1024, 18, 0)
    assert choosing.row_bytes(few, "int8") == choosing.row_bytes(many, "int8")
    assert choose([one(few, 0.95, 1e-7), one(many, 0.949, 1e-7)], curve(), 1e-6).params == many


def test_what_so_few_impostors_cannot_tell_is_refused():
    with pytest.raises(ParameterError) as refused:
        choose([one(WIDE, 0.95, 0.0)], curve(least=3e-6), 1e-6)
    said = str(refused.value)
    assert "1e-06 is not supported by 50,000,000 impostor comparisons" in said
    (needed,) = re.findall(r"about ([\d,]+) are needed", said)
    assert int(needed.replace(",", "")) == 150_000_000


def test_nothing_that_qualifies_is_said():
    with pytest.raises(
        ParameterError, match=r"fewer bits, take an encoding.*or ask for a higher FMR"
    ):
        choose([one(LAX, 0.97, 1e-5)], curve(), 1e-6)


def test_a_rate_is_between_0_and_1():
    for wrong in (0.0, 1.0, -1e-6, 3.0):
        with pytest.raises(ParameterError, match="between 0 and 1"):
            Limits(wrong)


def test_the_catalogue_keeps_to_bits_and_bytes():
    limits = Limits(None, bits=100, kib=140)
    some = list(catalogue(N, "int8", limits))
    assert {p.code_width for p in some} == {512, 768, 1024}
    for params in some:
        assert params.bits >= 100
        assert choosing.row_bytes(params, "int8") <= 140 * 1024
        assert params.structure is Structure.QUATERNIONIC
    assert {setting(1024, 18, 3), setting(1024, 16, 2)} <= set(some)
    wider = set(catalogue(N, "int8", replace(limits, kib=1000)))
    assert {p.code_width for p in wider} == {512, 768, 1024, 1536, 2048}
    smaller = {p.code_width for p in catalogue(N, "bits4", limits)}
    assert smaller > {p.code_width for p in some}


@pytest.mark.parametrize("n", [64, 66, 128, 1000])
def test_the_catalogue_is_there_for_any_width(n):
    some = list(catalogue(n, "int8", Limits(None, bits=20, kib=4000)))
    assert {p.code_width for p in some} == {n, n * 3 // 2, 2 * n, 3 * n, 4 * n}


def test_candidates_have_the_rates_of_their_curves():
    step = Acceptance(np.where(np.array(ANGLES) <= 60, 1.0, 0.0))
    none = Acceptance(np.zeros(len(ANGLES)))
    first, second = choosing.candidates([(SMALL, none), (WIDE, step)], "int8", curve())
    assert (first.params, second.params) == (WIDE, SMALL)
    assert second.tar == pytest.approx(0, abs=0.2)
    found = curve()
    # Cosines from .5 on: angles up to 60 degrees.
    place = int(np.searchsorted(found.thresholds, 0.48))
    assert found.fmr.value[place + 2] < first.fmr.value < found.fmr.value[place - 2]


def test_who_is_bettered_in_every_way_is_left_out():
    best = one(WIDE, 0.95, 1e-7)
    worse, other = one(setting(1024, 16, 4), 0.94, 2e-7), one(SMALL, 0.9, 1e-7)
    assert undominated([best, worse, other]) == [best, other]
    assert undominated([best, replace(best)]) == [best, replace(best)]


def test_a_candidate_says_what_it_is():
    said = one(WIDE, 0.95, 1e-7).describe()
    assert "alpha 18" in said
    assert "TAR 0.9500 (0.9400 to 0.9600), FMR 1e-07 (5e-08 to 2e-07, 95 % bound 2e-07)" in said
    assert f"{WIDE.bits:.1f} bits" in said
    assert "KiB a row" in said


def test_no_code_is_wider_than_can_be():
    widths = {params.code_width for params in catalogue(17_000, "int8", Limits(bits=100, kib=1e9))}
    assert widths == {17_000, 25_500, 34_000, 51_000}
