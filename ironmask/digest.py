"""Keyed digests of codewords, and threshold control through digests of their subsets.

A row stores one keyed BLAKE2b tag (RFC 7693) for each signed (alpha - tolerance)-subset of its
codeword, with the key before the subset in one block: BLAKE2's own key block would be a second
one, and since every key has one length and BLAKE2 admits no extension it would add nothing. A probe
matches when one of the subsets that it is tried as has a stored tag (Kim et al. 2021, supplement
D.1; `ironmask.candidates`).
"""

from __future__ import annotations

import struct
from functools import lru_cache
from hashlib import blake2b
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from ironmask.arrays import I32
from ironmask.codeword import canonical_bytes
from ironmask.errors import EncodingError, ParameterError
from ironmask.params import SCHEME_VERSION, Params

ROW_KEY_BYTES = 32
_FULL_TAG = 32
_SUBSET_TAG = 16
_PERSON = b"ironmask digest\0"


def tag_bytes(params: Params) -> int:
    """Bytes of one tag: 32 for the codeword itself, 16 for each of many subsets."""
    return _SUBSET_TAG if params.tolerance else _FULL_TAG


def digest_bytes(params: Params) -> int:
    """Bytes of all tags of one row."""
    return params.digest_count * tag_bytes(params)


def digests(codeword: I32, params: Params, row_key: bytes) -> bytes:
    """Return the tags of a codeword, (alpha,) int32, sorted.

    Sorting pseudo-random tags hides which subset gave which tag. row_key: 32 secret bytes that
    belong to this row alone.
    """
    subsets = codeword[_subset_index(params.alpha, params.match_size)]
    joined = b"".join(_tags(subsets, params, row_key))
    tags = np.frombuffer(joined, ">u8").reshape(-1, tag_bytes(params) // 8)
    first = tags[:, 0].astype(np.uint64)
    order = np.argsort(first)
    if (np.diff(first[order]) == 0).any():
        order = np.lexsort(tags.T[::-1])
    return tags[order].tobytes()


def matches(stored: bytes, tried: I32, params: Params, row_key: bytes) -> bool:
    """Tell whether signed subsets, (k, alpha - tolerance) int32, have a tag among the stored ones.

    Every tag is computed and compared whatever the outcome. Raises `EncodingError` where the
    stored tags are not as many as params ask for, all different and sorted.
    """
    _check(stored, params)
    tags = _tags(tried, params, row_key)
    words = tag_bytes(params) // 8
    known = np.frombuffer(stored, dtype="<u8").reshape(-1, words)
    probe = np.frombuffer(b"".join(tags), dtype="<u8").reshape(-1, words)
    # Tags are pseudo-random under a secret key, so the order of a sort tells nothing of use.
    both = np.concatenate([known, probe])
    side = np.arange(len(both)) >= len(known)
    order = np.lexsort(both.T[::-1])
    both, side = both[order], side[order]
    same = (both[1:] == both[:-1]).all(axis=1)
    # A tag stored twice must never count as a match.
    return bool(np.any(same & (side[1:] != side[:-1])))


def _check(stored: bytes, params: Params) -> None:
    if len(stored) != digest_bytes(params):
        raise EncodingError(
            f"{params.describe()} needs {digest_bytes(params):,} digest bytes, "
            f"the row has {len(stored):,}"
        )
    size = tag_bytes(params)
    tags = [stored[start : start + size] for start in range(0, len(stored), size)]
    if any(first >= second for first, second in pairwise(tags)):
        raise EncodingError("a row's digests are damaged: they are not sorted, or repeat")


def _tags(subsets: I32, params: Params, row_key: bytes) -> list[bytes]:
    if len(row_key) != ROW_KEY_BYTES:
        raise ParameterError(f"a row key has {ROW_KEY_BYTES} bytes, not {len(row_key)}")
    data = canonical_bytes(subsets, params.n)
    width = len(data) // len(subsets)
    keyed = blake2b(row_key, digest_size=tag_bytes(params), salt=_domain(params), person=_PERSON)
    tags = []
    for (subset,) in struct.iter_unpack(f"{width}s", data):
        one = keyed.copy()
        one.update(subset)
        tags.append(one.digest())
    return tags


def _domain(params: Params) -> bytes:
    return struct.pack("<4I", SCHEME_VERSION, params.n, params.alpha, params.tolerance)


@lru_cache(maxsize=16)
def _subset_index(alpha: int, size: int) -> NDArray[np.intp]:
    index = np.array(list(combinations(range(alpha), size)), dtype=np.intp)
    index.flags.writeable = False
    return index
