"""Meeting in the middle: two issues of one template by a table of half-sums.

Kim et al. 2021, supplementary material C. Let M = P_2 P_1'; then M c_1 = c_2 for the codewords of
two issues. Write c_1 = a + b with alpha / 2 entries each: M a and -M b agree in every place where
c_2 is zero. A table holds M a in l places for all T = binom(N, alpha / 2) 2^(alpha / 2) half-sums
a. It is sorted by the first of these places, and joined with itself, signs turned, on all of them.
A join makes T entries and compares T log2 T times, and once more for each pair that agrees in the
first place. It finds c_1 if c_2 is zero in all l places, so several joins are needed.
At N = 512 and alpha = 16 the table has 2^64.6 entries. So this is for toy sizes: it measures that
the count is right.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import combinations, product
from math import comb, log2
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ironmask import codeword
from ironmask.arrays import F32, F64, I32
from ironmask.attacks.result import Recovered, template_of
from ironmask.errors import ParameterError
from ironmask.params import Structure

_MOST: Final = 1 << 20
_NEAR: Final = 0.985


@dataclass(frozen=True, slots=True)
class TradeOff:
    """The end of the attack, and its cost.

    recovered: its trials are joins. operations: table entries made, and comparisons of sorting and
    joining. pairs: those that agreed in all places of a join.
    """

    recovered: Recovered
    operations: float
    pairs: int


def recover_by_tradeoff(
    helpers: F32,
    alpha: int,
    rng: np.random.Generator,
    *,
    places: int = 3,
    window: float = 1e-4,
    limit: int = 64,
    least: float = _NEAR,
    structure: Structure = Structure.REAL,
) -> TradeOff:
    """Look for what two issues of one template, (2, N, n), were made from.

    alpha: even, small. places: l. window: the largest difference between entries that should agree;
    exact helpers need only their rounding, different captures about their noise. limit: the attack
    gives up after so many joins. least: M c_1 is believed from this cosine to a codeword on.
    structure: of the helpers.

    Raises `ParameterError` for an odd alpha or a table of more than 2^20 entries.
    """
    code_width = helpers.shape[1]
    if alpha % 2 or table_size(code_width, alpha) > _MOST:
        raise ParameterError(
            f"alpha {alpha} at width {code_width}: it must be even, with a table of at most "
            f"{_MOST:,} half-sums"
        )
    began, operations, pairs, best = time.perf_counter(), 0.0, 0, 0.0
    m = helpers[1].astype(np.float64) @ helpers[0].T.astype(np.float64)
    table = _half_sums(code_width, alpha)
    for trial in range(1, limit + 1):
        chosen = rng.choice(code_width, places, replace=False)
        values = _applied(m, table, alpha, chosen)
        joined, compared = _joined(values, table, window)
        pairs += len(joined)
        operations += len(table) * (1 + log2(len(table))) + compared
        code, score = _nearest(m, table, joined, alpha)
        best = max(best, score)
        if score >= least:
            found = _both(helpers, m, code, alpha)
            spent = time.perf_counter() - began
            recovered = Recovered(found, trial, spent, best, structure=structure)
            return TradeOff(recovered, operations, pairs)
    spent = time.perf_counter() - began
    recovered = Recovered((), limit, spent, best, structure=structure)
    return TradeOff(recovered, operations, pairs)


def table_size(code_width: int, alpha: int) -> int:
    """The half-sums of alpha / 2 signed places."""
    return comb(code_width, alpha // 2) << (alpha // 2)


def joins_needed(code_width: int, alpha: int, places: int, passing: float = 1.0) -> float:
    """Joins on average until the l places of one are zero in c_2 and lie in the window.

    passing: the share of such entries that lie in the window; 1 without noise.
    """
    i = np.arange(places)
    return float(1 / np.prod(passing * (code_width - alpha - i) / (code_width - i)))


def tradeoff_operations(code_width: int, alpha: int, places: int, passing: float = 1.0) -> float:
    """T (1 + log2 T) for each join that is needed of a table of T entries: entries made and
    comparisons to sort them.
    """
    size = table_size(code_width, alpha)
    return joins_needed(code_width, alpha, places, passing) * size * (1 + log2(size))


def _half_sums(code_width: int, alpha: int) -> I32:
    """All signed supports of alpha / 2 places, (T, alpha / 2)."""
    half = alpha // 2
    support = np.array(list(combinations(range(1, code_width + 1), half)), dtype=np.int32)
    signs = np.array(list(product((1, -1), repeat=half)), dtype=np.int32)
    table: I32 = (support[:, None, :] * signs[None]).reshape(-1, half)
    return table


def _applied(m: F64, table: I32, alpha: int, chosen: NDArray[np.intp]) -> F64:
    """M a in some places, for each half-sum a: (T, l)."""
    columns = m[chosen][:, np.abs(table) - 1] * np.sign(table)
    applied: F64 = columns.sum(axis=2).T / np.sqrt(alpha)
    return applied


def _joined(values: F64, table: I32, window: float) -> tuple[NDArray[np.intp], int]:
    """Find pairs of half-sums with disjoint supports whose values cancel, (k, 2).

    Also returns how many pairs were compared.
    """
    order = np.argsort(values[:, 0])
    ordered = values[order, 0]
    start = np.searchsorted(ordered, -values[:, 0] - window)
    counts = np.searchsorted(ordered, -values[:, 0] + window, side="right") - start
    first = np.repeat(np.arange(len(table)), counts)
    within = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    second = order[np.repeat(start, counts) + within]
    agree = (first < second) & (np.abs(values[first] + values[second]) <= window).all(axis=1)
    one, other = np.abs(table[first[agree]]), np.abs(table[second[agree]])
    is_apart = (one[:, :, None] != other[:, None, :]).all(axis=(1, 2))
    pairs: NDArray[np.intp] = np.stack([first[agree], second[agree]], axis=1)[is_apart]
    return pairs, len(first)


def _nearest(m: F64, table: I32, joined: NDArray[np.intp], alpha: int) -> tuple[I32, float]:
    """The pair whose sum M takes nearest to a codeword, as (alpha,) signed, and its cosine."""
    if not len(joined):
        return table[0], 0.0
    codes = table[joined].reshape(len(joined), alpha)
    image = np.einsum("ika,ka->ki", m[:, np.abs(codes) - 1], np.sign(codes)) / np.sqrt(alpha)
    largest = -np.sort(-np.abs(image), axis=1)[:, :alpha]
    cosines = largest.sum(axis=1) / np.sqrt(alpha)
    first = int(cosines.argmax())
    code = codes[first][np.argsort(np.abs(codes[first]))]
    return code, float(cosines[first])


def _both(helpers: F32, m: F64, code: I32, alpha: int) -> tuple[F64, F64]:
    """The templates of both issues, from the codeword of the first one."""
    first, second = helpers
    (image,) = codeword.decode(codeword.dense(code, len(m)) @ m.T, alpha)
    return template_of(first, code), template_of(second, image)
