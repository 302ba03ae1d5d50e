"""What one stolen row of a real model gives away, with a subspace measured on other people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ironmask import Params
from ironmask.arrays import unit_rows
from ironmask.attacks import (
    foretell,
    fresh_issues,
    guesses_by_width,
    recover_from_issues,
    recover_from_row,
    recover_from_width,
)
from ironmask.errors import ParameterError
from ironmask.filling import Filling
from ironmask.params import PRESETS, Structure, preset
from ironmask.spectrum import Spectrum

N = 512


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


@pytest.mark.parametrize("structure", Structure)
@pytest.mark.parametrize("alpha", [8, 16])
def test_one_row_gives_its_template(people, alpha, structure):
    known, stolen = people
    rng = np.random.default_rng(alpha)
    space, params = Spectrum.of(known, N), Params(N, alpha, 0, structure=structure)
    for template in stolen[rng.permutation(len(stolen))[:3]]:
        (decoded,) = issued([template], params, rng)
        found = recover_from_row(decoded, space, alpha, rng, seconds=60, structure=structure)
        assert found.cosine(template) > 0.999
        assert found.bits < 18


@pytest.mark.parametrize("name", PRESETS)
def test_one_wide_row_gives_its_template_to_a_thief_without_the_model(people, name):
    """In about as many guesses as its width says, and no helper that is square."""
    params = preset(name, N)
    template, rng = people[1][7], np.random.default_rng(9)
    (decoded,) = issued([template], params, rng)
    if not params.is_wide:
        with pytest.raises(ParameterError, match="not wide"):
            recover_from_width(decoded, params.alpha, rng)
        return
    found = recover_from_width(decoded, params.alpha, rng, structure=params.structure)
    assert found.cosine(template) > 0.999
    assert found.trials < 8 * guesses_by_width(params.code_width, params.alpha, params.structure)


@pytest.mark.slow
def test_what_filling_is_worth(people):
    """Little noise is none; a fifth of the energy, and not one right guess in many helps."""
    known, stolen = people
    rng = np.random.default_rng(3)
    space = Spectrum.of(known, N)
    some = unit_rows(stolen[rng.permutation(len(stolen))[:4]], N)
    params = Params(N, 16, 0)
    plain = foretell(some, space, params, rng)
    assert plain.bits < 12
    weak, strong = (Filling.of(space, share) for share in (0.05, 0.2))
    assert foretell(some, space, params, rng, filling=weak).bits < 20
    assert foretell(some, space, params, rng, filling=strong).is_bound


@pytest.mark.slow
@pytest.mark.parametrize("structure", Structure)
def test_two_photos_of_one_person(people, structure):
    """Near ones fall, distant ones do not: the capture is what differs, not the person."""
    _, stolen = people
    rng = np.random.default_rng(5)
    unit, params = unit_rows(stolen, N), Params(N, 16, 0, structure=structure)
    for low, high, recovered in ((10, 25, True), (50, 60, False)):
        first, second = _pair_at(unit, low, high)
        both = issued([first, second], params, rng)
        found = recover_from_issues(both, 16, rng, limit=1 << 14, structure=structure)
        assert found.success == recovered
        if recovered:
            assert found.cosine(first, second) > 0.999


def _pair_at(unit, low, high):
    cosine = unit[:3000] @ unit[:3000].T
    places = np.argwhere((cosine < np.cos(np.radians(low))) & (cosine > np.cos(np.radians(high))))
    return unit[places[0]]


def issued(templates, params, rng):
    """Helpers as a thief decodes them, (b, N, n)."""
    made = fresh_issues(unit_rows(np.stack(templates), N), params, rng)
    return np.stack([decoded for decoded, _ in made])
