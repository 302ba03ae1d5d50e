"""One issue, where a model's embeddings keep to a subspace: the template from its helper alone.

Whoever has the model can measure the directions V that its embeddings use. Then c = P t lies in
the span of P V, and sparse vectors of that span are few. Some entries are guessed, and the rest is
sought as the vector of least sum |x| in the span that has them (basis pursuit: Chen, Donoho and
Saunders, SIAM Journal on Scientific Computing 20, 1998) by the alternating direction method of
multipliers (Boyd et al., Foundations and Trends in Machine Learning 3, 2011), many guesses as one
matrix product: 2 n^2 operations for each guess and step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from ironmask.accelerator import CPU, Accelerator, accelerator
from ironmask.arrays import F32, F64, I32
from ironmask.attacks.result import Confirm, Recovered, believed, template_of
from ironmask.errors import ParameterError

_GUESSES: Final = 512
# A GPU is busy with no fewer.
_DEVICE_GUESSES: Final = 32_768
_STEPS: Final = 30
_SHRINK: Final = 0.15
# Of w600k_mbf, in 300 of 512 directions: a right codeword leaves .01 to .06 of its energy outside,
# wrong ones .2 to .3.
_OUTSIDE: Final = 0.4
# One of so many codewords is improved, and what counts as better.
_POLISHED: Final = 64
_LEAST_GAIN: Final = 1e-4


def recover_from_subspace(
    helper: F32,
    directions: F64,
    alpha: int,
    rng: np.random.Generator,
    *,
    guessed: int = 2,
    steps: int = _STEPS,
    limit: int = 1 << 20,
    seconds: float = float("inf"),
    confirm: Confirm | None = None,
    device: str = CPU,
) -> Recovered:
    """Look for what one issue was made from.

    helper: (n, n) float32, decoded. directions: (n, k), orthonormal columns, those that embeddings
    use. guessed: entries of the codeword that every trial guesses; each more costs a factor of
    about 2 n / alpha. limit, seconds: trials, and time, after which it gives up. confirm: where the
    digest of a codeword can be computed; otherwise one is believed that leaves much less energy
    outside the span than the median one. device: see `ironmask.accelerator`. The score is the best
    one's energy inside the span.

    Directions in which a template has little energy are better left out: the fewer there are, the
    more is known of a codeword, until what is left out of it drowns the rest. The sign stays open
    without a digest: the template or its negative.

    Raises `ParameterError` where directions do not fit the helper or leave nothing out,
    `ProviderError` for an absent device.
    """
    n = len(helper)
    if directions.shape[0] != n or not 0 < directions.shape[1] < n:
        raise ParameterError(
            f"directions are {directions.shape}: they need {n} rows and fewer columns than that"
        )
    if not 1 <= guessed < alpha:
        raise ParameterError(f"{guessed} entries to guess of {alpha}: from 1 to {alpha - 1}")
    on = accelerator(device)
    began, trials, best = time.perf_counter(), 0, 0.0
    span = helper @ directions.astype(np.float32)
    projector = on.upload(span @ span.T)
    for places, signs in _guesses(on, n, guessed, rng):
        places, signs = places[: limit - trials], signs[: limit - trials]
        trials += len(places)
        pursued = _pursued(on, projector, places, signs, steps)
        codes, scores, usual = _best(on, projector, pursued, alpha)
        best = max(best, float(scores.max()))
        spent = time.perf_counter() - began
        for code, score in zip(codes, scores.tolist(), strict=True):
            right = believed([code], 1 - score <= _OUTSIDE * (1 - usual), confirm)
            if right is not None:
                return Recovered((template_of(helper, right[0]),), trials, spent, best)
        if trials >= limit or spent >= seconds:
            break
    return Recovered((), trials, time.perf_counter() - began, best)


def guesses_needed(n: int, alpha: int, guessed: int, success: float) -> float:
    """Trials on average until all guessed entries are right and the pursuit succeeds.

    success: its share among right guesses. The first sign is free, since -c is as good as c.
    """
    places = np.arange(guessed)
    return float(np.prod((n - places) / (alpha - places)) * 2 ** (guessed - 1) / success)


def share_recovered(helper: F32, directions: F32, code: I32, entries: I32) -> int:
    """How many right guesses, (k, guessed) signed entries of a codeword, lead to it: an integer.

    code: (alpha,) int32. For an evaluator who knows it: what a guess that is right is worth.
    """
    on = accelerator(CPU)
    span = helper @ directions
    projector = on.upload(span @ span.T)
    places = (np.abs(entries) - 1).astype(np.int32)
    pursued = _pursued(on, projector, places, np.sign(entries).astype(np.float32), _STEPS)
    better, _ = _polished(on, projector, _rounded(on, pursued, len(code)), len(code))
    return sum(np.array_equal(_signed(one), code) for one in on.download(better))


def _guesses(
    on: Accelerator, n: int, guessed: int, rng: np.random.Generator
) -> Iterator[tuple[I32, F32]]:
    """Places and signs, (k, guessed) each, without end; one place each goes through all of them."""
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


def _pursued(on: Accelerator, projector: Any, places: I32, signs: F32, steps: int) -> Any:
    """Sparse vectors near the span, (k, n), whose guessed entries are as guessed."""
    xp, n = on.xp, projector.shape[0]
    z = np.zeros((len(places), n), dtype=np.float32)
    z[np.arange(len(places))[:, None], places] = signs
    fixed = on.upload(z)
    is_free = fixed == 0
    z, w = fixed, xp.zeros_like(fixed)
    for _ in range(steps):
        w += (z - w) @ projector
        # Shrunk towards zero, no larger than an entry of a codeword, and as guessed.
        z = xp.clip(w - xp.clip(w, -_SHRINK, _SHRINK), -1, 1)
        z *= is_free
        z += fixed
        w -= z
    return z


def _best(
    on: Accelerator, projector: Any, vectors: Any, alpha: int
) -> tuple[list[I32], F64, float]:
    """Codewords nearest to the vectors, (k, n), those furthest inside the span, made better.

    Returns them, the best first, with their energy inside; and the median energy of all.
    """
    xp, k = on.xp, len(vectors)
    s = _rounded(on, vectors, alpha)
    inside = on.download(xp.sum((s @ projector) * s, axis=1)) / alpha
    kept = np.argsort(-inside)[: -(-k // _POLISHED)]
    better, energy = _polished(on, projector, xp.take(s, on.upload(kept), axis=0), alpha)
    order = np.argsort(-energy)
    found = [_signed(code) for code in on.download(better)[order]]
    return found, energy[order] / alpha, float(np.median(inside))


def _rounded(on: Accelerator, vectors: Any, alpha: int) -> Any:
    """The signs of the alpha largest entries of each vector, (k, n), and zeros."""
    support = on.largest(on.xp.abs(vectors), alpha)
    rows = on.xp.arange(len(vectors), device=on.device)[:, None]
    s = on.xp.zeros_like(vectors)
    s[rows, support] = on.xp.where(vectors[rows, support] < 0, -1.0, 1.0)
    return s


def _signed(dense: F32) -> I32:
    support = np.flatnonzero(dense)
    return ((support + 1) * np.sign(dense[support])).astype(np.int32)


def _polished(on: Accelerator, projector: Any, s: Any, alpha: int) -> tuple[Any, F64]:
    """Exchange one entry at a time of codewords, (k, n), while that takes them into the span.

    Returns them with their energy there. A place or two of the best ones are often wrong; where
    rounding lets it go on and on, it is stopped.
    """
    xp, (k, n) = on.xp, s.shape
    diagonal = xp.sum(projector * xp.eye(n, dtype=xp.float32, device=on.device), axis=0)
    rows = xp.arange(k, device=on.device)
    for _ in range(2 * alpha):
        inner = s @ projector
        energy = xp.sum(inner * s, axis=1)
        support = on.largest(xp.abs(s), alpha)
        own = s[rows[:, None], support]
        columns = xp.reshape(xp.take(projector, xp.reshape(support, (-1,)), axis=0), (k, alpha, n))
        others = inner[:, None, :] - own[:, :, None] * columns
        left = energy[:, None] - 2 * own * inner[rows[:, None], support] + diagonal[support]
        # A place that is taken already cannot be taken again.
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
    return s, on.download(xp.sum((s @ projector) * s, axis=1)).astype(np.float64)
