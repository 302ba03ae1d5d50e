"""Helpers of every structure and width: isometries that carry, and what encodings cost them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.laws import line, times, unit, units

from ironmask import Params, algebra, codeword, helper
from ironmask.params import Structure, structure_for
from ironmask.rotation import Sampler

steady = settings(deadline=None, derandomize=True, database=None, max_examples=30)
REAL, QUATERNIONIC = Structure.REAL, Structure.QUATERNIONIC
EXACT = 1e-5

SMALL = [
    (REAL, 64, 65),
    (REAL, 65, 65),
    (REAL, 65, 130),
    (REAL, 102, 199),
    (REAL, 512, 768),
    (REAL, 96, 1024),
    (QUATERNIONIC, 64, 64),
    (QUATERNIONIC, 64, 68),
    (QUATERNIONIC, 64, 1024),
    (QUATERNIONIC, 100, 200),
    (QUATERNIONIC, 128, 128),
    (QUATERNIONIC, 132, 260),
    (QUATERNIONIC, 512, 512),
    (QUATERNIONIC, 512, 1024),
]
LARGE = [
    (structure, n, code_width)
    for n in (64, 66, 100, 128, 255, 256, 512, 768, 1024)
    for code_width in (64, 66, 128, 131, 256, 512, 768, 1023, 1024, 1536, 2048)
    if code_width >= n
    for structure in dict.fromkeys((REAL, structure_for(n, code_width)))
]
GRID = [
    *(pytest.param(*one) for one in SMALL),
    *(pytest.param(*one, marks=pytest.mark.slow) for one in LARGE if one not in SMALL),
]
grid = pytest.mark.parametrize(("structure", "n", "code_width"), GRID)


def defect(p):
    """The largest entry of P'P - I."""
    p = p.astype(np.float64)
    return np.abs(p.T @ p - np.eye(p.shape[1])).max()


