"""One issue of a model whose embeddings do not fill the space: the template from its helper alone.

Whoever has the model can measure how much energy its embeddings have in each direction. P carries
these directions to the codeword c = P t, and few sparse vectors look like P t. Some of its entries
are guessed. The rest is found as the vector of least sum |x| near those (basis pursuit: Chen,
Donoho and Saunders, SIAM Journal on Scientific Computing 20, 1998), by the alternating direction
method of multipliers (Boyd et al., Foundations and Trends in Machine Learning 3, 2011). Its step
onto a subspace is Wiener's filter here: each direction counts by its share of an embedding's energy
against that of a wrong codeword. Then single entries are exchanged while that helps. Many guesses
go through as one matrix product: 2 n^2 operations for each guess and step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from math import comb, log2
from typing import Any, Final

import numpy as np

from ironmask import codeword
from ironmask.accelerator import CPU, Accelerator, accelerator
from ironmask.arrays import F32, I32
from ironmask.attacks.result import Budget, Confirm, Recovered, believed, template_of
from ironmask.errors import ParameterError
from ironmask.params import Structure
from ironmask.spectrum import Spectrum

_GUESSES: Final = 512
# A GPU needs at least this many at once to be busy.
_DEVICE_GUESSES: Final = 32_768
_STEPS: Final = 30
_BUDGET: Final = Budget(1 << 20)
_SHRINK: Final = 0.15
# One codeword in 64 is improved; of these, the four best are asked about.
_POLISHED: Final = 64
_ASKED: Final = 4
_LEAST_GAIN: Final = 1e-4


def recover_from_subspace(
    helper: F32,
    space: Spectrum,
    alpha: int,
    rng: np.random.Generator,
    *,
    guessed: int = 1,
    budget: Budget = _BUDGET,
    confirm: Confirm | None = None,
    device: str = CPU,
    structure: Structure = Structure.REAL,
) -> Recovered:
    """Look for what one issue was made from.

    helper: (N, n) float32, decoded. space: of other embeddings of the model, filled where the
    issue's template is. guessed: entries of the codeword that every trial guesses; each more costs
    a factor of about 2 N / alpha. budget: after which it gives up.
    confirm: where the digest of a codeword can be computed; otherwise one is believed that looks
    like an embedding by more bits than there are codewords. device: see `ironmask.accelerator`. The
    score is the best `Spectrum.likeness`, in bits. The sign stays open without a digest: the
    template or its negative.

    Raises `ParameterError` where the spectrum does not fit the helper, or guesses the codeword,
    `ProviderError` for an absent device.
    """
    width = helper.shape[1]
    helper, space = squared(helper, space)
    n = len(helper)
    if not 1 <= guessed < alpha:
        raise ParameterError(f"{guessed} entries to guess of {alpha}: from 1 to {alpha - 1}")
    on = accelerator(device)
    # One entry has no more places than these.
    limit = min(budget.trials, n) if guessed == 1 else budget.trials
    began, trials, best, late = time.perf_counter(), 0, -float("inf"), False
    enough = log2(comb(n, alpha)) + alpha
    likely = on.upload(_filter(helper, space))
    for places, signs in _guesses(on, n, guessed, rng):
        places, signs = places[: limit - trials], signs[: limit - trials]
        trials += len(places)
        codes = _best(on, likely, _pursued(on, likely, places, signs), alpha)
        bits = space.likeness(codeword.dense(codes, n) @ helper.astype(np.float64))
        best = max(best, float(bits.max()))
        for first in np.argsort(-bits)[:_ASKED]:
            right = believed([codes[first]], bool(bits[first] > enough), confirm, structure)
            if right is not None:
                spent = time.perf_counter() - began
                found = (template_of(helper, right[0])[:width],)
                return Recovered(found, trials, spent, best, structure=structure)
        late = time.perf_counter() - began >= budget.seconds and trials < limit
        if trials >= limit or late:
            break
    return Recovered((), trials, time.perf_counter() - began, best, out_of_time=late)


def guesses_needed(n: int, alpha: int, guessed: int, success: float) -> float:
    """Trials on average until all guessed entries are right and the pursuit succeeds.

    success: the pursuit's success among right guesses. The first sign is free: -c is as good as c.
    """
    places = np.arange(guessed)
    return float(np.prod((n - places) / (alpha - places)) * 2 ** (guessed - 1) / success)


def share_recovered(helper: F32, space: Spectrum, code: I32, entries: I32) -> int:
    """Count the right guesses, (k, guessed) signed entries of a codeword, that lead to it.

    code: (alpha,) int32. For an evaluator, who knows the codeword.
    """
    on = accelerator(CPU)
    likely = on.upload(_filter(*squared(helper, space)))
    places = (np.abs(entries) - 1).astype(np.int32)
    pursued = _pursued(on, likely, places, np.sign(entries).astype(np.float32))
    better = _polished(on, likely, _rounded(on, pursued, len(code)), len(code))
    return sum(np.array_equal(_signed(one), code) for one in on.download(better))


def squared(helper: F32, space: Spectrum) -> tuple[F32, Spectrum]:
    """A wide helper with columns added until it is square, and a spectrum empty in these.

    Raises `ParameterError` where the spectrum does not fit the helper.
    """
    code_width, n = helper.shape
    if space.n != n:
        raise ParameterError(f"a spectrum of width {space.n} for a helper of width {n}")
    if code_width == n:
        return helper, space
    q = np.linalg.qr(helper.astype(np.float64), mode="complete")[0]
    whole = np.concatenate([helper, q[:, n:].astype(np.float32)], axis=1)
    return whole, space.within(code_width)


def _filter(helper: F32, space: Spectrum) -> F32:
    """Wiener's filter in the coordinates of codewords: (n, n)."""
    span = helper @ space.directions.astype(np.float32)
    found: F32 = (span * space.weights.astype(np.float32)) @ span.T
    return found


