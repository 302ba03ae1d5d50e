"""Principal components of face images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from ironmask.arrays import F32
from ironmask.attacks.inversion.inverter import Pictures, square_side
from ironmask.errors import ParameterError

_IMAGES: Final = 2000
_BATCH: Final = 256


@dataclass(frozen=True)
class PixelBasis:
    """mean: (3 side^2,) float32, in 0..255. components: (d, 3 side^2) float32, orthonormal rows.

    deviations: (d,) float32, the standard deviation of images along each component, the largest
    first.
    """

    mean: F32
    components: F32
    deviations: F32

    @classmethod
    def of(cls, images: Pictures, count: int = 400, *, most: int = _IMAGES) -> Self:
        """From at most `most` images, evenly spaced among k >= 2; at most k - 1 components.

        It holds that many images in float32 and decomposes their inner products.
        """
        if len(images) < 2 or count < 1:
            raise ParameterError(f"{count} components of {len(images)} images: no basis")
        used = np.unique(np.linspace(0, len(images) - 1, min(most, len(images))).astype(np.intp))
        first = images[used[:1]]
        flat = np.empty((len(used), 3 * square_side(first) ** 2), dtype=np.float32)
        for start in range(0, len(used), _BATCH):
            part = slice(start, start + _BATCH)
            flat[part] = images[used[part]].reshape(-1, flat.shape[1])
        mean = flat.mean(axis=0)
        flat -= mean
        values, vectors = np.linalg.eigh((flat @ flat.T).astype(np.float64))
        kept = np.argsort(values)[::-1][: min(count, len(used) - 1)]
        sizes = np.sqrt(np.maximum(values[kept], np.finfo(np.float32).tiny))
        components = (vectors[:, kept] / sizes).T.astype(np.float32) @ flat
        return cls(mean, components, (sizes / np.sqrt(len(used))).astype(np.float32))
