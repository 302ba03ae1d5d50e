"""Keyed digests of codewords, and threshold control through digests of their subsets.

A row stores one keyed tag for each signed (alpha - tolerance)-subset of its codeword. A probe
matches when one of the subsets that it is tried as has a stored tag (Kim et al. 2021, supplement
D.1; `ironmask.candidates`).

A row key consists of layers: one 32-byte key, or several end to end. The first layer keys the
subsets. Each further layer replaces every tag by the tag of that tag under its own key. So a row
can come under a new key (`relayered`) though nobody knows its codeword. Whoever lacks one of the
layers can test no guess on the current tags. Copies of earlier tags stay under their earlier keys.

A tag is the first half of an AES-CMAC (NIST SP 800-38B), which takes all subsets together. Its key
is the keyed BLAKE2b (RFC 7693) of nothing, so each layer and parameter has one of its own.

In version 1 a tag is the BLAKE2b of key and subset. Both share one block, the key first. BLAKE2's
own keyed mode would need a second block and add nothing: every key has one length, and BLAKE2
admits no extension.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from hashlib import blake2b
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ironmask.arrays import I32, U8
from ironmask.cmac import cmac
from ironmask.codeword import canonical_bytes
from ironmask.errors import EncodingError, ParameterError, ProtectionError
from ironmask.params import FIRST_VERSION, Params

ROW_KEY_BYTES = 32
_TAG = 8
_FULL_TAG = 32
_SUBSET_TAG = 16
_PERSON = b"ironmask digest\0"
_LAYER_PERSON = b"ironmask layer\0\0"


def tag_bytes(params: Params) -> int:
    """Bytes of one tag: 8; in version 1, 32 for a codeword and 16 for each of many subsets.

    A probe's tags are compared with those of one row. With 8 bytes, 8,192 against 8,192 of them
    meet by chance with a probability of 4e-12, far below any false match rate. Whoever has the key
    gains nothing from longer ones, and whoever lacks it can test no guess.
    """
    if params.version == FIRST_VERSION:
        return _SUBSET_TAG if params.tolerance else _FULL_TAG
    return _TAG


def digest_bytes(params: Params) -> int:
    """Bytes of all tags of one row."""
    return params.digest_count * tag_bytes(params)


def layers(row_key: bytes) -> list[bytes]:
    """The 32-byte keys that a row key consists of. The first one keys the subsets.

    Raises `ParameterError` where its length is not a multiple of 32, or is 0.
    """
    if not row_key or len(row_key) % ROW_KEY_BYTES:
        raise ParameterError(
            f"a row key has {ROW_KEY_BYTES} bytes, or as many for each layer, not {len(row_key)}"
        )
    return [row_key[at : at + ROW_KEY_BYTES] for at in range(0, len(row_key), ROW_KEY_BYTES)]


def digests(codeword: I32, params: Params, row_key: bytes) -> bytes:
    """Return the tags of a codeword, (alpha,) int32, sorted.

    Sorting pseudo-random tags hides which subset gave which tag. row_key: 32 secret bytes that
    belong to this row alone, for each of its layers. Raises `ProtectionError` where two subsets
    have one tag (a probability of at most 2e-12 a row): stored so, the row would read as damaged.
    """
    subsets = codeword[_subset_index(params.alpha, params.match_size)]
    return _sorted(_tags(subsets, params, row_key))


def relayered(stored: bytes, params: Params, layer_key: bytes) -> bytes:
    """Return the tags of a row under one more layer: those of row key + layer_key, sorted.

    This needs neither the codeword nor the row key. layer_key: 32 secret bytes that belong to this
    row alone. Raises `EncodingError` where the stored tags are damaged, as `matches` does,
    `ProtectionError` as `digests` does, and `ParameterError` for a layer key of another length.
    """
    if len(layer_key) != ROW_KEY_BYTES:
        raise ParameterError(f"a layer key has {ROW_KEY_BYTES} bytes, not {len(layer_key)}")
    tags = _checked(stored, params)
    return _sorted(_keyed(tags, params, layer_key, _LAYER_PERSON))


def matches(stored: bytes, tried: I32, params: Params, row_key: bytes) -> bool:
    """Tell whether signed subsets, (k, alpha - tolerance) int32, have a tag among the stored ones.

    Every tag is computed and compared, whatever the outcome. Raises `EncodingError` where the
    stored tags are not sorted, all different and as many as params ask for.
    """
    return bool(hits(stored, tried, params, row_key).any())


def hits(stored: bytes, tried: I32, params: Params, row_key: bytes) -> NDArray[np.bool_]:
    """Tell which signed subsets, all different, have a tag among the stored ones: (k,) bool.

    A hit is a part of the codeword and must stay inside; verifications call `matches`.
    """
    known = _words(_checked(stored, params))
    probe = _words(_tags(tried, params, row_key))
    # The sort reveals nothing of use: tags are pseudo-random under a secret key.
    both = np.concatenate([known, probe])
    side = np.arange(len(both)) >= len(known)
    order = np.lexsort(both.T[::-1])
    both, side = both[order], side[order]
    same = (both[1:] == both[:-1]).all(axis=1)
    # A tag stored twice must never count as a match.
    same &= side[1:] != side[:-1]
    found = np.zeros(len(probe), dtype=np.bool_)
    # The sort is stable: of two equal tags the stored one comes first.
    found[order[1:][same] - len(known)] = True
    return found


def _checked(stored: bytes, params: Params) -> U8:
    """The stored tags, (k, tag) uint8, where they are sorted, all different, and as many as params
    ask for.
    """
    if len(stored) != digest_bytes(params):
        raise EncodingError(
            f"{params.describe()} needs {digest_bytes(params):,} digest bytes, "
            f"the row has {len(stored):,}"
        )
    tags = np.frombuffer(stored, dtype=np.uint8).reshape(-1, tag_bytes(params))
    words = _words(tags)
    less = np.zeros(len(tags) - 1, dtype=np.bool_)
    for word in words.T[::-1]:
        less = (word[:-1] < word[1:]) | ((word[:-1] == word[1:]) & less)
    if not less.all():
        raise EncodingError("a row's digests are damaged: they are not sorted, or repeat")
    return tags


def _words(tags: U8) -> NDArray[np.uint64]:
    """Tags as numbers in the order of their bytes: (k, tag / 8)."""
    words: NDArray[np.uint64] = tags.view(">u8").astype(np.uint64)
    return words


def _sorted(tags: U8) -> bytes:
    words = _words(tags)
    if words.shape[1] == 1:
        # Numbers alone are sorted twice as fast as their places.
        tags = np.sort(words, axis=0).astype(">u8").view(np.uint8)
    else:
        tags = tags[np.lexsort(words.T[::-1])]
    if (tags[1:] == tags[:-1]).all(axis=1).any():
        raise ProtectionError("two digests of a row are equal, by a rare chance: try again")
    return tags.tobytes()


def _tags(subsets: I32, params: Params, row_key: bytes) -> U8:
    """The tags of k subsets under all layers, (k, tag) uint8."""
    first, *further = layers(row_key)
    data = canonical_bytes(subsets, params.code_width)
    parts = np.frombuffer(data, dtype=np.uint8).reshape(len(subsets), -1)
    tags = _keyed(parts, params, first, _PERSON)
    for layer_key in further:
        tags = _keyed(tags, params, layer_key, _LAYER_PERSON)
    return tags


def _keyed(parts: U8, params: Params, key: bytes, person: bytes) -> U8:
    if params.version == FIRST_VERSION:
        return _hashed(parts, params, key, person)
    own = blake2b(key=key, salt=_domain(params), person=person, digest_size=ROW_KEY_BYTES).digest()
    return np.ascontiguousarray(cmac(own, parts)[:, :_TAG])


def _hashed(parts: U8, params: Params, key: bytes, person: bytes) -> U8:
    """The tags of version 1."""
    size, width = tag_bytes(params), parts.shape[1]
    keyed = blake2b(key, digest_size=size, salt=_domain(params), person=person)
    tags = []
    for (part,) in struct.iter_unpack(f"{width}s", parts.tobytes()):
        one = keyed.copy()
        one.update(part)
        tags.append(one.digest())
    return np.frombuffer(b"".join(tags), dtype=np.uint8).reshape(-1, size)


def _domain(params: Params) -> bytes:
    version, n, alpha, tolerance = params.version, params.n, params.alpha, params.tolerance
    if version == FIRST_VERSION:
        return struct.pack("<4I", version, n, alpha, tolerance)
    scalars = params.structure.components
    return struct.pack("<4B2I4x", version, scalars, alpha, tolerance, n, params.code_width)


@lru_cache(maxsize=16)
def _subset_index(alpha: int, size: int) -> NDArray[np.intp]:
    index = np.array(list(combinations(range(alpha), size)), dtype=np.intp)
    index.flags.writeable = False
    return index
