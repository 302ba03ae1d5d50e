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
from typing import Final

import numpy as np

from ironmask import codeword
from ironmask.arrays import F32, F64, I32
from ironmask.attacks.result import Confirm, Recovered, believed, template_of
from ironmask.errors import ParameterError

_GUESSES: Final = 512
_STEPS: Final = 30
_SHRINK: Final = np.float32(0.15)
# Of w600k_mbf, in 300 of 512 directions: a right codeword leaves .01 to .06 of its energy outside,
# wrong ones .2 to .3.
_OUTSIDE: Final = 0.4
# Codewords of a batch of guesses that are improved, and what counts as better.
_POLISHED: Final = 8
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
    confirm: Confirm | None = None,
) -> Recovered:
    """Look for what one issue was made from.

    helper: (n, n) float32, decoded. directions: (n, k), orthonormal columns, those that embeddings
    use. guessed: entries of the codeword that every trial guesses; each more costs a factor of
    about 2 n / alpha. limit: trials after which it gives up. confirm: where the digest of a
    codeword can be computed; otherwise one is believed that leaves much less energy outside the
    span than the median one. The score is the best one's energy inside it.

    Directions in which a template has little energy are better left out: the fewer there are, the
    more is known of a codeword, until what is left out of it drowns the rest. The sign stays open
    without a digest: the template or its negative.

    Raises `ParameterError` where directions do not fit the helper or leave nothing out.
    """
    n = len(helper)
    if directions.shape[0] != n or not 0 < directions.shape[1] < n:
        raise ParameterError(
            f"directions are {directions.shape}: they need {n} rows and fewer columns than that"
        )
    if not 1 <= guessed < alpha:
        raise ParameterError(f"{guessed} entries to guess of {alpha}: from 1 to {alpha - 1}")
    began, trials, best = time.perf_counter(), 0, 0.0
    span = helper @ directions.astype(np.float32)
    projector = span @ span.T
    for places, signs in _guesses(n, guessed, rng):
        places, signs = places[: limit - trials], signs[: limit - trials]
        trials += len(places)
        found = codeword.decode(_pursued(projector, places, signs, steps), alpha)
        inside = ((codeword.dense(found, n).astype(np.float32) @ span) ** 2).sum(axis=1)
        usual = 1 - float(np.median(inside))
        for first in np.argsort(-inside)[:_POLISHED]:
            code, score = _polished(projector, found[first])
            best = max(best, score)
            right = believed([code], 1 - score <= _OUTSIDE * usual, confirm)
            if right is not None:
                seconds = time.perf_counter() - began
                return Recovered((template_of(helper, right[0]),), trials, seconds, best)
        if trials >= limit:
            break
    return Recovered((), trials, time.perf_counter() - began, best)


def guesses_needed(n: int, alpha: int, guessed: int, success: float) -> float:
    """Trials on average until all guessed entries are right and the pursuit succeeds.

    success: its share among right guesses. The first sign is free, since -c is as good as c.
    """
    places = np.arange(guessed)
    return float(np.prod((n - places) / (alpha - places)) * 2 ** (guessed - 1) / success)


def _guesses(n: int, guessed: int, rng: np.random.Generator) -> Iterator[tuple[I32, F32]]:
    """Places and signs, (k, guessed) each, without end; one place each goes through all of them."""
    if guessed == 1:
        order = rng.permutation(n).astype(np.int32)[:, None]
        for start in range(0, n, _GUESSES):
            part = order[start : start + _GUESSES]
            yield part, np.ones(part.shape, dtype=np.float32)
        return
    while True:
        places = rng.random((_GUESSES, n)).argpartition(guessed, axis=1)[:, :guessed]
        signs = rng.choice(np.array([-1, 1], dtype=np.float32), places.shape)
        yield places.astype(np.int32), signs


def _pursued(projector: F32, places: I32, signs: F32, steps: int) -> F32:
    """Sparse vectors near the span, (k, n), whose guessed entries are as guessed."""
    rows = np.arange(len(places))[:, None]
    z = np.zeros((len(places), len(projector)), dtype=np.float32)
    z[rows, places] = signs
    w = np.zeros_like(z)
    for _ in range(steps):
        x = (z - w) @ projector
        w += x
        # Shrunk towards zero, no larger than an entry of a codeword, and as guessed.
        z = np.clip(w - np.clip(w, -_SHRINK, _SHRINK), -1, 1)
        z[rows, places] = signs
        w -= z
    return z


def _polished(projector: F32, code: I32) -> tuple[I32, float]:
    """Exchange one entry at a time while that takes the codeword further into the span.

    Returns it with its energy there. A place or two of the best ones are often wrong.
    """
    n, alpha = len(projector), len(code)
    s = np.zeros(n)
    s[np.abs(code) - 1] = np.sign(code)
    diagonal = np.diag(projector)
    energy = float(s @ projector @ s)
    while True:
        support = np.flatnonzero(s)
        own = s[support, None]
        others = (projector @ s)[None, :] - own * projector[support]
        left = energy - 2 * own[:, 0] * (projector @ s)[support] + diagonal[support]
        gain = left[:, None] + 2 * np.abs(others) + diagonal
        # A place that is taken already can only be given up.
        gain[:, support] = np.where(np.eye(alpha, dtype=bool), gain[:, support], -np.inf)
        out, into = np.unravel_index(int(gain.argmax()), gain.shape)
        if gain[out, into] <= energy + _LEAST_GAIN:
            signed = (support + 1) * s[support]
            return signed.astype(np.int32), energy / alpha
        energy = float(gain[out, into])
        s[support[out]] = 0
        s[into] = 1 if others[out, into] >= 0 else -1
