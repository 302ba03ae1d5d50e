"""The trade-off of memory for time works at toy sizes, at the cost that its formula says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.issues import capture, issued, unit

from ironmask.attacks import recover_by_tradeoff, tradeoff_operations
from ironmask.attacks.tradeoff import joins_needed, table_size
from ironmask.errors import ParameterError
from ironmask.params import Structure

ALPHA = 4


@pytest.fixture
def rng():
    return np.random.default_rng(43)


@pytest.mark.parametrize("structure", Structure)
@pytest.mark.parametrize("places", [2, 4])
@pytest.mark.parametrize(("n", "code_width"), [(32, 32), (48, 48), (32, 48)])
def test_exact_issues_at_the_cost_of_the_formula(n, code_width, places, structure, rng):
    operations = []
    for _ in range(40):
        template = unit(rng, n)
        stolen = issued([template] * 2, rng, ALPHA, "float32", code_width, structure)
        found = recover_by_tradeoff(stolen, ALPHA, rng, places=places, structure=structure)
        assert found.recovered.cosine(template, template) > 0.999
        assert found.recovered.trials == 1
        operations.append(found.operations)
    # One sub-table is sorted and searched for three sums, where the supplement takes all l.
    sorted_tables, counted = 4, 2 * places
    ratio = np.mean(operations) / tradeoff_operations(code_width, ALPHA, places)
    assert ratio == pytest.approx(sorted_tables / counted, rel=0.3)


@pytest.mark.parametrize("n", [32, pytest.param(48, marks=pytest.mark.slow)])
def test_noise_makes_more_joins_necessary_and_each_of_them_useless(n, rng):
    """In a window of one deviation .68 of the entries stay, and chance fills the joins."""
    degrees, joins, operations = 5, [], []
    window = np.sin(np.radians(degrees)) / np.sqrt(n)
    for _ in range(15):
        template = unit(rng, n)
        captures = [template, capture(template, degrees, rng)]
        found = recover_by_tradeoff(
            issued(captures, rng, ALPHA), ALPHA, rng, places=2, window=window, limit=64, least=0.93
        )
        assert found.recovered.cosine(*captures) > 0.999
        joins.append(found.recovered.trials)
        operations.append(found.operations)
    expected = joins_needed(2, 0.683)
    assert expected / 2 < np.mean(joins) < 2 * expected
    assert joins_needed(2) < expected / 2
    assert np.mean(operations) > 5 * tradeoff_operations(n, ALPHA, 2, 0.683)


def test_different_people_give_nothing(rng):
    stolen = issued([unit(rng, 32), unit(rng, 32)], rng, ALPHA)
    found = recover_by_tradeoff(stolen, ALPHA, rng, limit=3)
    assert (found.recovered.success, found.recovered.trials) == (False, 3)


def test_sizes(rng):
    assert math.log2(table_size(512, 16)) == pytest.approx(64.6, abs=0.05)
    for alpha, n in ((5, 64), (16, 512)):
        with pytest.raises(ParameterError, match="half-sums"):
            recover_by_tradeoff(np.zeros((2, n, n), dtype=np.float32), alpha, rng)
