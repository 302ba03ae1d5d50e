"""One wide issue gives its template away, whatever the template: no model is asked."""

from __future__ import annotations

import numpy as np
import pytest
from support.issues import issued, known, unit

from ironmask import helper
from ironmask.attacks import (
    Budget,
    fresh_issues,
    guesses_by_width,
    recover_from_width,
)
from ironmask.attacks.forecast import foretell_by_width
from ironmask.errors import ParameterError
from ironmask.params import Params, Structure

N, WIDE, ALPHA = 64, 128, 4
ISSUES = 24


@pytest.fixture
def rng():
    return np.random.default_rng(47)


def wide(templates, rng, structure, encoding="int8"):
    return issued(templates, rng, ALPHA, encoding, WIDE, structure)


@pytest.mark.parametrize("structure", Structure)
def test_rows_of_a_table_in_the_guesses_that_are_stated(structure, rng):
    """N = 1024 over 512, as it is stored: all of them, after N / alpha guesses or a quarter."""
    params = Params(512, 16, 3, 1024, structure)
    templates = np.stack([unit(rng, 512) for _ in range(2)])
    trials = []
    for template, (stolen, _) in zip(templates, fresh_issues(templates, params, rng), strict=True):
        found = recover_from_width(stolen, 16, rng, structure=structure)
        assert found.cosine(template) > 0.999
        trials.append(found.trials)
    expected = guesses_by_width(1024, 16, structure)
    assert expected == {Structure.REAL: 64, Structure.QUATERNIONIC: 16}[structure]
    assert max(trials) < 4 * expected


@pytest.mark.parametrize("structure", Structure)
def test_guesses_are_as_foretold(structure, rng):
    trials = []
    for _ in range(ISSUES):
        template = unit(rng, N)
        (stolen,) = wide([template], rng, structure)
        found = recover_from_width(stolen, ALPHA, rng, structure=structure)
        assert found.cosine(template) > 0.999
        trials.append(found.trials)
    expected = guesses_by_width(WIDE, ALPHA, structure)
    assert expected / 2 < np.mean(trials) < 2 * expected
    foretold = foretell_by_width(Params(N, ALPHA, 0, WIDE, structure), rng)
    assert (foretold.guessed, foretold.share, foretold.by_width) == (1, 1, True)
    # A quaternion with two entries of the codeword is of no use.
    assert 1 <= foretold.trials / expected < 2


@pytest.mark.parametrize("encoding", helper.ENCODINGS)
def test_every_encoding_is_exact_enough(encoding, rng):
    template = unit(rng, N)
    (stolen,) = wide([template], rng, Structure.QUATERNIONIC, encoding)
    found = recover_from_width(stolen, ALPHA, rng, structure=Structure.QUATERNIONIC)
    assert found.cosine(template) > 0.99
    assert found.score > 0.99


@pytest.mark.parametrize("structure", Structure)
def test_a_span_without_a_codeword_gives_nothing(structure, rng):
    """As bytes that are encrypted do, read as a helper."""
    noise = rng.standard_normal((WIDE, N)).astype(np.float32)
    found = recover_from_width(noise, ALPHA, rng, structure=structure, budget=Budget(1000))
    assert (found.success, found.trials, found.out_of_time) == (False, 1000, False)
    assert found.score < 0.95
    late = recover_from_width(noise, ALPHA, rng, structure=structure, budget=Budget(1 << 40, 0.05))
    assert late.out_of_time


def test_more_entries_are_guessed_where_one_does_not_do(rng):
    """The narrower the code, the more entries it takes."""
    narrow = {one: Params(N, 7, 0, 96, one) for one in Structure}
    for structure, params in narrow.items():
        foretold = foretell_by_width(params, rng)
        assert foretold.guessed == 2
        assert foretold.trials > guesses_by_width(96, 7, structure, guessed=2)
    template, of = unit(rng, N), narrow[Structure.QUATERNIONIC]
    ((stolen, _),) = fresh_issues(template[None], of, rng)
    found = recover_from_width(stolen, 7, rng, structure=of.structure)
    assert found.cosine(template) > 0.999
    assert found.trials > 96 // 4


class TestDigests:
    def stolen(self, rng, structure):
        template = unit(rng, N)
        ((helper_, code),) = known([template], rng, ALPHA, "int8", WIDE, structure)
        return template, helper_, code.tolist()

    @pytest.mark.parametrize("structure", Structure)
    def test_one_decides_the_unit(self, structure, rng):
        """Without it any of eight products is as good; with it the template itself is found."""
        for _ in range(4):
            template, stolen, code = self.stolen(rng, structure)
            found = recover_from_width(
                stolen, ALPHA, rng, structure=structure,
                confirm=lambda codes, code=code: codes[0].tolist() == code,
            )  # fmt: skip
            assert found.templates[0] @ template > 0.999

    def test_of_another_row_none_is_believed(self, rng):
        _, stolen, _ = self.stolen(rng, Structure.REAL)
        found = recover_from_width(
            stolen, ALPHA, rng, confirm=lambda _: False, budget=Budget(2 * WIDE)
        )
        assert (found.success, found.trials, found.score > 0.99) == (False, 2 * WIDE, True)

    def test_where_chance_comes_as_near_one_is_needed(self, rng):
        """Four dimensions more than 64, and coarse levels: wrong codewords are as near."""
        template = unit(rng, N)
        ((stolen, code),) = known([template], rng, ALPHA, "bits4", N + 4)
        few = Budget(1 << 12)
        assert not recover_from_width(stolen, ALPHA, rng, budget=few).success
        asked = recover_from_width(
            stolen, ALPHA, rng, confirm=lambda codes: codes[0].tolist() == code.tolist()
        )
        assert asked.templates[0] @ template > 0.99


def test_the_structure_saves_guesses_and_a_real_search_finds_it_too(rng):
    template = unit(rng, N)
    (stolen,) = wide([template], rng, Structure.QUATERNIONIC)
    found = recover_from_width(stolen, ALPHA, rng)
    turned = recover_from_width(stolen, ALPHA, rng, structure=Structure.QUATERNIONIC)
    # The unit is open: only one that knows of it takes t i for t.
    assert abs(found.templates[0] @ template) > 0.999 or abs(found.templates[0] @ template) < 1e-3
    assert turned.cosine(template) > 0.999


def test_guesses_that_are_needed():
    quaternionic = Structure.QUATERNIONIC
    assert guesses_by_width(1024, 16) == 64
    assert guesses_by_width(1024, 16, quaternionic) == 16
    two = guesses_by_width(1024, 16, guessed=2, success=0.5)
    assert two == pytest.approx(64 * 1023 / 15 * 2 / 0.5)
    two = guesses_by_width(1024, 16, quaternionic, guessed=2)
    assert two == pytest.approx(16 * 255 / 15 * 8)


def test_what_makes_no_sense_is_refused(rng):
    with pytest.raises(ParameterError, match="not wide"):
        recover_from_width(np.eye(N, dtype=np.float32), ALPHA, rng)
    with pytest.raises(ParameterError, match="not wide"):
        foretell_by_width(Params(N, ALPHA, 0), rng)


def test_nothing_is_shown(rng):
    found = recover_from_width(wide([unit(rng, N)], rng, Structure.REAL)[0], ALPHA, rng)
    assert found.success
    assert "array" not in repr(found)
