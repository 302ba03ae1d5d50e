"""One issue with a code wider than its embeddings: the template from its helper, without a model.

P takes n dimensions to N. Its span holds the codeword c = P t, and hardly another vector of so few
entries; finding the sparsest vector of a subspace is an old problem (Coleman and Pothen, SIAM
Journal on Algebraic and Discrete Methods 7, 1986), and one right entry makes it easy (Spielman,
Wang and Wright, Conference on Learning Theory, 2012). A guess holds one place of the codeword at 1,
or one quaternion, since a quaternionic span holds c u for every quaternion u. The rest is found by
reweighted basis pursuit in the span; see the module `pursuit`. One place in N / alpha is right, one
quaternion in N / (4 alpha). Where the code is too narrow for one, more places are guessed.

A codeword is a candidate that lies in the span to rounding: what lies outside is less than half of
what one wrong place leaves there, (1 - n / N) / alpha of the energy. Single entries are exchanged
while that helps. Without a digest it is believed if none of the binom(N, alpha) 2^alpha codewords
would come so near by chance: the energy of a random unit vector outside the span follows the beta
distribution with parameters (N - n) / 2 and n / 2.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from math import ceil, comb, log2
from typing import Any, Final

import numpy as np
from scipy.special import betainc

from ironmask import algebra
from ironmask.accelerator import CPU, Accelerator, accelerator
from ironmask.arrays import F32, F64, I32
from ironmask.attacks.pursuit import passed, polished, pursued, rounded, signed
from ironmask.attacks.result import Budget, Confirm, Recovered, believed, template_of
from ironmask.errors import ParameterError
from ironmask.params import Structure

_GUESSES: Final = 64
# A GPU needs at least this many at once to be busy.
_DEVICE_GUESSES: Final = 8192
_STEPS: Final = 60
# The best of so many guesses are looked at.
_ASKED: Final = 4
_BUDGET: Final = Budget(1 << 20)
# The most entries that are guessed at once.
MOST_GUESSED: Final = 4
# Random guesses of so many entries end after this many times as many as are needed on average.
_PATIENCE: Final = 3


def recover_from_width(
    helper: F32,
    alpha: int,
    rng: np.random.Generator,
    *,
    structure: Structure = Structure.REAL,
    budget: Budget = _BUDGET,
    confirm: Confirm | None = None,
) -> Recovered:
    """Look for what one wide issue was made from, with one guessed entry, then two, and so on.

    helper: (N, n) float32, decoded, N > n. alpha: non-zero entries of a codeword. structure: of the
    helper. budget: after which it gives up. confirm: where the digest of a codeword can be
    computed. Trials count guesses up to the right one. The score is the largest share of a
    codeword's energy that was found in the span. The unit stays open without a digest: the template
    or its negative, and of quaternionic helpers its products with i, j and k.

    Raises `ParameterError` for a helper that is not wide, `ProviderError` for an absent device.
    """
    code_width, n = helper.shape
    if code_width <= n:
        raise ParameterError(f"a helper of {helper.shape} is not wide: all vectors are in its span")
    on = accelerator(budget.device)
    span = on.upload(_span(helper))
    # If one place is wrong, 2 / alpha of the energy is, of which 1 - n / N is outside.
    enough = 1 - (1 - n / code_width) / alpha
    began, trials, best, late = time.perf_counter(), 0, 0.0, False
    for guesses in _guesses(on, code_width, alpha, structure, rng):
        some = guesses[: budget.trials - trials]
        s, inside = _near(on, span, some, alpha, structure)
        best = max(best, float(inside.max()))
        for place in np.argsort(-inside)[:_ASKED]:
            if inside[place] <= enough:
                break
            better = polished(on, span, s[place : place + 1, :], alpha)
            outside = 1 - float(passed(on, span, better)[0]) / alpha
            is_sure = _is_no_chance(outside, code_width, n, alpha)
            right = believed([signed(on.download(better)[0])], is_sure, confirm, structure)
            if right is not None:
                spent, trials = time.perf_counter() - began, trials + int(place) + 1
                found = (template_of(helper, right[0]),)
                return Recovered(found, trials, spent, best, structure=structure)
        trials += len(some)
        late = time.perf_counter() - began >= budget.seconds and trials < budget.trials
        if trials >= budget.trials or late:
            break
    spent = time.perf_counter() - began
    return Recovered((), trials, spent, best, out_of_time=late, structure=structure)


def guesses_by_width(
    code_width: int,
    alpha: int,
    structure: Structure = Structure.REAL,
    *,
    guessed: int = 1,
    success: float = 1.0,
) -> float:
    """Guesses on average until all guessed entries are right and the pursuit succeeds.

    N / alpha for one entry of a real helper, N / (4 alpha) for one quaternion. The first unit is
    free; each further entry is one of 2 or 8 units. success: the pursuit's success among right
    guesses.
    """
    d, places = structure.components, np.arange(guessed)
    odds = np.prod((code_width // d - places) / (alpha - places))
    return float(odds * (2 * d) ** (guessed - 1) / success)


def share_by_width(
    helper: F32, code: I32, guessed: int, sets: int, rng: np.random.Generator, structure: Structure
) -> int:
    """Count how many of some random sets of right entries, `guessed` each, lead to the codeword.

    code: (alpha,) int32. For an evaluator, who knows the codeword.
    """
    on, alpha = accelerator(CPU), len(code)
    chosen = np.stack([rng.choice(code, guessed, replace=False) for _ in range(sets)])
    right = np.stack([_turned(one, structure) for one in chosen])
    s, _ = _near(on, on.upload(_span(helper)), right, alpha, structure)
    found = np.stack([signed(one) for one in on.download(s)])
    same = algebra.unit_multiples(code[None], structure)
    every = np.concatenate([*same, *(-one for one in same)])
    return int((found[:, None] == every).all(axis=2).any(axis=1).sum())


def _span(helper: F32) -> F32:
    """The projector onto what the columns of a helper span: (N, N)."""
    q = np.linalg.qr(helper.astype(np.float64))[0]
    projector: F32 = (q @ q.T).astype(np.float32)
    return projector


def _is_no_chance(outside: float, code_width: int, n: int, alpha: int) -> bool:
    """Whether fewer than one codeword has so little of its energy outside the span by chance."""
    # The projector itself is rounded.
    least = max(outside, float(np.finfo(np.float32).eps))
    chance = float(betainc((code_width - n) / 2, n / 2, least))
    return chance == 0 or log2(chance) + log2(comb(code_width, alpha)) + alpha < 0


def _guesses(
    on: Accelerator, code_width: int, alpha: int, structure: Structure, rng: np.random.Generator
) -> Iterator[I32]:
    """Entries to hold, (k, guessed) signed one-based places: each place once, then sets of more.

    The first entry of each is the real part of its scalar, and positive.
    """
    d = structure.components
    m, count = code_width // d, _GUESSES if on.is_host else _DEVICE_GUESSES
    order = rng.permutation(m).astype(np.int32)[:, None] * d + 1
    yield from (order[start : start + count] for start in range(0, m, count))
    for guessed in range(2, min(MOST_GUESSED, alpha) + 1):
        needed = guesses_by_width(code_width, alpha, structure, guessed=guessed)
        batches = ceil(_PATIENCE * needed / count)
        last = guessed == min(MOST_GUESSED, alpha)
        while last or batches > 0:
            yield _entries(m, d, (count, guessed), rng)
            batches -= 1


def _entries(m: int, d: int, shape: tuple[int, int], rng: np.random.Generator) -> I32:
    """Random sets of entries of different scalars; the first unit of each is 1."""
    scalars = rng.integers(0, m, shape)
    scalars = scalars[(np.diff(np.sort(scalars, axis=1), axis=1) > 0).all(axis=1)]
    components = rng.integers(0, d, scalars.shape)
    signs = rng.choice(np.array([-1, 1]), scalars.shape)
    components[:, 0], signs[:, 0] = 0, 1
    entries: I32 = ((d * scalars + components + 1) * signs).astype(np.int32)
    return entries


def _near(
    on: Accelerator, span: Any, entries: I32, alpha: int, structure: Structure
) -> tuple[Any, F64]:
    """Signs of the codewords that guesses, (k, guessed), lead to, (k, N), and the share of their
    energy in the span, (k,).

    Held are the guessed entries, and zeros in the rest of their scalars.
    """
    d, rows = structure.components, np.arange(len(entries))[:, None]
    fixed = np.zeros((len(entries), span.shape[0]), dtype=np.float32)
    fixed[rows, np.abs(entries) - 1] = np.sign(entries)
    held = np.repeat(np.abs(fixed).reshape(len(entries), -1, d).any(axis=2), d, axis=1)
    near = pursued(on, span, on.upload(fixed), on.upload(~held), _STEPS, reweighted=True)
    s = rounded(on, near, alpha)
    return s, passed(on, span, s).astype(np.float64) / alpha


def _turned(entries: I32, structure: Structure) -> I32:
    """Right entries times the unit that makes the first of them 1, (guessed,)."""
    scalar, component = divmod(abs(int(entries[0])) - 1, structure.components)
    # A basis unit times itself is real.
    turned = algebra.unit_multiples(entries[None], structure)[component][0]
    is_one = (turned == structure.components * scalar + 1).any()
    right: I32 = turned if is_one else -turned
    return right
