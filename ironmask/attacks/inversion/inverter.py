"""What an inverter is, and the use of any other one in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ironmask.arrays import U8
from ironmask.errors import ParameterError

State = dict[str, NDArray[Any]]
"""What an inverter has learnt, as plain arrays by name: fit for an `.npz` file, without pickle."""

SIDE: Final = 112
"""Pixels of a side of the crops that ArcFace-like recognisers take."""

_BATCH: Final = 256


class Pictures(Protocol):
    """Images that give some of them, (b, side, side, 3) uint8 RGB, for (b,) indices.

    An array does, and so does whatever decodes images when they are asked for.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


@dataclass(frozen=True)
class Subset:
    """Some of the pictures. indices: (m,)."""

    images: Pictures
    indices: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any, /) -> Any:
        return self.images[self.indices[index]]


class Inverter(Protocol):
    """Learns to turn embeddings back into images."""

    def fit(self, images: Pictures, embeddings: ArrayLike, people: ArrayLike | None = None) -> None:
        """Learn from k images and their embeddings, (k, n) of any scale.

        people: (k,), tells whose image each is; by default each is of another person.
        """

    def invert(self, templates: ArrayLike) -> U8:
        """Images of templates, (k, n) of any scale: (k, side, side, 3) uint8 RGB."""

    def state(self) -> State:
        """What was learnt; `from_state` of its class makes the same inverter of it."""


Published = Callable[[Any], Any]
"""Somebody else's inverter, already fitted: templates, (k, n) float64 unit rows, to images."""


def inverted(inverter: Inverter | Published, templates: ArrayLike) -> U8:
    """Images of templates, (k, n), by any inverter, some hundred at a time.

    A callable may give floats in 0..255, which are rounded. Raises `ParameterError` where it gives
    something else than one square RGB image for each template.
    """
    rows = np.atleast_2d(np.asarray(templates, dtype=np.float64))
    invert = inverter if callable(inverter) else inverter.invert
    parts = [_checked(invert(part), len(part)) for part in _parts(rows)]
    return np.concatenate(parts)


def to_pixels(values: NDArray[np.floating[Any]]) -> U8:
    """Clip to 0..255 and round to 8 bits, as a stored image is."""
    rounded: U8 = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    return rounded


def matching(images: Pictures, rows: NDArray[Any], people: ArrayLike | None) -> NDArray[np.intp]:
    """Number the people from 0: (k,). Raises `ParameterError` where lengths differ."""
    labels = np.arange(len(rows)) if people is None else np.asarray(people)
    if not len(images) == len(rows) == len(labels):
        raise ParameterError(
            f"{len(images)} images, {len(rows)} embeddings and {len(labels)} labels of people"
        )
    numbers: NDArray[np.intp] = np.unique(labels, return_inverse=True)[1]
    return numbers


def square_side(images: U8) -> int:
    """The side of images in pixels. Raises `ParameterError` for another shape or type."""
    shape = images.shape
    if images.dtype != np.uint8 or len(shape) != 4 or shape[1:] != (shape[1], shape[1], 3):
        raise ParameterError(
            f"images are {images.dtype} {images.shape}, not uint8 (k, side, side, 3)"
        )
    return int(images.shape[1])


def _parts(rows: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    return [rows[start : start + _BATCH] for start in range(0, max(len(rows), 1), _BATCH)]


def _checked(made: Any, count: int) -> U8:
    images = np.asarray(made)
    if np.issubdtype(images.dtype, np.floating):
        images = to_pixels(images)
    square_side(images)
    if len(images) != count:
        raise ParameterError(f"the inverter gave {len(images)} images for {count} templates")
    return images
