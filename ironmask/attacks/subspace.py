"""One issue of a model whose embeddings do not fill the space: the template from its helper alone.

Whoever has the model can measure how much energy its embeddings have in each direction. P carries
these directions to the codeword c = P t, and few sparse vectors look like P t. Some of its entries
are guessed. The rest is found as the vector of least sum |x| near those; see the module `pursuit`.
The filter is Wiener's: each direction counts by its share of an embedding's energy against that of
a wrong codeword. Then single entries are exchanged while that helps. A guess takes 2 N^2 operations
for each step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from math import comb, log2
from typing import Any, Final

import numpy as np

from ironmask import codeword
from ironmask.accelerator import CPU, Accelerator, accelerator
from ironmask.arrays import F32, F64, I32
from ironmask.attacks.pursuit import passed, polished, pursued, rounded, signed
from ironmask.attacks.result import Budget, Confirm, Recovered, believed, template_of
from ironmask.errors import ParameterError
from ironmask.params import Structure
from ironmask.spectrum import Spectrum

_GUESSES: Final = 512
# A GPU needs at least this many at once to be busy.
_DEVICE_GUESSES: Final = 32_768
_STEPS: Final = 30
_BUDGET: Final = Budget(1 << 20)
# One codeword in 64 is improved; of these, the four best are asked about.
_POLISHED: Final = 64
_ASKED: Final = 4


def recover_from_subspace(
    helper: F32,
    space: Spectrum,
    alpha: int,
    rng: np.random.Generator,
    *,
    guessed: int = 1,
    budget: Budget = _BUDGET,
    confirm: Confirm | None = None,
    structure: Structure = Structure.REAL,
) -> Recovered:
    """Look for what one issue was made from.

    helper: (N, n) float32, decoded. space: of other embeddings of the model, filled where the
    issue's template is. guessed: entries of the codeword that every trial guesses; each more costs
    a factor of about 2 N / alpha. budget: after which it gives up. confirm: where the digest of a
    codeword can be computed; otherwise one is believed that looks like an embedding by more bits
    than there are codewords. structure: of the helper. The score is the best `Spectrum.likeness`,
    in bits. The sign stays open without a digest: the template or its negative.

    Raises `ParameterError` where the spectrum does not fit the helper, or guesses the codeword,
    `ProviderError` for an absent device.
    """
    whole, known = squared(helper, space)
    n = len(whole)
    if not 1 <= guessed < alpha:
        raise ParameterError(f"{guessed} entries to guess of {alpha}: from 1 to {alpha - 1}")
    on = accelerator(budget.device)
    # One entry has no more places than these.
    limit = min(budget.trials, n) if guessed == 1 else budget.trials
    began, trials, best, late = time.perf_counter(), 0, -float("inf"), False
    enough = log2(comb(n, alpha)) + alpha
    likely = on.upload(_filter(helper, space))
    for places, signs in _guesses(on, n, guessed, rng):
        places, signs = places[: limit - trials], signs[: limit - trials]
        trials += len(places)
        codes = _best(on, likely, _pursued(on, likely, places, signs), alpha)
        bits = known.likeness(codeword.dense(codes, n) @ whole)
        best = max(best, float(bits.max()))
        for first in np.argsort(-bits)[:_ASKED]:
            right = believed([codes[first]], bool(bits[first] > enough), confirm, structure)
            if right is not None:
                spent = time.perf_counter() - began
                found = (template_of(helper, right[0]),)
                return Recovered(found, trials, spent, best, structure=structure)
        late = time.perf_counter() - began >= budget.seconds and trials < limit
        if trials >= limit or late:
            break
    spent = time.perf_counter() - began
    return Recovered((), trials, spent, best, out_of_time=late, structure=structure)


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
    likely = on.upload(_filter(helper, space))
    places = (np.abs(entries) - 1).astype(np.int32)
    near = _pursued(on, likely, places, np.sign(entries).astype(np.float32))
    better = polished(on, likely, rounded(on, near, len(code)), len(code))
    return sum(np.array_equal(signed(one), code) for one in on.download(better))


def squared(helper: F32, space: Spectrum) -> tuple[F64, Spectrum]:
    """A wide helper with columns added until it is square, and a spectrum empty in these.

    Raises `ParameterError` where the spectrum does not fit the helper.
    """
    code_width, n = helper.shape
    if space.n != n:
        raise ParameterError(f"a spectrum of width {space.n} for a helper of width {n}")
    own = helper.astype(np.float64)
    if code_width == n:
        return own, space
    q = np.linalg.qr(own, mode="complete")[0]
    return np.concatenate([own, q[:, n:]], axis=1), space.within(code_width)


def _filter(helper: F32, space: Spectrum) -> F32:
    """Wiener's filter in the coordinates of codewords, (N, N).

    Of what lies outside a wide helper's span, nothing passes.
    """
    code_width, n = helper.shape
    span = helper @ space.directions.astype(np.float32)
    weights = space.within(code_width).weights[:n].astype(np.float32)
    found: F32 = ((span * weights) @ span.T).astype(np.float32, copy=False)
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
    z = np.zeros((len(places), likely.shape[0]), dtype=np.float32)
    z[np.arange(len(places))[:, None], places] = signs
    return pursued(on, likely, on.upload(z), on.upload(z == 0), _STEPS)


def _best(on: Accelerator, likely: Any, vectors: Any, alpha: int) -> I32:
    """Find the most promising codewords near the vectors, (k, n), and improve them: (m, alpha)."""
    s = rounded(on, vectors, alpha)
    energy = passed(on, likely, s)
    kept = np.argsort(-energy)[: -(-len(energy) // _POLISHED)]
    better = polished(on, likely, on.xp.take(s, on.upload(kept), axis=0), alpha)
    return np.stack([signed(code) for code in on.download(better)])
