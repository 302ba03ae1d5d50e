"""One issue of an embedding from a subspace gives it away; one of any other, nothing."""

from __future__ import annotations

import numpy as np
import pytest
from support.issues import issued, unit

from ironmask.attacks import (
    Budget,
    foretell,
    guesses_by_width,
    guesses_needed,
    recover_from_row,
    recover_from_subspace,
)
from ironmask.errors import ParameterError
from ironmask.filling import Filling
from ironmask.params import Params, Structure
from ironmask.spectrum import Spectrum

N, RANK, ALPHA = 128, 48, 8
PARAMS = Params(N, ALPHA, 0)


@pytest.fixture
def rng():
    return np.random.default_rng(23)


@pytest.fixture
def basis(rng):
    return np.linalg.qr(rng.standard_normal((N, N)))[0]


@pytest.fixture
def faces(basis, rng):
    """Embeddings of a model that uses 48 of 128 directions, with a little noise in the others."""
    found = rng.standard_normal((4000, N)) * np.where(np.arange(N) < RANK, 1, 0.03)
    found = found @ basis.T
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture
def space(faces):
    return Spectrum.of(faces[100:], N)


@pytest.mark.parametrize("structure", Structure)
@pytest.mark.parametrize(
    ("encoding", "code_width"), [("float32", N), ("int8", N), ("int8", N + 32)]
)
def test_an_embedding_of_the_model(encoding, code_width, structure, faces, space, rng):
    for template in faces[:8]:
        (helper,) = issued([template], rng, ALPHA, encoding, code_width, structure)
        found = recover_from_subspace(helper, space, ALPHA, rng, structure=structure)
        assert found.cosine(template) > 0.999
        assert found.trials <= code_width


def test_an_embedding_of_the_whole_sphere_gives_nothing(space, rng):
    """Where the space is filled, the codeword is not in the span, and no other is believed."""
    (helper,) = issued([unit(rng)], rng, ALPHA)
    found = recover_from_subspace(helper, space, ALPHA, rng, guessed=2, budget=Budget(1 << 14))
    assert (found.success, found.trials) == (False, 1 << 14)


def test_a_spectrum_that_is_flat_gives_nothing(faces, rng):
    flat = Spectrum.of(rng.standard_normal((50_000, N)), N)
    (helper,) = issued([faces[0]], rng, ALPHA)
    assert not recover_from_subspace(helper, flat, ALPHA, rng, budget=Budget(1 << 13)).success


def test_filling_is_a_remedy(faces, space, rng):
    """Three tenths of the energy in fresh noise, and a thief who knows that: the attack fails."""
    filling = Filling.of(space, 0.3)
    known = filling.spectrum(space)
    for template in filling.filled(faces[:2], rng):
        (helper,) = issued([template], rng, ALPHA)
        for guessed in (1, 2, 3):
            found = recover_from_subspace(
                helper, known, ALPHA, rng, guessed=guessed, budget=Budget(1 << 13)
            )
            assert not found.success
    plain, filled = (foretell(faces[:6], space, PARAMS, rng, filling=f) for f in (None, filling))
    assert plain.bits < 7
    assert filled.bits > plain.bits + 10


def test_more_entries_are_guessed_where_fewer_do_not_help(faces, space, rng):
    (helper,) = issued([faces[0]], rng, ALPHA)
    found = recover_from_row(helper, space, ALPHA, rng, seconds=30)
    assert found.cosine(faces[0]) > 0.999
    never = recover_from_row(helper, space, ALPHA, rng, seconds=0.5, confirm=lambda _: False)
    assert not never.success
    assert never.trials > N


def test_a_digest_decides_the_sign(faces, space, rng):
    (helper,) = issued([faces[0]], rng, ALPHA)
    seen = []

    def is_right(codes):
        (code,) = codes
        seen.append(code)
        u = helper @ faces[0]
        return bool((np.sign(code) == np.sign(u[np.abs(code) - 1])).all())

    found = recover_from_subspace(helper, space, ALPHA, rng, confirm=is_right)
    assert found.templates[0] @ faces[0] > 0.999
    assert seen


class TestForecast:
    @pytest.mark.parametrize("structure", Structure)
    def test_of_a_wide_row_is_that_of_its_width(self, structure, faces, space, rng):
        """No embeddings are as good as the span itself."""
        wide = Params(N, ALPHA, 0, 2 * N, structure)
        found = foretell(faces[:6], space, wide, rng)
        assert found.by_width
        assert found.trials < 2 * guesses_by_width(2 * N, ALPHA, structure)

    @pytest.mark.parametrize("structure", Structure)
    def test_of_a_row_that_is_hardly_wide_is_that_of_the_spectrum(
        self, structure, faces, space, rng
    ):
        hardly = Params(N, ALPHA, 0, N + 4, structure)
        found = foretell(faces[:6], space, hardly, rng)
        assert not found.by_width
        assert not found.is_bound
        assert found.trials < 4 * guesses_needed(N + 4, ALPHA, 1, 1.0)


def test_a_wide_spectrum_has_empty_directions_beside_its_own(space):
    wide = space.within(N + 8)
    again = Spectrum(wide.count, wide.moments)
    assert wide.eigenvalues == pytest.approx(again.eigenvalues, abs=1e-12)
    restored = (wide.directions * wide.eigenvalues) @ wide.directions.T
    assert restored == pytest.approx(wide.moments / wide.count, abs=1e-12)
    assert wide.directions.T @ wide.directions == pytest.approx(np.eye(N + 8), abs=1e-9)


def test_trials_that_are_needed():
    assert guesses_needed(512, 16, 1, 1.0) == 32
    assert guesses_needed(512, 16, 3, 0.94) == pytest.approx(
        512 / 16 * 511 / 15 * 510 / 14 * 4 / 0.94
    )


@pytest.mark.parametrize(("width", "guessed"), [(N - 1, 1), (N, 0), (N, ALPHA)])
def test_what_makes_no_sense_is_refused(width, guessed, rng):
    flat = Spectrum.of(rng.standard_normal((500, width)), width)
    with pytest.raises(ParameterError):
        recover_from_subspace(np.eye(N, dtype=np.float32), flat, ALPHA, rng, guessed=guessed)