def _guesses(
    on: Accelerator, n: int, guessed: int, rng: np.random.Generator
) -> Iterator[tuple[I32, F32]]:
    """Places and signs, (k, guessed) each, without end; for one entry, each place once."""
    if guessed == 1:
        order = rng.permutation(n).astype(np.int32)[:, None]
        for start in range(0, n, _GUESSES):
            part = order[start : start + _GUESSES]
            yield part, np.ones(part.shape, dtype=np.float32)
        return
    while True:
        count = _GUESSES if on.is_host else _DEVICE_GUESSES
        places = rng.integers(0, n, (count, guessed), dtype=np.int32)
        places = places[(np.diff(np.sort(places, axis=1), axis=1) > 0).all(axis=1)]
        yield places, rng.choice(np.array([-1, 1], dtype=np.float32), places.shape)


def _pursued(on: Accelerator, likely: Any, places: I32, signs: F32) -> Any:
    """Sparse vectors, (k, n), near what passes the filter, with the guessed entries as guessed."""
    xp, n = on.xp, likely.shape[0]
    z = np.zeros((len(places), n), dtype=np.float32)
    z[np.arange(len(places))[:, None], places] = signs
    fixed = on.upload(z)
    is_free = fixed == 0
    z, w = fixed, xp.zeros_like(fixed)
    for _ in range(_STEPS):
        w += (z - w) @ likely
        # Shrink towards zero, clip to an entry of a codeword, and keep the guessed entries.
        z = xp.clip(w - xp.clip(w, -_SHRINK, _SHRINK), -1, 1)
        z *= is_free
        z += fixed
        w -= z
    return z


def _best(on: Accelerator, likely: Any, vectors: Any, alpha: int) -> I32:
    """Find the most promising codewords near the vectors, (k, n), and improve them: (m, alpha)."""
    s = _rounded(on, vectors, alpha)
    energy = on.download(on.xp.sum((s @ likely) * s, axis=1))
    kept = np.argsort(-energy)[: -(-len(energy) // _POLISHED)]
    better = _polished(on, likely, on.xp.take(s, on.upload(kept), axis=0), alpha)
    return np.stack([_signed(code) for code in on.download(better)])


def _rounded(on: Accelerator, vectors: Any, alpha: int) -> Any:
    """Keep the signs of the alpha largest entries of each vector, (k, n), and zeros."""
    support = on.largest(on.xp.abs(vectors), alpha)
    rows = on.xp.arange(len(vectors), device=on.device)[:, None]
    s = on.xp.zeros_like(vectors)
    s[rows, support] = on.xp.where(vectors[rows, support] < 0, -1.0, 1.0)
    return s


def _signed(dense: F32) -> I32:
    support = np.flatnonzero(dense)
    return ((support + 1) * np.sign(dense[support])).astype(np.int32)


def _polished(on: Accelerator, likely: Any, s: Any, alpha: int) -> Any:
    """Exchange one entry at a time of codewords, (k, n), while more of them passes the filter.

    The best codewords often have a wrong place or two. The loop is bounded, because rounding could
    keep it going.
    """
    xp, (k, n) = on.xp, s.shape
    diagonal = xp.sum(likely * xp.eye(n, dtype=xp.float32, device=on.device), axis=0)
    rows = xp.arange(k, device=on.device)
    for _ in range(2 * alpha):
        inner = s @ likely
        energy = xp.sum(inner * s, axis=1)
        support = on.largest(xp.abs(s), alpha)
        own = s[rows[:, None], support]
        columns = xp.reshape(xp.take(likely, xp.reshape(support, (-1,)), axis=0), (k, alpha, n))
        others = inner[:, None, :] - own[:, :, None] * columns
        left = energy[:, None] - 2 * own * inner[rows[:, None], support] + diagonal[support]
        # Skip places that the codeword has already.
        free = xp.astype(s == 0, xp.float32)[:, None, :]
        gain = (left[:, :, None] + 2 * xp.abs(others) + diagonal) * free
        flat = xp.argmax(xp.reshape(gain, (k, alpha * n)), axis=1)
        out, into = flat // n, flat % n
        moved = gain[rows, out, into] > energy + _LEAST_GAIN
        if not bool(xp.any(moved)):
            break
        sign = xp.where(others[rows, out, into] < 0, -1.0, 1.0)
        places, move = support[rows, out], xp.astype(moved, xp.float32)
        s[rows, places] *= 1 - move
        s[rows, into] += xp.astype(sign, xp.float32) * move
    return s
