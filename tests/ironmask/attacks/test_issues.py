"""Two issues of one person give both templates; issues of two people give nothing."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
from support.issues import ALPHA, N, capture, issued, known, unit
from support.marks import few

from ironmask import codeword
from ironmask.attacks import largest_entry, nearest_codewords, recover_from_issues
from ironmask.errors import ParameterError
from ironmask.metrics import linkability
from ironmask.params import Structure

QUATERNIONIC = Structure.QUATERNIONIC


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.mark.parametrize("encoding", ["float32", "int8"])
def test_two_issues_of_one_template(encoding, rng):
    for _ in range(3):
        template = unit(rng)
        found = recover_from_issues(issued([template] * 2, rng, encoding=encoding), ALPHA, rng)
        assert found.success
        assert found.cosine(template, template) > 0.999
        assert found.bits < 16


@pytest.mark.parametrize("structure", Structure)
@pytest.mark.parametrize("code_width", few([N, 2 * N], N))
def test_issues_of_different_captures(code_width, structure, rng):
    """Each template is that of its own issue, not something between them.

    With a wide code and few dimensions, captures further apart are found but not believed.
    """
    template = unit(rng)
    captures = [template, capture(template, 27 if code_width == N else 15, rng)]
    stolen = issued(captures, rng, ALPHA, "int8", code_width, structure)
    found = recover_from_issues(stolen, ALPHA, rng, structure=structure)
    assert found.cosine(*captures) > 0.999
    more = [capture(template, 25 if code_width == N else 15, rng) for _ in range(4)]
    stolen = issued(more, rng, ALPHA, "int8", code_width, structure)
    assert recover_from_issues(stolen, ALPHA, rng, structure=structure).cosine(*more) > 0.999


def test_issues_of_two_settings(rng):
    """An old row and the one that replaced it, of another width, alpha and structure."""
    template = unit(rng)
    ((old, first),) = known([template], rng)
    ((new, second),) = known([template], rng, 10, "int8", 2 * N, QUATERNIONIC)
    found = recover_from_issues([old, new], (ALPHA, 10), rng)
    assert found.cosine(template, template) > 0.999
    codes = [first.tolist(), second.tolist()]
    asked = recover_from_issues(
        [old, new], (ALPHA, 10), rng, confirm=lambda some: [c.tolist() for c in some] == codes
    )
    assert asked.templates[0] @ template > 0.999
    assert asked.templates[1] @ template > 0.999


def test_quaternionic_issues_fall_after_fewer_starts(rng):
    """A start may be right up to any of the units, so one in fewer is."""
    starts = {one: np.mean([starts_until_found(one, rng) for _ in range(12)]) for one in Structure}
    assert starts[QUATERNIONIC] < starts[Structure.REAL] / 1.5


def starts_until_found(structure, rng, step=2):
    """Starts until two wide issues of one template fall."""
    template = unit(rng)
    both = known([template] * 2, rng, ALPHA, "int8", 2 * N, structure)
    stolen, right = np.stack([p for p, _ in both]), [code.tolist() for _, code in both]
    for starts in count(step, step):
        found = recover_from_issues(
            stolen, ALPHA, rng, limit=step, structure=structure,
            confirm=lambda codes: [code.tolist() for code in codes] == right,
        )  # fmt: skip
        if found.success:
            assert found.cosine(template, template) > 0.999
            return starts
    return 0


@pytest.mark.slow
@pytest.mark.parametrize("structure", Structure)
@pytest.mark.parametrize("code_width", [N, 2 * N])
def test_different_people_give_nothing(code_width, structure, rng):
    both = issued([unit(rng), unit(rng)], rng, ALPHA, "int8", code_width, structure)
    found = recover_from_issues(both, ALPHA, rng, limit=8192, structure=structure)
    assert (found.success, found.templates, found.trials) == (False, (), 8192)
    assert found.cosine(unit(rng), unit(rng)) == 0


def pairs(number, rng):
    """Helpers of mated and of non-mated pairs of issues."""
    mated = [issued([template] * 2, rng) for template in (unit(rng) for _ in range(number))]
    return mated, [issued([unit(rng), unit(rng)], rng) for _ in range(number)]


@pytest.mark.slow
def test_the_attack_links_what_an_obvious_function_does_not(rng):
    """That one would certify an unlinkability that does not exist."""
    scores = [[largest_entry(p) for p in side] for side in pairs(400, rng)]
    assert linkability(*scores, rng, bins=6).d_sys < 0.05
    scores = [[nearest_codewords(p, ALPHA, rng, 8192) for p in side] for side in pairs(4, rng)]
    assert linkability(*scores, rng).d_sys > 0.99


def test_a_digest_confirms(rng):
    """Where codewords can be checked, nothing else is believed, and not before."""
    template = unit(rng)
    helpers = issued([template] * 2, rng)
    known = codeword.decode((helpers[0] @ template)[None].astype(np.float32), ALPHA)[0]

    def is_right(codes):
        return np.array_equal(np.abs(codes[0]), np.abs(known))

    found = recover_from_issues(helpers, ALPHA, rng, confirm=is_right)
    assert found.cosine(template, template) > 0.999
    never = recover_from_issues(helpers, ALPHA, rng, confirm=lambda _: False, limit=1 << 14)
    assert (never.success, never.trials, never.score > 0.999) == (False, 1 << 14, True)


def test_one_issue_is_refused(rng):
    one = issued([unit(rng)], rng)
    for helpers in (one, one[0]):
        with pytest.raises(ParameterError, match="two issues"):
            recover_from_issues(helpers, ALPHA, rng)


def test_a_digest_decides_the_sign(rng):
    """Half of the estimates end at the negative: a digest turns these around."""
    turned = 0
    for _ in range(8):
        template = unit(rng)
        helpers = issued([template] * 2, rng)
        u = [(p @ template).astype(np.float32) for p in helpers]
        known = [codeword.decode(one[None], ALPHA)[0].tolist() for one in u]
        asked = []

        def is_right(codes, known=known, asked=asked):
            asked.append([code.tolist() for code in codes])
            return asked[-1] == known

        found = recover_from_issues(helpers, ALPHA, rng, confirm=is_right)
        assert found.templates[0] @ template > 0.999
        # Each estimate is asked about as it is, and then with its sign turned.
        turned += len(asked) % 2 == 0
    assert turned


def test_nothing_is_shown(rng):
    found = recover_from_issues(issued([unit(rng)] * 2, rng), ALPHA, rng)
    assert "array" not in repr(found)
