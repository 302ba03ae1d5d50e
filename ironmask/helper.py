"""Helper data: the orthogonal matrix P in as few bytes as decoding allows.

| name    | bytes at n = 512 | what is stored                                                  |
| ------- | ---------------- | --------------------------------------------------------------- |
| float32 | 1,048,576        | the matrix                                                      |
| float16 | 524,288          | the matrix                                                      |
| int8    | 263,168          | one float16 scale a row, then 8-bit levels                      |
| bits6   | 196,608          | 6-bit levels of a fixed step, packed                            |
| bits5   | 163,840          | 5-bit levels of a fixed step, packed                            |
| bits4   | 131,072          | 4-bit levels of a fixed step, packed                            |

Entries of a random orthogonal matrix are close to normal with variance 1/n. The fixed steps are
those of the uniform quantiser with the least mean squared error for a normal variable (the problem
of Max, IRE Trans. IT-6, 1960).
A helper's encoding is stored beside it as `name.version`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ironmask.arrays import F32, U8, Floats
from ironmask.errors import EncodingError, ParameterError

_STEPS: Final = MappingProxyType({4: 0.3352, 5: 0.1881, 6: 0.1041})
_MAX_LEVEL: Final = 127
# So many rows of P stay in the cache.
_BLOCK: Final = 64

Order = NDArray[np.intp]
Signs = NDArray[np.bool_]


@dataclass(frozen=True)
class Encoding:
    """One way to write P.

    to_bytes: (k, n, n) float32 to (k, nbytes(n)) uint8. It may overwrite its input.
    from_bytes: (k, nbytes(n)) uint8 and n to (k, n, n) float32. Raises `EncodingError` for values
        that are not finite.
    moved: (nbytes(n),) uint8, n, an order and signs (see `moved` below) to (nbytes(n),) uint8.
        Raises `EncodingError` for a helper that to_bytes cannot have written.
    blockwise: (nbytes(n),) uint8 and (n, m) float32 to their product P x, (n, m) float32. Only for
        encodings that need not hold all of P for it.
    """

    name: str
    version: int
    nbytes: Callable[[int], int]
    to_bytes: Callable[[F32], U8]
    from_bytes: Callable[[U8, int], F32]
    moved: Callable[[U8, int, Order, Signs], U8]
    blockwise: Callable[[U8, F32], F32] | None = None

    @property
    def tag(self) -> str:
        """The name and version that a row records."""
        return f"{self.name}.{self.version}"


def _as_rows(array: NDArray[np.generic]) -> U8:
    return np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)


def _check_finite(values: Floats, name: str) -> None:
    if not np.isfinite(values).all():
        raise EncodingError(f"a helper in encoding {name} holds values that are not finite")


def _float_encoding(name: str, dtype: str) -> Encoding:
    width = np.dtype(dtype).itemsize

    def from_bytes(data: U8, n: int) -> F32:
        p = data.view(dtype).reshape(-1, n, n).astype(np.float32)
        _check_finite(p, name)
        return p

    def moved(data: U8, n: int, order: Order, negative: Signs) -> U8:
        _check_finite(data.view(dtype), name)
        rows = data.view(f"<u{width}").reshape(n, n)[order]
        # Flip the sign bit alone: zeros keep their sign bits too.
        rows[negative] ^= rows.dtype.type(1 << (8 * width - 1))
        return _as_rows(rows).ravel()

    return Encoding(
        name=name,
        version=1,
        nbytes=lambda n: n * n * width,
        to_bytes=lambda p: _as_rows(p.astype(dtype)),
        from_bytes=from_bytes,
        moved=moved,
    )


def int8_scale(peak: F32) -> NDArray[np.float16]:
    """Scales of rows from their largest entries by size, both (k, n)."""
    # Round up: the largest level must not exceed 127 once the scale loses digits.
    scale: NDArray[np.float16] = (peak / _MAX_LEVEL).astype("<f2")
    return np.nextafter(scale, np.float16(np.inf))


def _peaks(p: F32) -> F32:
    """The largest entry by size of each row of (k, n, n): (k, n).

    The bits of floats of one sign are in the floats' order, and NumPy compares integers twice as
    fast: positive floats as signed integers, negative ones as unsigned integers.
    """
    above = p.view(np.int32).max(axis=2).view(np.float32)
    below = p.view(np.uint32).max(axis=2).view(np.float32)
    peaks: F32 = np.maximum(np.abs(above), np.abs(below))
    return peaks


def _int8_to_bytes(p: F32) -> U8:
    k, n, _ = p.shape
    out = np.empty((k, n * n + 2 * n), dtype=np.uint8)
    scale = int8_scale(_peaks(p))
    p *= 1 / scale.astype(np.float32)[:, :, None]
    np.rint(p, out=p)
    out[:, : 2 * n] = _as_rows(scale)
    out[:, 2 * n :].view(np.int8)[...] = p.reshape(k, -1)
    return out


def _int8_scale(data: U8, n: int) -> F32:
    """Scales of the rows, (k, n), of encoded helpers (k, nbytes)."""
    scale = np.ascontiguousarray(data[:, : 2 * n]).view("<f2").astype(np.float32)
    _check_finite(scale, "int8")
    return scale


def _int8_from_bytes(data: U8, n: int) -> F32:
    p = data[:, 2 * n :].view(np.int8).astype(np.float32).reshape(-1, n, n)
    p *= _int8_scale(data, n)[:, :, None]
    return p


def _int8_blockwise(data: U8, x: F32) -> F32:
    n = len(x)
    levels = data[2 * n :].view(np.int8).reshape(n, n)
    out = np.empty_like(x)
    for start in range(0, n, _BLOCK):
        rows = slice(start, start + _BLOCK)
        np.matmul(levels[rows].astype(np.float32), x, out=out[rows])
    out *= _int8_scale(data[None], n)[0, :, None]
    return out


def _int8_moved(data: U8, n: int, order: Order, negative: Signs) -> U8:
    _int8_scale(data[None], n)
    levels = data[2 * n :].view(np.int8).reshape(n, n)[order]
    if levels.min() < -_MAX_LEVEL:
        raise EncodingError(f"a helper in encoding int8 is damaged: a level below -{_MAX_LEVEL}")
    levels[negative] *= -1
    out = np.empty_like(data)
    out[: 2 * n] = _as_rows(data[: 2 * n].view("<u2")[order]).ravel()
    out[2 * n :] = _as_rows(levels).ravel()
    return out


def _packed_encoding(bits: int) -> Encoding:
    half = 1 << (bits - 1)

    def step(n: int) -> np.float32:
        return np.float32(_STEPS[bits] / np.sqrt(n))

    def to_bytes(p: F32) -> U8:
        levels = np.floor(p / step(p.shape[-1])).clip(-half, half - 1) + half
        spread = np.unpackbits(levels.astype(np.uint8).reshape(len(p), -1, 1), axis=2)
        return np.packbits(spread[:, :, -bits:].reshape(len(p), -1), axis=1)

    def from_bytes(data: U8, n: int) -> F32:
        spread = np.unpackbits(data, axis=1, count=n * n * bits).reshape(len(data), -1, bits)
        levels = np.packbits(spread, axis=2).reshape(len(data), n, n) >> (8 - bits)
        middles: F32 = (levels.astype(np.float32) - np.float32(half - 0.5)) * step(n)
        return middles

    def moved(data: U8, n: int, order: Order, negative: Signs) -> U8:
        spread = np.unpackbits(data)
        levels, padding = np.split(spread, [n * n * bits])
        if padding.any():
            raise EncodingError(f"a helper in encoding bits{bits} is damaged: bits after its end")
        rows = levels.reshape(n, n * bits)[order]
        # Levels are symmetric about zero, so the opposite level is the complement of all bits.
        rows[negative] ^= 1
        return np.packbits(rows)

    return Encoding(f"bits{bits}", 1, lambda n: -(-n * n * bits // 8), to_bytes, from_bytes, moved)


_INT8 = Encoding(
    "int8",
    1,
    lambda n: n * n + 2 * n,
    _int8_to_bytes,
    _int8_from_bytes,
    _int8_moved,
    _int8_blockwise,
)
ENCODINGS: Final = MappingProxyType(
    {
        e.name: e
        for e in (
            _float_encoding("float32", "<f4"),
            _float_encoding("float16", "<f2"),
            _INT8,
            _packed_encoding(6),
            _packed_encoding(5),
            _packed_encoding(4),
        )
    }
)
DEFAULT_ENCODING: Final = "int8"


def encoding(name_or_tag: str) -> Encoding:
    """Look up an encoding by its name (`int8`) or by what a row records (`int8.1`)."""
    name, dot, version = name_or_tag.partition(".")
    found = ENCODINGS.get(name)
    if found is None:
        known = ", ".join(ENCODINGS)
        raise ParameterError(f"unknown encoding {name_or_tag!r}; the encodings are {known}")
    if dot and version != str(found.version):
        raise EncodingError(
            f"helper encoding {name_or_tag} is not the version {found.version} that this release "
            "reads: use the release that wrote it"
        )
    return found


def encode(p: F32, name: str = DEFAULT_ENCODING, *, overwrite: bool = False) -> list[bytes]:
    """Encode helpers of shape (k, n, n) float32, one bytes object each.

    overwrite: allow p to be overwritten, which saves a copy.
    """
    return [row.tobytes() for row in encoding(name).to_bytes(p if overwrite else p.copy())]


def decode(helpers: list[bytes], name: str, n: int) -> F32:
    """Decode k helpers to (k, n, n) float32. Raises `EncodingError` where one is damaged."""
    found = encoding(name)
    data = np.stack([_data(helper, found, n) for helper in helpers])
    return found.from_bytes(data, n)


def project(helper: bytes, name: str, vectors: F32) -> F32:
    """P x for m vectors, (m, n) float32, as (m, n) float32.

    Raises `EncodingError` where the helper is damaged.
    """
    found, n = encoding(name), vectors.shape[1]
    data = _data(helper, found, n)
    if found.blockwise:
        return found.blockwise(data, np.ascontiguousarray(vectors.T)).T
    projected: F32 = vectors @ found.from_bytes(data[None], n)[0].T
    return projected


def moved(helper: bytes, name: str, n: int, order: Order, negative: Signs) -> bytes:
    """Return a helper whose row i is row order[i] of an encoded one, negated where negative[i].

    It is exact in every encoding: nothing is decoded, and moving the rows back gives the same
    bytes. order: (n,), each row once. negative: (n,). Raises `EncodingError` where the helper is
    damaged.
    """
    found = encoding(name)
    return found.moved(_data(helper, found, n), n, order, negative).tobytes()


def _data(helper: bytes, found: Encoding, n: int) -> U8:
    """The bytes of a helper, (nbytes,) uint8."""
    expected = found.nbytes(n)
    if len(helper) != expected:
        raise EncodingError(
            f"a {found.tag} helper of width {n} has {expected:,} bytes, not {len(helper):,}"
        )
    return np.frombuffer(helper, dtype=np.uint8)
