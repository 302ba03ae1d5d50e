"""Meeting in the middle: two issues of one template by a table of half-sums.

Kim et al. 2021, supplementary material C. Let M = P_2 P_1'; then M c_1 = c_2 for the codewords of
two issues. Write c_1 = a + b with alpha / 2 entries each: in every place M a + M b is 0 or
+-1 / sqrt(alpha), since c_2 is. Its four steps:

1. A table holds M a in l places for all T = binom(N, alpha / 2) 2^(alpha / 2) half-sums a.
2. Each of the l sub-tables, one a place, is sorted.
3. For each a, each sub-table gives the b whose sum with it has one of these three values.
4. Pairs without a common place that agree in all sub-tables are tried as codewords.

Steps 3 and 4 are done together here: one sub-table is sorted and searched, and its pairs are
compared in the other places. Exact helpers need one such join. With noise, only sums within a
window count, and more joins are needed, on other places. At N = 512 and alpha = 16 the table has
2^64.6 entries. So this is for toy sizes: it measures that the count is right.
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
# What an entry of a codeword may be, in units of 1 / sqrt(alpha).
_SUMS: Final = (0.0, 1.0, -1.0)


@dataclass(frozen=True, slots=True)
class TradeOff:
    """The end of the attack, and its cost.

    recovered: its trials are joins. operations: table entries made, comparisons of sorting and
    searching, and pairs compared. pairs: those that agreed in all places of a join.
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
    limit: int = 1,
    least: float = _NEAR,
    structure: Structure = Structure.REAL,
) -> TradeOff:
    """Look for what two issues of one template, (2, N, n), were made from.

    alpha: even, small. places: l. window: the largest distance of a sum to what it should be; exact
    helpers need only their rounding, different captures about their noise. limit: the attack gives
    up after so many joins; exact helpers need one. least: M c_1 is believed from this cosine to a
    codeword on. structure: of the helpers.

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
        joined, compared = _joined(values, table, window, alpha)
        pairs += len(joined)
        operations += len(table) * (1 + (1 + len(_SUMS)) * log2(len(table))) + compared
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


def joins_needed(places: int, passing: float = 1.0) -> float:
    """Joins on average until all l sums of one lie in the window.

    passing: the share of entries that lie in it; 1 without noise.
    """
    return passing**-places


def tradeoff_operations(code_width: int, alpha: int, places: int, passing: float = 1.0) -> float:
    """What the supplement counts: T additions, l T log2 T comparisons to sort, as many to search.

    T: entries of the table. So much for each join that is needed. The supplement prints the search
    as l log T, which is that of one entry. To try the pairs that are left counts nothing here, so
    the attack takes no less.
    """
    size = table_size(code_width, alpha)
    return joins_needed(places, passing) * size * (1 + 2 * places * log2(size))


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


def _joined(values: F64, table: I32, window: float, alpha: int) -> tuple[NDArray[np.intp], int]:
    """Find pairs of half-sums with disjoint supports whose sums are those of a codeword, (k, 2).

    Also returns how many pairs were compared.
    """
    order = np.argsort(values[:, 0])
    sums = np.array(_SUMS) / np.sqrt(alpha)
    found = [_with_sum(values[:, 0], order, one, window) for one in sums]
    first, second = (np.concatenate(parts) for parts in zip(*found, strict=True))
    apart = values[first] + values[second]
    near = (np.abs(apart[:, :, None] - sums).min(axis=2) <= window).all(axis=1)
    agree = (first < second) & near
    one, other = np.abs(table[first[agree]]), np.abs(table[second[agree]])
    is_apart = (one[:, :, None] != other[:, None, :]).all(axis=(1, 2))
    pairs: NDArray[np.intp] = np.stack([first[agree], second[agree]], axis=1)[is_apart]
    return pairs, len(first)


def _with_sum(
    values: F64, order: NDArray[np.intp], total: float, window: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """All pairs of entries whose sum lies within a window around a total. order: sorts values."""
    ordered = values[order]
    start = np.searchsorted(ordered, total - values - window)
    counts = np.searchsorted(ordered, total - values + window, side="right") - start
    first = np.repeat(np.arange(len(values)), counts)
    within = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    return first, order[np.repeat(start, counts) + within]


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
