"""The secure source of randomness.

A hidden rotation must never be derivable from anything stored: with the rotation, a
one-dimensional search finds the codeword. So every generator made here takes fresh 256-bit keys
from the operating system, and keeps nothing that could rebuild them. Only tests pass a seeded one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from hashlib import sha256
from itertools import count
from typing import Final, NoReturn

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray
from randomgen import ChaCha

from ironmask.arrays import F32
from ironmask.errors import ParameterError

KEY_BITS = 256
# Small enough that temporary arrays stay in the cache and in the heap.
_CHUNK: Final = 1 << 14
_ZEROS: Final = bytes(4 * _CHUNK)
# Far below the 256 GiB after which ChaCha20's 32-bit block counter ends.
_STREAM_BYTES: Final = 1 << 36


class _Stream(np.random.Generator):
    """NumPy's generator on a ChaCha stream of 20 rounds, with a faster stream for raw words.

    `words` takes raw words from OpenSSL's ChaCha20 (RFC 8439), ten times as fast. Copies are
    refused: a copy would repeat both streams. next_key: gives another 32-byte key.
    """

    def __init__(self, next_key: Callable[[], bytes]) -> None:
        super().__init__(ChaCha(key=int.from_bytes(next_key(), "little"), rounds=20))
        self._next_key = next_key
        self._left = 0

    def words(self, number: int) -> NDArray[np.uint32]:
        """Uniform words, (number,) uint32."""
        out = np.empty(number, dtype=np.uint32)
        if self._left < out.nbytes:
            cipher = algorithms.ChaCha20(self._next_key(), bytes(16))
            self._stream = Cipher(cipher, mode=None).encryptor()
            self._left = _STREAM_BYTES
        self._left -= out.nbytes
        for start in range(0, len(out), _CHUNK):
            part = out[start : start + _CHUNK].data.cast("B")
            self._stream.update_into(memoryview(_ZEROS)[: len(part)], part)
        return out

    def __reduce__(self) -> NoReturn:
        raise TypeError("a generator of secrets is not copied: make another one")


class SecureGenerator(_Stream):
    """A stream under fresh keys of the operating system. Make it in the process that uses it."""

    def __init__(self) -> None:
        super().__init__(lambda: secrets.token_bytes(KEY_BITS // 8))


class ReplayedGenerator(_Stream):
    """The streams of one 32-byte key, for evaluations that must give the same numbers again.

    Never use it for a stored template: whoever has the key has its rotation.
    """

    def __init__(self, key: bytes) -> None:
        if 8 * len(key) != KEY_BITS:
            raise ParameterError(f"a generator's key has {KEY_BITS // 8} bytes, not {len(key)}")
        numbers = count(1)
        super().__init__(lambda: sha256(key + next(numbers).to_bytes(8, "little")).digest())


def secure_generator() -> SecureGenerator:
    """Return a generator under fresh keys; see `SecureGenerator`."""
    return SecureGenerator()


def fill_normals(rng: np.random.Generator, out: F32) -> None:
    """Fill an array, (k,) float32, with independent standard normal variables.

    Uses sqrt(-2 ln u) times the cosine and the sine of 2 pi v, with 32 random bits each for u and v
    (Box and Muller, Annals of Mathematical Statistics 29, 1958). It is exact but for rounding, and
    faster than a rejection method in NumPy's vector instructions.
    """
    for start in range(0, len(out), _CHUNK):
        part = out[start : start + _CHUNK]
        half = -(-len(part) // 2)
        words = raw_words(rng, 2 * half).view(np.int32)
        # |u| 2^-31 for a signed word u is uniform in (0, 1] and fine near zero.
        radius = words[:half].astype(np.float32)
        np.abs(radius, out=radius)
        radius += np.float32(0.5)
        radius *= np.float32(2.0**-31)
        np.log(radius, out=radius)
        radius *= np.float32(-2)
        np.sqrt(radius, out=radius)
        angle = words[half:].astype(np.float32)
        angle *= np.float32(np.pi / 2**31)
        first, second = part[:half], part[half:]
        np.cos(angle, out=first)
        np.sin(angle[: len(second)], out=second)
        first *= radius
        second *= radius[: len(second)]


def raw_words(rng: np.random.Generator, count: int) -> NDArray[np.uint32]:
    """Uniform words, (count,) uint32; faster where the generator is one of this module."""
    if isinstance(rng, _Stream):
        return rng.words(count)
    return rng.integers(0, 1 << 32, count, dtype=np.uint32)
