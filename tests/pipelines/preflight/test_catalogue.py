"""The shipped acceptance of settings is what is measured again."""

from __future__ import annotations

import numpy as np
import pytest

from ironmask import PRESETS, Params, preset
from ironmask.acceptance import DRAWS, measured
from ironmask.choosing import FLOOR_BITS, Limits, catalogue
from ironmask.params import structure_for
from pipelines.preflight.catalogue import acceptances, shipped

N = 512
AGAIN = 1500
# Standard errors; a curve has a dozen shares that are neither 0 nor 1.
LIMIT = 4.5
EVERY = Limits(None, bits=FLOOR_BITS, kib=1e6)


@pytest.mark.parametrize("key", [(512, 16, 4), (768, 14, 1), (1024, 16, 3), (2048, 28, 0)])
def test_it_is_measured_again(key):
    code_width, alpha, tolerance = key
    params = Params(N, alpha, tolerance, code_width)
    found = measured(params, np.random.default_rng(4), AGAIN)[tolerance].shares
    kept = shipped()[key].shares
    middle = (found + kept) / 2
    spread = middle * (1 - middle) * (1 / DRAWS + 1 / AGAIN)
    assert (np.abs(found - kept) <= LIMIT * np.sqrt(spread) + 1 / AGAIN).all()


def test_the_whole_catalogue_is_there():
    offered = {(p.code_width, p.alpha, p.tolerance) for p in catalogue(N, "int8", EVERY)}
    assert offered == shipped().keys()
    usual = {preset(name) for name in PRESETS}
    assert {(p.code_width, p.alpha, p.tolerance) for p in usual} <= offered


def test_what_is_not_there_is_measured_and_the_same_each_time():
    """A run that goes on must choose what it chose before."""
    params = Params(96, 12, 1, 100, structure_for(96, 100))
    assert (100, 12, 1) not in shipped()
    ((one, first),) = acceptances([params])
    ((_, again),) = acceptances([params])
    assert one is params
    assert np.array_equal(first.shares, again.shares)
    assert 0 < first.shares.sum() < len(first.shares)


def test_whoever_waits_for_curves_is_told_once(caplog):
    some = [Params(104, alpha, e) for alpha in (12, 14) for e in (0, 1)]
    told = []
    for every in (some, some, [preset(name) for name in PRESETS]):
        caplog.clear()
        list(acceptances(every))
        told.append(caplog.messages)
    (first,), again, shipped_ones = told
    assert "measuring 2 curves of acceptance" in first
    assert "codes of 104 entries" in first
    assert again == shipped_ones == []
