"""Two issues of one person give both templates; issues of two people give nothing."""

from __future__ import annotations

import numpy as np
import pytest
from support.issues import ALPHA, N, capture, issued, unit

from ironmask import Params, codeword
from ironmask.attacks import largest_entry, nearest_codewords, recover_from_issues
from ironmask.errors import ParameterError
from ironmask.metrics import linkability

PARAMS = Params(N, ALPHA, 0)


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


def test_issues_of_different_captures(rng):
    """Each template is that of its own issue, not something between them."""
    template = unit(rng)
    captures = [template, capture(template, 27, rng)]
    found = recover_from_issues(issued(captures, rng), ALPHA, rng)
    assert found.cosine(*captures) > 0.999
    more = [capture(template, 25, rng) for _ in range(4)]
    assert recover_from_issues(issued(more, rng), ALPHA, rng).cosine(*more) > 0.999


def test_different_people_give_nothing(rng):
    found = recover_from_issues(issued([unit(rng), unit(rng)], rng), ALPHA, rng, limit=8192)
    assert (found.success, found.templates, found.trials) == (False, (), 8192)
    assert found.cosine(unit(rng), unit(rng)) == 0


def pairs(count, rng):
    """Helpers of mated and of non-mated pairs of issues."""
    mated = [issued([template] * 2, rng) for template in (unit(rng) for _ in range(count))]
    return mated, [issued([unit(rng), unit(rng)], rng) for _ in range(count)]


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
    with pytest.raises(ParameterError, match="two issues"):
        recover_from_issues(issued([unit(rng)], rng), ALPHA, rng)


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
