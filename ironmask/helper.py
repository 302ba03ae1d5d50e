"""Helper data: the isometry P in as few bytes as decoding allows.

Stored are the rows of `ironmask.algebra`: (r, n) numbers, with r = N for a real helper and N / 4
for a quaternionic one.

| name    | bytes                 | what is stored                                             |
| ------- | --------------------- | ---------------------------------------------------------- |
| float32 | 4 r n                 | the rows                                                   |
| float16 | 2 r n                 | the rows                                                   |
| int8    | r n + 2 r             | one float16 scale a row, then 8-bit levels                 |
| bits6   | .75 r n               | 6-bit levels of a fixed step, packed                       |
| bits5   | .625 r n              | 5-bit levels of a fixed step, packed                       |
| bits4   | .5 r n                | 4-bit levels of a fixed step, packed                       |

Entries of a random isometry are close to normal with variance 1 / N. The fixed steps are those of
the uniform quantiser with the least mean squared error for a normal variable (the problem of Max,
IRE Trans. IT-6, 1960). A helper's encoding is stored beside it as `name.version`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ironmask import algebra
from ironmask.arrays import F32, U8, Floats
from ironmask.errors import EncodingError, ParameterError
from ironmask.params import Params

_STEPS: Final = MappingProxyType({4: 0.3352, 5: 0.1881, 6: 0.1041})
_MAX_LEVEL: Final = 127
# So many rows of P stay in the cache.
_BLOCK: Final = 64

Order = NDArray[np.intp]
Signs = NDArray[np.bool_]


class Shape(NamedTuple):
    """Rows and columns of the stored numbers, and N, the width of the code."""

    rows: int
    columns: int
    code_width: int

    @property
    def numbers(self) -> int:
        return self.rows * self.columns


def shape(params: Params) -> Shape:
    """The shape of the helpers of some parameters."""
    return Shape(*params.helper_shape, params.code_width)


@dataclass(frozen=True)
class Encoding:
    """One way to write the rows of P, (r, n).

    nbytes: bytes of a helper of a shape.
    to_bytes: (k, r, n) float32 and their shape to (k, nbytes) uint8. It may overwrite its input.
    from_bytes: (k, nbytes) uint8 and a shape to (k, r, n) float32. Raises `EncodingError` for
        values that are not finite.
    moved: (nbytes,) uint8, a shape, an order and signs (see `moved` below) to (nbytes,) uint8.
        Raises `EncodingError` for a helper that to_bytes cannot have written.
    blockwise: (nbytes,) uint8, a shape and (n, m) float32 to the rows' product with these,
        (r, m) float32. Only for encodings that need not hold all rows for it.
    """

    name: str
    version: int
    nbytes: Callable[[Shape], int]
    to_bytes: Callable[[F32, Shape], U8]
    from_bytes: Callable[[U8, Shape], F32]
    moved: Callable[[U8, Shape, Order, Signs], U8]
    blockwise: Callable[[U8, Shape, F32], F32] | None = None

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

    def from_bytes(data: U8, of: Shape) -> F32:
        p = data.view(dtype).reshape(-1, of.rows, of.columns).astype(np.float32)
        _check_finite(p, name)
        return p

    def moved(data: U8, of: Shape, order: Order, negative: Signs) -> U8:
        _check_finite(data.view(dtype), name)
        rows = data.view(f"<u{width}").reshape(of.rows, of.columns)[order]
        # Flip the sign bit alone: zeros keep their sign bits too.
        rows[negative] ^= rows.dtype.type(1 << (8 * width - 1))
        return _as_rows(rows).ravel()

    return Encoding(
        name=name,
        version=1,
        nbytes=lambda of: of.numbers * width,
        to_bytes=lambda p, _of: _as_rows(p.astype(dtype)),
        from_bytes=from_bytes,
        moved=moved,
    )


def int8_scale(peak: F32) -> NDArray[np.float16]:
    """Scales of rows from their largest entries by size, both (k, r)."""
    # Round up: the largest level must not exceed 127 once the scale loses digits.
    scale: NDArray[np.float16] = (peak / _MAX_LEVEL).astype("<f2")
    return np.nextafter(scale, np.float16(np.inf))


def _peaks(p: F32) -> F32:
    """The largest entry by size of each row of (k, r, n): (k, r).

    The bits of floats of one sign are in the floats' order, and NumPy compares integers twice as
    fast: positive floats as signed integers, negative ones as unsigned integers.
    """
    above = p.view(np.int32).max(axis=2).view(np.float32)
    below = p.view(np.uint32).max(axis=2).view(np.float32)
    peaks: F32 = np.maximum(np.abs(above), np.abs(below))
    return peaks


def _int8_to_bytes(p: F32, of: Shape) -> U8:
    scales = 2 * of.rows
    out = np.empty((len(p), of.numbers + scales), dtype=np.uint8)
    scale = int8_scale(_peaks(p))
    p *= 1 / scale.astype(np.float32)[:, :, None]
    np.rint(p, out=p)
    out[:, :scales] = _as_rows(scale)
    out[:, scales:].view(np.int8)[...] = p.reshape(len(p), -1)
    return out


def _int8_scale(data: U8, of: Shape) -> F32:
    """Scales of the rows, (k, r), of encoded helpers (k, nbytes)."""
    scale = np.ascontiguousarray(data[:, : 2 * of.rows]).view("<f2").astype(np.float32)
    _check_finite(scale, "int8")
    return scale


def _int8_from_bytes(data: U8, of: Shape) -> F32:
    levels = data[:, 2 * of.rows :].view(np.int8).astype(np.float32)
    p = levels.reshape(-1, of.rows, of.columns)
    p *= _int8_scale(data, of)[:, :, None]
    return p


def _int8_blockwise(data: U8, of: Shape, x: F32) -> F32:
    levels = data[2 * of.rows :].view(np.int8).reshape(of.rows, of.columns)
    out = np.empty((of.rows, x.shape[1]), dtype=np.float32)
    for start in range(0, of.rows, _BLOCK):
        rows = slice(start, start + _BLOCK)
        np.matmul(levels[rows].astype(np.float32), x, out=out[rows])
    out *= _int8_scale(data[None], of)[0, :, None]
    return out


def _int8_moved(data: U8, of: Shape, order: Order, negative: Signs) -> U8:
    _int8_scale(data[None], of)
    scales = 2 * of.rows
    levels = data[scales:].view(np.int8).reshape(of.rows, of.columns)[order]
    if levels.min() < -_MAX_LEVEL:
        raise EncodingError(f"a helper in encoding int8 is damaged: a level below -{_MAX_LEVEL}")
    levels[negative] *= -1
    out = np.empty_like(data)
    out[:scales] = _as_rows(data[:scales].view("<u2")[order]).ravel()
    out[scales:] = _as_rows(levels).ravel()
    return out


def _packed_encoding(bits: int) -> Encoding:
    half = 1 << (bits - 1)

    def step(of: Shape) -> np.float32:
        return np.float32(_STEPS[bits] / np.sqrt(of.code_width))

    def to_bytes(p: F32, of: Shape) -> U8:
        levels = np.floor(p / step(of)).clip(-half, half - 1) + half
        spread = np.unpackbits(levels.astype(np.uint8).reshape(len(p), -1, 1), axis=2)
        return np.packbits(spread[:, :, -bits:].reshape(len(p), -1), axis=1)

    def from_bytes(data: U8, of: Shape) -> F32:
        spread = np.unpackbits(data, axis=1, count=of.numbers * bits).reshape(len(data), -1, bits)
        levels = np.packbits(spread, axis=2).reshape(len(data), of.rows, of.columns) >> (8 - bits)
        middles: F32 = (levels.astype(np.float32) - np.float32(half - 0.5)) * step(of)
        return middles

    def moved(data: U8, of: Shape, order: Order, negative: Signs) -> U8:
        spread = np.unpackbits(data)
        levels, padding = np.split(spread, [of.numbers * bits])
        if padding.any():
            raise EncodingError(f"a helper in encoding bits{bits} is damaged: bits after its end")
        rows = levels.reshape(of.rows, of.columns * bits)[order]
        # Levels are symmetric about zero, so the opposite level is the complement of all bits.
        rows[negative] ^= 1
        return np.packbits(rows)

    return Encoding(
        f"bits{bits}", 1, lambda of: -(-of.numbers * bits // 8), to_bytes, from_bytes, moved
    )


_INT8 = Encoding(
    "int8",
    1,
    lambda of: of.numbers + 2 * of.rows,
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


def nbytes(params: Params, name: str) -> int:
    """Bytes of one helper of some parameters in an encoding."""
    return encoding(name).nbytes(shape(params))


def encode(
    rows: F32, params: Params, name: str = DEFAULT_ENCODING, *, overwrite: bool = False
) -> list[bytes]:
    """Encode the rows of k helpers, (k, r, n) float32, one bytes object each.

    overwrite: allow rows to be overwritten, which saves a copy.
    """
    data = encoding(name).to_bytes(rows if overwrite else rows.copy(), shape(params))
    return [row.tobytes() for row in data]


def decode(helpers: list[bytes], params: Params, name: str) -> F32:
    """The matrices P of k helpers, (k, N, n) float32. Raises `EncodingError` for a damaged one."""
    found = encoding(name)
    data = np.stack([_data(helper, params, found) for helper in helpers])
    rows = found.from_bytes(data, shape(params))
    matrices: F32 = algebra.expanded(rows, params.structure)
    return matrices


def project(helper: bytes, params: Params, name: str, vectors: F32) -> F32:
    """P x for m vectors, (m, n) float32, as (m, N) float32.

    Raises `EncodingError` where the helper is damaged.
    """
    found, of = encoding(name), shape(params)
    data = _data(helper, params, found)
    x = algebra.by_vectors(vectors, params.structure)
    if found.blockwise:
        product = found.blockwise(data, of, x)
    else:
        product = found.from_bytes(data[None], of)[0] @ x
    return algebra.as_vectors(product, params.structure)


def moved(helper: bytes, params: Params, name: str, order: Order, negative: Signs) -> bytes:
    """Return a helper whose stored row i is row order[i] of an encoded one, negated where
    negative[i].

    It is exact in every encoding: nothing is decoded, and moving the rows back gives the same
    bytes. order: (r,), each row once. negative: (r,). Raises `EncodingError` where the helper is
    damaged.
    """
    found = encoding(name)
    data = _data(helper, params, found)
    return found.moved(data, shape(params), order, negative).tobytes()


def _data(helper: bytes, params: Params, found: Encoding) -> U8:
    """The bytes of a helper, (nbytes,) uint8."""
    expected = found.nbytes(shape(params))
    if len(helper) != expected:
        raise EncodingError(
            f"a {found.tag} helper of {params.describe()} has {expected:,} bytes, not "
            f"{len(helper):,}"
        )
    return np.frombuffer(helper, dtype=np.uint8)
