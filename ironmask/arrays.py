"""Array types and the checks at the door."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ironmask.errors import TemplateError

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
U8 = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]


def as_batch(vectors: ArrayLike, n: int) -> F64:
    """Return vectors of shape (n,) or (k, n) as a (k, n) float64 array, checked.

    Raises `TemplateError` with reason `wrong_width` or `not_finite`.
    """
    batch = np.atleast_2d(np.asarray(vectors, dtype=np.float64))
    if batch.ndim != 2 or batch.shape[1] != n:
        raise TemplateError("wrong_width", f"expected vectors of width {n}, got {batch.shape}")
    if not np.isfinite(batch).all():
        raise TemplateError("not_finite", "a vector holds values that are not finite")
    return batch


def single(vector: ArrayLike) -> NDArray[np.generic]:
    """Return one vector, (n,), as a batch of one, (1, n).

    Raises `TemplateError` with reason `wrong_width` for any other number of dimensions.
    """
    array = np.asarray(vector)
    if array.ndim != 1:
        raise TemplateError("wrong_width", f"expected one vector, got an array of {array.shape}")
    return array[None]


def unit_rows(vectors: ArrayLike, n: int) -> F64:
    """Return `as_batch(vectors, n)` with every row scaled to length one.

    Raises `TemplateError` with reason `zero_norm` where a row has no direction.
    """
    batch = as_batch(vectors, n)
    # Scaling by the largest entry first keeps the squares from over- or underflowing.
    peak = np.abs(batch).max(axis=1, keepdims=True)
    if (peak == 0).any():
        raise TemplateError("zero_norm", "a vector is zero and has no direction")
    scaled = batch / peak
    unit: F64 = scaled / np.sqrt((scaled * scaled).sum(axis=1, keepdims=True))
    return unit
