"""A large set of texts at 16 bytes each, such as the subjects that a table holds.

Up to a million are kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.table.spool import spool

_BYTES: Final = 16
HASH: Final = np.dtype(f"S{_BYTES}")
IN_MEMORY: Final = 1 << 20
_PREFIXES: Final = 1 << 16

Mask = NDArray[np.bool_]
Hashes = NDArray[np.bytes_]
_Kept = Callable[[Hashes], Hashes]


class Sorter:
    """Sorts any number of hashes in 32 MiB of memory.

    The rest lies in nameless temporary files, which are mapped: the system takes their pages out of
    memory where it needs room.
    """

    def __init__(self, *, repeats: bool = False) -> None:
        """repeats: whether `repeated` will be asked."""
        self.total = 0
        self._repeats = repeats
        self._runs: list[Hashes] = []
        self._some: list[Hashes] = []
        self._waiting = 0

    def add(self, hashes: Hashes) -> None:
        """Take in some hashes, (k,). Raises `StorageError` where a file finds no room."""
        self.total += len(hashes)
        self._some.append(hashes)
        self._waiting += len(hashes)
        if self._waiting >= IN_MEMORY:
            self._runs.append(_filed([self._rest()]))

    def distinct(self) -> Hashes:
        """The different hashes so far, in their order. Errors are those of `add`."""
        return self._all(np.unique)

    def repeated(self) -> Hashes:
        """Those that were added more than once, in their order. Errors are those of `add`."""
        assert self._repeats  # noqa: S101
        return self._all(_twice)

    def _all(self, kept: _Kept) -> Hashes:
        rest = self._rest()
        self._some = [rest]
        return _merged([*self._runs, rest], kept) if self._runs else kept(rest)

    def _rest(self) -> Hashes:
        ordered = np.sort if self._repeats else np.unique
        found: Hashes = ordered(np.concatenate([np.empty(0, HASH), *self._some]))
        self._some, self._waiting = [], 0
        return found


def _twice(some: Hashes) -> Hashes:
    """The hashes that come more than once."""
    found, counts = np.unique(some, return_counts=True)
    return found[counts > 1]


def _merged(runs: list[Hashes], kept: _Kept = np.unique) -> Hashes:
    """What is kept of sorted runs, as one. Goes range by range: hashes are spread evenly."""
    ranges = min(_PREFIXES, 1 + sum(map(len, runs)) * 2 // IN_MEMORY)
    ends = [(place * _PREFIXES // ranges).to_bytes(2) for place in range(1, ranges)]
    bounds = [
        [0, *np.searchsorted(run, np.array(ends, HASH)), len(run)] if ends else [0, len(run)]
        for run in runs
    ]
    return _filed(
        kept(
            np.concatenate(
                [run[own[k] : own[k + 1]] for run, own in zip(runs, bounds, strict=True)]
            )
        )
        for k in range(ranges)
    )


def _filed(parts: Iterable[Hashes]) -> Hashes:
    """Hashes in a nameless temporary file, mapped."""
    with spool() as file:
        for part in parts:
            file.write(part.tobytes())
        file.flush()
        count = file.tell() // _BYTES
        return np.memmap(file, HASH, "r", shape=(count,)) if count else np.empty(0, HASH)


class TextSet:
    """Texts by their 128-bit BLAKE2b hashes. Two different texts never collide in practice."""

    def __init__(self, texts: Iterable[pa.Array | pa.ChunkedArray] = ()) -> None:
        sorter = Sorter()
        for part in texts:
            sorter.add(hashes(part))
        self._sorted = sorter.distinct()

    @classmethod
    def of(cls, some: Hashes) -> TextSet:
        """The texts of different hashes, in their order."""
        made = cls()
        made._sorted = some
        return made

    def __len__(self) -> int:
        return len(self._sorted)

    def joined(self, other: TextSet) -> TextSet:
        """The texts of both sets."""
        if len(self) + len(other) < IN_MEMORY:
            return TextSet.of(np.union1d(self._sorted, other._sorted))
        return TextSet.of(_merged([self._sorted, other._sorted]))

    def without(self, other: TextSet) -> TextSet:
        """The texts of this set that are not in another one."""
        return TextSet.of(self._sorted[~other._holds(self._sorted)])

    def has(self, texts: pa.Array | pa.ChunkedArray) -> Mask:
        """Which texts are in the set, (k,) bool. A null is not."""
        if not len(self):
            return np.zeros(len(texts), bool)
        found: Mask = self._holds(hashes(texts)) & np.asarray(texts.is_valid())
        return found

    def _holds(self, asked: Hashes) -> Mask:
        if not len(self):
            return np.zeros(len(asked), bool)
        places = np.minimum(np.searchsorted(self._sorted, asked), len(self) - 1)
        found: Mask = self._sorted[places] == asked
        return found


class GrowingTextSet:
    """A set of texts that grows in a few large parts, not in many small ones."""

    def __init__(self) -> None:
        self._parts: list[TextSet] = []

    def add(self, more: TextSet) -> None:
        self._parts.append(more)
        while len(self._parts) > 1 and len(self._parts[-2]) <= 2 * len(self._parts[-1]):
            last = self._parts.pop()
            self._parts[-1] = self._parts[-1].joined(last)

    def has(self, texts: pa.Array | pa.ChunkedArray) -> Mask:
        """Which texts are in the set, (k,) bool."""
        found = np.zeros(len(texts), bool)
        for part in self._parts:
            found |= part.has(texts)
        return found


class Greatest:
    """The greatest number that came with each text, at 24 bytes a text."""

    def __init__(self, first: Iterable[tuple[pa.Array, NDArray[np.int64]]]) -> None:
        """first: the texts that count, each with a number."""
        parts = [(hashes(texts), numbers) for texts, numbers in first]
        every = np.concatenate([part for part, _ in parts]) if parts else np.empty(0, HASH)
        self._sorted, places = np.unique(every, return_inverse=True)
        self._numbers = np.full(len(self._sorted), np.iinfo(np.int64).min)
        if parts:
            np.maximum.at(self._numbers, places, np.concatenate([numbers for _, numbers in parts]))

    def raise_to(self, texts: pa.Array, numbers: NDArray[np.int64]) -> None:
        """Take in more numbers of the same texts. Other texts do not count."""
        places, known = self._places(texts)
        np.maximum.at(self._numbers, places[known], numbers[known])

    def are(self, texts: pa.Array, numbers: NDArray[np.int64]) -> Mask:
        """Which texts come with their greatest number, (k,) bool. Each text must count."""
        places, known = self._places(texts)
        found: Mask = known.copy()
        found[known] = self._numbers[places[known]] == numbers[known]
        return found

    def _places(self, texts: pa.Array) -> tuple[NDArray[np.intp], Mask]:
        """The places of some texts, (k,), and which of them count, (k,) bool."""
        if not len(self._sorted):
            return np.zeros(len(texts), np.intp), np.zeros(len(texts), bool)
        asked = hashes(texts)
        places = np.minimum(np.searchsorted(self._sorted, asked), len(self._sorted) - 1)
        return places, self._sorted[places] == asked


def hashes(texts: pa.Array | pa.ChunkedArray) -> Hashes:
    """The hashes of some texts, (k,). A null counts as an empty text."""
    digests = [
        blake2b((text or "").encode(), digest_size=_BYTES).digest() for text in texts.to_pylist()
    ]
    # The texts fill the type's length, so zeros are cut off from all of them in the same way.
    return np.array(digests, dtype=HASH)