def carried(rng, structure, source, target):
    """The real matrix of a sampler's P with P s = c, (N, n) float64."""
    sampler = Sampler(len(source), len(target), structure)
    rows = sampler.carrying(rng, source, target)
    d = structure.components
    assert (rows.dtype, rows.shape) == (np.float32, (len(target) // d, len(source)))
    assert rows.flags.c_contiguous
    return algebra.expanded(rows[None], structure)[0].astype(np.float64)


def assert_carries(p, structure, source, target):
    """An isometry that commutes with scalars, and takes s u to c u for every unit u."""
    assert defect(p) < EXACT
    own, image = line(source, structure), line(target, structure)
    assert np.abs(own @ p.T - image).max() < 1e-6


@grid
def test_an_isometry_that_carries_a_template_to_its_codeword(structure, n, code_width, rng):
    source = unit(rng.standard_normal(n))
    code = codeword.sample(rng, code_width, 16)
    p = carried(rng, structure, source, codeword.dense(code, code_width)[0])
    assert_carries(p, structure, source, codeword.dense(code, code_width)[0])
    multiples = algebra.unit_multiples(code, structure)
    for turned, multiple in zip(line(source, structure), multiples, strict=True):
        assert np.array_equal(codeword.decode(p @ turned, 16), multiple)


@grid
def test_it_commutes_with_scalars_on_the_right(structure, n, code_width, rng):
    """With i, j and k, and with any unit quaternion."""
    source, target = unit(rng.standard_normal(n)), unit(rng.standard_normal(code_width))
    p = carried(rng, structure, source, target)
    d = structure.components
    scalars = [*units(structure), *(unit(rng.standard_normal(d)) for _ in range(5))]
    for x in rng.standard_normal((3, n)):
        for scalar in scalars:
            assert np.abs(p @ times(x, scalar) - times(p @ x, scalar)).max() < EXACT


@grid
def test_free_isometries(structure, n, code_width, rng):
    rows = Sampler(n, code_width, structure).haar(rng)
    assert defect(algebra.expanded(rows[None], structure)[0]) < EXACT


def nothing_first(vector, d=4):
    found = vector.copy()
    found[:d] = 0
    return unit(found)


def nearly(vector, distance, rng):
    aside = rng.standard_normal(len(vector))
    aside = unit(aside - (aside @ vector) * vector)
    return np.cos(distance) * vector + np.sin(distance) * aside


SOURCES = {
    "any": lambda n, rng: unit(rng.standard_normal(n)),
    "first scalar zero": lambda n, rng: nothing_first(rng.standard_normal(n)),
    "first scalar tiny": lambda n, rng: nearly(nothing_first(rng.standard_normal(n)), 1e-12, rng),
    "first axis": lambda n, rng: np.eye(n)[0],
    "minus the second axis": lambda n, rng: -np.eye(n)[1],
    "last axis": lambda n, rng: np.eye(n)[-1],
}
TARGETS = {
    "apart": lambda s, rng: unit(rng.standard_normal(len(s))),
    "equal": lambda s, rng: s,
    "opposite": lambda s, rng: -s,
    "times i": lambda s, rng: times(s, np.array([0.0, 1, 0, 0])),
    "times minus k": lambda s, rng: times(s, np.array([0.0, 0, 0, -1])),
    "times a unit": lambda s, rng: times(s, unit(rng.standard_normal(4))),
    "nearly equal": lambda s, rng: nearly(s, 1e-9, rng),
    "nearly times j": lambda s, rng: nearly(times(s, np.array([0.0, 0, 1, 0])), 1e-7, rng),
    "first scalar zero": lambda s, rng: nothing_first(rng.standard_normal(len(s))),
    "orthogonal": lambda s, rng: nearly(s, np.pi / 2, rng),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("structure", Structure)
@pytest.mark.parametrize("added", [0, 36])
def test_sources_and_targets_that_could_be_singular(source, target, structure, added, rng):
    s = SOURCES[source](64, rng)
    c = np.concatenate([TARGETS[target](s, rng), np.zeros(added)])
    assert_carries(carried(rng, structure, s, c), structure, s, c)


@steady
@given(st.integers(0, 2**32 - 1), st.sampled_from(list(Structure)), st.data())
def test_any_width_that_the_structure_allows(seed, structure, data):
    d = structure.components
    w = data.draw(st.integers(max(1, 2 // d), 60))
    m = data.draw(st.integers(w, 90))
    rng = np.random.default_rng(seed)
    s, c = unit(rng.standard_normal(w * d)), unit(rng.standard_normal(m * d))
    assert_carries(carried(rng, structure, s, c), structure, s, c)


def test_one_sampler_makes_isometries_again_and_again(rng):
    """What one draw leaves in its memory does not reach the next one."""
    sampler = Sampler(100, 200, QUATERNIONIC)
    seen = []
    for _ in range(4):
        s, c = unit(rng.standard_normal(100)), unit(rng.standard_normal(200))
        rows = sampler.carrying(rng, s, c).copy()
        assert_carries(algebra.expanded(rows[None], QUATERNIONIC)[0], QUATERNIONIC, s, c)
        seen.append(rows)
    gaps = [np.abs(a - b).max() for i, a in enumerate(seen) for b in seen[:i]]
    assert min(gaps) > 0.1


# Share of an entry's variance that is lost: a uniform quantiser's least (Max 1960); for int8 a
# twelfth of a level squared, with a row's largest entry four and a half deviations large at most.
LOST = {
    "float16": 2.0**-22,
    "int8": (4.5 / 127) ** 2 / 12,
    "bits6": 0.00107,
    "bits5": 0.00357,
    "bits4": 0.01175,
}


# The largest level of packed encodings, in deviations; what an entry of five of them loses in its
# square comes on top, once a column.
TOP = {"bits6": 31.5 * 0.1041, "bits5": 15.5 * 0.1881, "bits4": 7.5 * 0.3352}
SPIKE = 5.0


def deviation(name, code_width):
    """What P'P - I may be: the share lost, seven deviations of noise, and a spike cut off."""
    spike = SPIKE**2 - TOP.get(name, SPIKE) ** 2
    noise = np.sqrt(2 * LOST[name] / code_width)
    return LOST[name] + 7 * noise + spike / code_width + EXACT


@grid
@pytest.mark.parametrize("name", LOST)
def test_encoded_isometries_deviate_by_what_rounding_costs(name, structure, n, code_width, rng):
    params = Params(n, 8, 0, code_width, structure)
    rows = Sampler.of(params).haar(rng)
    p = helper.decode(helper.encode(rows[None], params, name), params, name)[0]
    assert defect(p) < deviation(name, code_width)


@pytest.mark.parametrize("name", LOST)
def test_encoded_isometries_deviate_by_no_less(name, rng):
    """A bound that a wrong scale would pass is none: a tenth of it does not hold."""
    params = Params(512, 16, 3, 1024, QUATERNIONIC)
    rows = Sampler.of(params).haar(rng)
    p = helper.decode(helper.encode(rows[None], params, name), params, name)[0]
    assert defect(p) > deviation(name, 1024) / 10


@pytest.mark.parametrize("name", ["int8", "bits6", "bits5", "bits4"])
@pytest.mark.parametrize("structure", Structure)
def test_encoded_helpers_still_commute_with_scalars(name, structure, rng):
    params = Params(64, 8, 0, 128, structure)
    rows = Sampler.of(params).haar(rng)
    encoded = helper.encode(rows[None], params, name)
    p = helper.decode(encoded, params, name)[0].astype(np.float64)
    x, scalar = rng.standard_normal(64), unit(rng.standard_normal(structure.components))
    assert np.abs(p @ times(x, scalar) - times(p @ x, scalar)).max() < EXACT


@pytest.mark.parametrize("structure", Structure)
@pytest.mark.parametrize("code_width", [768, 1024, 1536])
@pytest.mark.parametrize("name", ["int8", "bits6", "bits5", "bits4"])
def test_cosine_loss_of_wide_rows(name, code_width, structure, rng):
    """u = P t' loses half the share of the variance in its cosine to what it was, no more."""
    params = Params(512, 16, 3, code_width, structure)
    sampler, lost = Sampler.of(params), []
    for _ in range(3):
        rows = sampler.haar(rng).copy()
        x = rng.standard_normal((40, 512)).astype(np.float32)
        exact, rounded = (
            helper.project(helper.encode(rows[None], params, n)[0], params, n, x)
            for n in ("float32", name)
        )
        cosine = np.sum(exact * rounded, axis=1) / np.linalg.norm(exact, axis=1)
        lost.append(1 - cosine / np.linalg.norm(rounded, axis=1))
    mean = np.mean(lost)
    assert mean < LOST[name] / 2
    if name != "int8":
        assert mean > 0.9 * LOST[name] / 2
