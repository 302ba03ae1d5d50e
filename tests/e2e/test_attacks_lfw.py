"""What one stolen row of a real model gives away, with a subspace measured on other people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import issues

from ironmask import Params
from ironmask.arrays import unit_rows
from ironmask.attacks import foretell, recover_from_issues, recover_from_row
from ironmask.filling import Filling
from ironmask.spectrum import Spectrum

N = 512
SQUARE = Params(N, 16, 0)


@pytest.fixture(scope="module")
def people(shared: Path):
    """Embeddings of the people that a thief knows, and of those whose rows were stolen."""
    content = np.load(shared / "faces" / "lfw_w600k_mbf_embeddings.npz")
    _, owner = np.unique(content["label"], return_inverse=True)
    vectors = content["emb"].astype(np.float64)
    return vectors[owner % 2 == 0], vectors[owner % 2 == 1]


def test_the_subspace_leaves_no_bits(people):
    space = Spectrum.of(people[0], N)
    assert space.effective_rank < 300
    assert space.bits_left(Params(N, 16, 0)) == 0


@pytest.mark.parametrize("alpha", [8, 16])
def test_one_row_gives_its_template(people, alpha):
    known, stolen = people
    rng = np.random.default_rng(alpha)
    space = Spectrum.of(known, N)
    for template in stolen[rng.permutation(len(stolen))[:3]]:
        (decoded,) = issued([template], alpha, rng)
        found = recover_from_row(decoded, space, alpha, rng, seconds=60)
        assert found.cosine(template) > 0.999
        assert found.bits < 18


def test_what_filling_is_worth(people):
    """Little noise is none; a fifth of the energy, and not one right guess in many helps."""
    known, stolen = people
    rng = np.random.default_rng(3)
    space = Spectrum.of(known, N)
    some = unit_rows(stolen[rng.permutation(len(stolen))[:4]], N)
    plain = foretell(some, space, SQUARE, rng)
    assert plain.bits < 12
    weak, strong = (Filling.of(space, share) for share in (0.05, 0.2))
    assert foretell(some, space, SQUARE, rng, filling=weak).bits < 20
    assert foretell(some, space, SQUARE, rng, filling=strong).is_bound


@pytest.mark.slow
def test_two_photos_of_one_person(people):
    """Near ones fall, distant ones do not: the capture is what differs, not the person."""
    _, stolen = people
    rng = np.random.default_rng(5)
    unit = unit_rows(stolen, N)
    for low, high, recovered in ((10, 25, True), (50, 60, False)):
        first, second = _pair_at(unit, low, high)
        found = recover_from_issues(issued([first, second], 16, rng), 16, rng, limit=1 << 14)
        assert found.success == recovered
        if recovered:
            assert found.cosine(first, second) > 0.999


def _pair_at(unit, low, high):
    cosine = unit[:3000] @ unit[:3000].T
    places = np.argwhere((cosine < np.cos(np.radians(low))) & (cosine > np.cos(np.radians(high))))
    return unit[places[0]]


def issued(templates, alpha, rng):
    """Helpers as a thief decodes them, (b, n, n)."""
    return issues.issued(unit_rows(templates, N), rng, alpha, "int8")
