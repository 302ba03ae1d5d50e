"""Ridge regression from embeddings to pixels: the simplest inverter, in NumPy alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike

from ironmask.arrays import F32, F64, U8, unit_rows
from ironmask.attacks.inversion.inverter import (
    Pictures,
    State,
    matching,
    square_side,
    to_pixels,
)
from ironmask.errors import ParameterError

# Images, and columns of pixels, in floating point at once.
_IMAGES: Final = 256
_COLUMNS: Final = 4096
# Ridges that are tried, relative to the mean eigenvalue of the embeddings' covariance.
_RIDGES: Final = np.logspace(-6, 2, 65)
_LEAST_LEFT: Final = 0.1


@dataclass
class _Sums:
    """What images and embeddings add up to; its size does not depend on their number."""

    side: int
    n: int
    count: int = 0
    energy: float = 0.0
    x: F64 = field(init=False)
    y: F64 = field(init=False)
    xx: F64 = field(init=False)
    xy: F64 = field(init=False)

    def __post_init__(self) -> None:
        pixels = 3 * self.side**2
        self.x, self.y = np.zeros(self.n), np.zeros(pixels)
        self.xx, self.xy = np.zeros((self.n, self.n)), np.zeros((self.n, pixels))

    def add(self, images: U8, rows: F64) -> None:
        flat = images.reshape(len(images), -1).astype(np.float32) - np.float32(127.5)
        self.count += len(rows)
        self.x += rows.sum(axis=0)
        self.y += flat.sum(axis=0, dtype=np.float64)
        self.energy += float(np.square(flat).sum(dtype=np.float64))
        self.xx += rows.T @ rows
        small = np.ascontiguousarray(rows.T, dtype=np.float32)
        for part in _columns(flat.shape[1]):
            self.xy[:, part] += small @ flat[:, part]


class LinearInverter:
    """Mean image + map of the centred unit embedding, clipped and rounded to 8 bits.

    ridge: penalty on the map's squares, relative to the mean eigenvalue of the embeddings'
    covariance; by default the one with the least generalised cross-validation error (Golub, Heath
    and Wahba, Technometrics 21, 1979).

    Its memory is bounded by n times the pixels of one image, whatever the number of images.
    """

    def __init__(self, ridge: float | None = None) -> None:
        """Raises `ParameterError` for a negative ridge."""
        if ridge is not None and not ridge >= 0:
            raise ParameterError(f"ridge {ridge}: it must be 0 or more")
        self._asked = ridge
        self._sums: _Sums | None = None
        self._map: _Map | None = None

    def fit(self, images: Pictures, embeddings: ArrayLike, people: ArrayLike | None = None) -> None:
        """See `Inverter`. It takes no notice of people."""
        rows = np.asarray(embeddings)
        matching(images, rows, people)
        numbers = np.arange(len(rows))
        chunks = (numbers[at : at + _IMAGES] for at in range(0, len(rows), _IMAGES))
        self.fit_batches((images[chunk], rows[chunk]) for chunk in chunks)

    def fit_batches(self, batches: Iterable[tuple[U8, ArrayLike]]) -> None:
        """Learn from batches of images and embeddings, each taken once, forgetting older ones."""
        self._sums = self._map = None
        for images, embeddings in batches:
            self.partial_fit(images, embeddings)

    def partial_fit(self, images: U8, embeddings: ArrayLike) -> None:
        """Learn from some more images, (b, side, side, 3) uint8, and embeddings, (b, n).

        Raises `ParameterError` for images of another size, `TemplateError` for unusable embeddings.
        """
        side, n = square_side(images), np.shape(embeddings)[-1]
        rows = unit_rows(embeddings, n)
        if len(rows) != len(images):
            raise ParameterError(f"{len(images)} images and {len(rows)} embeddings")
        if self._sums is None:
            self._sums = _Sums(side, n)
        if (self._sums.side, self._sums.n) != (side, n):
            raise ParameterError(
                f"images of {side} pixels and embeddings of width {n} after those of "
                f"{self._sums.side} and {self._sums.n}"
            )
        for start in range(0, len(rows), _IMAGES):
            part = slice(start, start + _IMAGES)
            self._sums.add(images[part], rows[part])
        self._map = None

    @property
    def ridge(self) -> float:
        """The ridge in use, relative as the argument."""
        return self._learnt().ridge

    @property
    def side(self) -> int:
        """Pixels of a side of the images."""
        return self._learnt().side

    def invert(self, templates: ArrayLike) -> U8:
        """See `Inverter`. Raises `ParameterError` before `fit`."""
        learnt = self._learnt()
        rows = unit_rows(templates, learnt.n)
        out = np.empty((len(rows), 3 * learnt.side**2), dtype=np.uint8)
        for start in range(0, len(rows), _IMAGES):
            part = slice(start, start + _IMAGES)
            out[part] = to_pixels(learnt.pixels(rows[part]))
        return out.reshape(-1, learnt.side, learnt.side, 3)

    def affine(self) -> tuple[F32, F32]:
        """The inverter before clipping, in -1..1: weights (n, 3 side^2) and offset (3 side^2,)."""
        learnt = self._learnt()
        weights = learnt.weights / np.float32(127.5)
        offset = learnt.image / 127.5 - learnt.embedding @ weights.astype(np.float64)
        return weights, offset.astype(np.float32)

    def state(self) -> State:
        """See `Inverter`. What it was learnt from is not in it, so `partial_fit` begins anew."""
        learnt = self._learnt()
        return {
            "embedding": learnt.embedding,
            "image": learnt.image,
            "weights": learnt.weights,
            "ridge": np.array(learnt.ridge),
        }

    @classmethod
    def from_state(cls, state: State) -> Self:
        """The inverter of a state."""
        made = cls()
        made._map = _Map(
            state["embedding"], state["image"], state["weights"], float(state["ridge"])
        )
        return made

    def _learnt(self) -> _Map:
        if self._map is None:
            if self._sums is None or self._sums.count < 2:
                raise ParameterError("an inverter of fewer than two images: call fit first")
            self._map = _solved(self._sums, self._asked)
        return self._map


@dataclass(frozen=True)
class _Map:
    """embedding: (n,), the mean. image: (p,), the mean in -127.5..127.5. weights: (n, p)."""

    embedding: F64
    image: F64
    weights: F32
    ridge: float

    @property
    def n(self) -> int:
        return len(self.embedding)

    @property
    def side(self) -> int:
        return math.isqrt(len(self.image) // 3)

    def pixels(self, rows: F64) -> F32:
        centred = (rows - self.embedding).astype(np.float32)
        made: F32 = centred @ self.weights
        made += (self.image + 127.5).astype(np.float32)
        return made


def _solved(sums: _Sums, ridge: float | None) -> _Map:
    x, y = sums.x / sums.count, sums.y / sums.count
    values, vectors = np.linalg.eigh(sums.xx - sums.count * np.outer(x, x))
    values = np.maximum(values, 0)
    unit = float(values.mean()) or 1.0
    blocks = [
        (part, vectors.T @ (sums.xy[:, part] - sums.count * np.outer(x, y[part])))
        for part in _columns(len(y))
    ]
    if ridge is None:
        squares = sum(np.square(block).sum(axis=1) for _, block in blocks)
        total = sums.energy - sums.count * float(y @ y)
        ridge = _by_cross_validation(values / unit, squares / unit, total, sums.count)
    weights = np.empty((sums.n, len(y)), dtype=np.float32)
    # Without a ridge, directions without energy are left out.
    penalised = values + max(ridge * unit, 1e-12 * unit)
    for part, block in blocks:
        weights[:, part] = vectors @ (block / penalised[:, None])
    return _Map(x, y, weights, ridge)


def _by_cross_validation(values: F64, squares: F64, total: float, count: int) -> float:
    """The ridge r with the least RSS / (1 - df / k)^2, df = 1 + sum v / (v + r).

    values: (n,) eigenvalues v of X'X, of mean 1; squares: (n,) of the rows of V'X'Y; total: the
    squares of Y. Then RSS = total - sum squares (2 / (v + r) - v / (v + r)^2).
    """
    penalised = values + _RIDGES[:, None]
    rest = total - (squares * (2 / penalised - values / penalised**2)).sum(axis=1)
    freedom = 1 + (values / penalised).sum(axis=1)
    left = 1 - freedom / count
    # Where hardly any freedom is left, both are rounding errors.
    error = np.where(
        left > _LEAST_LEFT, np.maximum(rest, 0) / np.maximum(left, _LEAST_LEFT) ** 2, np.inf
    )
    return float(_RIDGES[np.argmin(error)])


def _columns(count: int) -> Iterator[slice]:
    return (slice(start, start + _COLUMNS) for start in range(0, count, _COLUMNS))
