"""Tiles of templates and probes: exactly the pairs that the full products accept."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.marks import few

from ironmask import Params, algebra, codeword, helper, protect, tiles, verify_batch
from ironmask.rotation import Sampler

steady = settings(deadline=None, derandomize=True, database=None, max_examples=80)


def unit_rows(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def population(rng, params, templates, probes, noise):
    """Helpers, codewords and probes; every second probe is a template with noise of given size."""
    owners = unit_rows(rng.standard_normal((templates, params.n)))
    sampler, width = Sampler.of(params), params.code_width
    helpers, codes = [], codeword.sample(rng, width, params.alpha, templates)
    for owner, code in zip(owners, codeword.dense(codes, width), strict=True):
        rows = sampler.carrying(rng, owner, code).copy()
        helpers.append(algebra.expanded(rows[None], params.structure)[0])
    seen = unit_rows(rng.standard_normal((probes, params.n)))
    own = owners[np.arange(len(seen[::2])) % templates]
    seen[::2] = own + noise * unit_rows(rng.standard_normal(own.shape))
    return helpers, codes, unit_rows(seen).astype(np.float32)


def by_tiles(helpers, codes, probes, params):
    screens = [tiles.screen(p, code) for p, code in zip(helpers, codes, strict=True)]
    found = tiles.accepted(screens, lambda index: helpers[index], probes, params)
    return list(zip(*vars_of(found), strict=True))


def vars_of(found):
    return found.template, found.probe, found.agreement, found.tolerances


def by_full_products(helpers, codes, probes, params):
    found = []
    for index, (p, code) in enumerate(zip(helpers, codes, strict=True)):
        agreement, tolerances = tiles.judge(p, code, probes, params)
        found += [(index, i, agreement[i], tolerances[i]) for i in np.flatnonzero(tolerances)]
    return found


QUATERNIONIC = Params(128, 16, 3, 256, "quaternionic")
WIDE = Params(66, 10, 3, 130)


@pytest.mark.slow
@pytest.mark.parametrize(
    "params",
    [Params(64, 8, 3), Params(128, 16, 4), Params(512, 12, 1), QUATERNIONIC, WIDE],
    ids=lambda p: f"{p.n}-{p.code_width}",
)
def test_judged_as_verification_decides(params, rng, row_key):
    """Rows made and verified as a user does it, at every tolerance."""
    decided = Counter()
    for tolerance in range(params.tolerance + 1):
        some = replace(params, tolerance=tolerance)
        template = rng.standard_normal(params.n)
        noise = rng.uniform(0.6, 2.5, 60)[:, None] * rng.standard_normal((60, params.n))
        probes = unit_rows(template + noise).astype(np.float32)
        row = protect(template, some, row_key, encoding="float32")
        p = helper.decode([row.helper], params, "float32")[0]
        code = codeword.decode(p @ unit_rows(template[None])[0], params.alpha)[0]
        _, tolerances = tiles.judge(p, code, probes, params)
        accepted = verify_batch(row, probes, row_key)
        assert np.array_equal(tolerances >> tolerance & 1 == 1, accepted)
        decided.update(accepted.tolist())
    assert min(decided[True], decided[False]) > 10


@pytest.mark.parametrize("code_width", [512, 1024])
def test_whoever_agrees_within_the_tolerance_is_accepted(code_width, rng):
    params = Params(512, 16, 3, code_width)
    found = by_full_products(*population(rng, params, 10, 400, 2.0), params)
    agree = [pair for pair in found if pair[2] >= params.match_size]
    assert agree
    assert all(pair[3] >> params.tolerance & 1 for pair in agree)
    assert len(agree) < len(found), "trying more subsets accepts more"


# Small alphas and wide tolerances accept impostors in plenty.
MANY = [(64, 8, 0), (64, 8, 5), (64, 3, 2), (100, 16, 6), (256, 12, 4), (512, 16, 4), (512, 20, 0)]
EVERY = [*(Params(*one) for one in MANY), QUATERNIONIC, WIDE, Params(64, 3, 2, 65)]


@pytest.mark.parametrize(
    "params", EVERY, ids=lambda p: f"{p.n}-{p.code_width}-{p.alpha}-{p.tolerance}"
)
@pytest.mark.parametrize("noise", few([0.3, 0.7, 1.0], 0.7))
def test_the_same_pairs_as_full_products(params, noise, rng):
    made = population(rng, params, 12, 400, noise)
    expected = by_full_products(*made, params)
    assert expected
    assert by_tiles(*made, params) == expected


@pytest.mark.slow
@steady
@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.data())
def test_the_same_pairs_for_any_parameters(seed, alpha, data):
    structure = data.draw(st.sampled_from(["real", "quaternionic"]))
    code_width = data.draw(st.sampled_from([64, 68, 128]))
    tolerance = data.draw(st.integers(0, min(alpha - 1, 4)))
    params = Params(64, alpha, tolerance, code_width, structure)
    made = population(np.random.default_rng(seed), params, 3, 50, 0.8)
    assert by_tiles(*made, params) == by_full_products(*made, params)


@pytest.mark.parametrize(("templates", "probes"), [(1, 1), (2, 3), (7, 64), (5, 1000)])
def test_the_cut_into_blocks_does_not_matter(templates, probes, rng, monkeypatch):
    params = Params(64, 6, 3)
    made = population(rng, params, 9, 300, 1.0)
    whole = by_tiles(*made, params)
    monkeypatch.setattr(tiles, "_TEMPLATES", templates)
    monkeypatch.setattr(tiles, "_PROBES", probes)
    assert by_tiles(*made, params) == whole


def test_probes_on_the_edge_are_decided_as_full_products_decide(rng):
    """Entries of P t' that are equal, tiny or zero, where rounding could decide."""
    params = Params(64, 4, 1)
    code = codeword.sample(rng, 64, 4)[0]
    c = codeword.dense(code, 64)[0]
    p = Sampler(64).carrying(rng, unit_rows(rng.standard_normal((1, 64)))[0], c).copy()
    places = np.abs(code) - 1
    others = np.setdiff1d(np.arange(64), places)
    images = []
    for size in (0.0, 1e-9, 1e-7, 1e-6, 1e-4, 0.1):
        for lost in range(3):
            u = c.copy()
            u[places[:lost]] *= size
            u[others[: lost + 1]] = size / 2 + 1e-8 * rng.standard_normal(lost + 1)
            images.append(u)
    probes = unit_rows(np.stack(images) @ p).astype(np.float32)
    made = [p], code[None], probes
    assert by_tiles(*made, params) == by_full_products(*made, params)


def test_few_pairs_need_the_full_product(rng):
    params = Params()
    helpers, codes, probes = population(rng, params, 4, 4000, 100.0)
    screens = [tiles.screen(p, code) for p, code in zip(helpers, codes, strict=True)]
    asked = []
    tiles.accepted(screens, lambda index: asked.append(index) or helpers[index], probes, params)
    assert len(asked) <= 4


def test_nothing_to_compare(rng):
    params = Params(64, 8, 2)
    helpers, codes, probes = population(rng, params, 2, 4, 0.1)
    for made in (([], codes[:0], probes), (helpers, codes, probes[:0])):
        assert by_tiles(*made, params) == []


def test_a_screen_shows_nothing(rng):
    params = Params(64, 8, 0)
    helpers, codes, _ = population(rng, params, 1, 2, 0.1)
    assert repr(tiles.screen(helpers[0], codes[0])) == "Screen()"
