"""A large set of texts at 16 bytes each, such as the subjects that a table holds."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_BYTES: Final = 16

Mask = NDArray[np.bool_]


class TextSet:
    """Texts by their 128-bit BLAKE2b hashes. Two different texts never collide in practice."""

    def __init__(self, texts: Iterable[pa.Array | pa.ChunkedArray] = ()) -> None:
        parts = [_hashes(part) for part in texts]
        self._sorted = np.unique(np.concatenate(parts)) if parts else np.empty(0, f"S{_BYTES}")

    def __len__(self) -> int:
        return len(self._sorted)

    def joined(self, other: TextSet) -> TextSet:
        """The texts of both sets."""
        both = TextSet()
        both._sorted = np.union1d(self._sorted, other._sorted)
        return both

    def without(self, other: TextSet) -> TextSet:
        """The texts of this set that are not in another one."""
        rest = TextSet()
        rest._sorted = np.setdiff1d(self._sorted, other._sorted, assume_unique=True)
        return rest

    def has(self, texts: pa.Array | pa.ChunkedArray) -> Mask:
        """Which texts are in the set, (k,) bool. A null is not."""
        if not len(self):
            return np.zeros(len(texts), bool)
        asked = _hashes(texts)
        places = np.minimum(np.searchsorted(self._sorted, asked), len(self) - 1)
        found: Mask = (self._sorted[places] == asked) & np.asarray(texts.is_valid())
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
        parts = [(_hashes(texts), numbers) for texts, numbers in first]
        hashes = np.concatenate([part for part, _ in parts]) if parts else np.empty(0, f"S{_BYTES}")
        self._sorted, places = np.unique(hashes, return_inverse=True)
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
        asked = _hashes(texts)
        places = np.minimum(np.searchsorted(self._sorted, asked), len(self._sorted) - 1)
        return places, self._sorted[places] == asked


def _hashes(texts: pa.Array | pa.ChunkedArray) -> NDArray[np.bytes_]:
    digests = [
        blake2b((text or "").encode(), digest_size=_BYTES).digest() for text in texts.to_pylist()
    ]
    # The texts fill the type's length, so zeros are cut off from all of them in the same way.
    return np.array(digests, dtype=f"S{_BYTES}")
