"""A detector for whoever holds the models: pictures in batches in, boxes and facial points out.

Whoever decodes a picture fits it into the detector's square, so that what travels to the model does
not depend on the size of the picture. Boxes come back in pixels of the picture itself. The numbers
are those of insightface's own detector.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from infra.models.onnx_session import open_session, outputs_or_none
from infra.models.packs import ModelPack
from ironmask.arrays import F64
from ironmask.errors import ModelError, ParameterError
from pipelines.ports import F32, U8
from pipelines.spec.faces import FaceSettings

Faces = tuple[F32, F32]
"""Boxes and scores, (k, 5): x1, y1, x2, y2, score; and points, (k, 5, 2). The best come first."""

_STRIDES: Final = {9: (8, 16, 32), 15: (8, 16, 32, 64, 128)}
_ANCHORS: Final = {9: 2, 15: 1}
_MEAN, _SCALE = 127.5, 128.0
_OVERLAP: Final = 0.4
_POINTS: Final = 5


@dataclass(frozen=True)
class Fitted:
    """A picture in the detector's square. pixels: (size, size, 3) uint8 BGR, black where the
    picture ends. scale: pixels of the square for one of the picture.
    """

    pixels: U8
    scale: float


def fitted(image: U8, size: int) -> Fitted:
    """Scale a (H, W, 3) picture to fill one direction of a square."""
    import cv2

    height, width = image.shape[:2]
    ratio = height / width
    high, wide = (size, int(size / ratio)) if ratio > 1.0 else (int(size * ratio), size)
    square = np.zeros((size, size, 3), dtype=np.uint8)
    square[:high, :wide] = cv2.resize(image, (wide, high))
    return Fitted(square, high / height)


class BatchDetector:
    """An SCRFD detector. Threads may share it; it cannot be pickled."""

    def __init__(self, pack: ModelPack, settings: FaceSettings) -> None:
        """Load the detector. Raises `ModelError` or `ProviderError`."""
        self._session = open_session(pack.detector, pack.detector_sha256, settings.provider)
        self._threshold = settings.det_threshold
        self._input = self._session.get_inputs()[0].name
        self._names = [output.name for output in self._session.get_outputs()]
        if len(self._names) not in _STRIDES:
            raise ModelError(f"{pack.detector}: it finds no facial points, so cannot align")
        self._strides = _STRIDES[len(self._names)]
        self._anchors = _ANCHORS[len(self._names)]
        self.takes_batches = self._takes_batches(settings.det_sizes[0])

    def detect(self, pixels: U8, scales: F64) -> list[Faces]:
        """The faces of each of k pictures: (k, size, size, 3) uint8 BGR and (k,), as `fitted`.

        Raises `ParameterError` for another shape or type.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise ParameterError(
                f"pictures are {pixels.dtype} {pixels.shape}, not uint8 (k, s, s, 3)"
            )
        if scales.shape != (len(pixels),):
            raise ParameterError(f"{scales.shape} scales of {len(pixels)} pictures")
        step = max(1, len(pixels)) if self.takes_batches else 1
        found: list[Faces] = []
        for start in range(0, len(pixels), step):
            outputs = self._run(pixels[start : start + step])
            for place in range(len(pixels[start : start + step])):
                own = [output[place] for output in outputs]
                found.append(self._faces(own, pixels.shape[1:3], float(scales[start + place])))
        return found

    def _run(self, pixels: U8) -> list[F32]:
        """The model's outputs, each (k, anchors, values)."""
        import cv2

        size = pixels.shape[2], pixels.shape[1]
        mean = (_MEAN, _MEAN, _MEAN)
        blob = cv2.dnn.blobFromImages(list(pixels), 1.0 / _SCALE, size, mean, swapRB=True)
        outputs = self._session.run(self._names, {self._input: blob})
        return [output if output.ndim == 3 else output[None] for output in outputs]

    def _takes_batches(self, size: int) -> bool:
        """Whether two pictures at once give the same as one by one."""
        flat = np.arange(2 * size * size * 3, dtype=np.uint64) * 2654435761
        two = ((flat >> 12) & 0xFF).astype(np.uint8).reshape(2, size, size, 3)
        blank = np.zeros((2, 3, size, size), np.float32)
        if outputs_or_none(self._session, {self._input: blank}) is None:
            return False
        alone = [self._run(two[:1]), self._run(two[1:])]
        for both, first, second in zip(self._run(two), *alone, strict=True):
            one_by_one = np.concatenate([first, second])
            if both.shape != one_by_one.shape or not np.allclose(both, one_by_one, 0.05, 0.05):
                return False
        return True

    def _faces(self, outputs: list[F32], size: tuple[int, ...], scale: float) -> Faces:
        """What one picture's outputs say."""
        levels = len(self._strides)
        boxes, scores, points = [], [], []
        for level, stride in enumerate(self._strides):
            score = outputs[level]
            at = np.flatnonzero(score[:, 0] >= self._threshold)
            centres = _centres(size[0] // stride, size[1] // stride, stride, self._anchors)[at]
            edges = outputs[level + levels][at] * stride
            offsets = outputs[level + 2 * levels][at] * stride
            boxes.append(np.hstack([centres - edges[:, :2], centres + edges[:, 2:]]))
            points.append(centres[:, None] + offsets.reshape(len(at), _POINTS, 2))
            scores.append(score[at])
        found = np.hstack([np.vstack(boxes) / scale, np.vstack(scores)]).astype(np.float32)
        order = np.argsort(-found[:, 4], kind="stable")
        kept = order[_distinct(found[order])]
        return found[kept], (np.vstack(points) / scale).astype(np.float32)[kept]


@lru_cache(maxsize=64)
def _centres(high: int, wide: int, stride: int, anchors: int) -> F32:
    """Where the anchors of one level stand, (high * wide * anchors, 2), in pixels."""
    across, down = np.meshgrid(np.arange(wide), np.arange(high))
    grid = (np.stack([across, down], axis=-1) * stride).reshape(-1, 2)
    return np.repeat(grid, anchors, axis=0).astype(np.float32)


def _distinct(found: F32) -> list[int]:
    """Places of boxes that no better one overlaps by much. found: (k, 5), the best first."""
    x1, y1, x2, y2 = found[:, :4].T
    areas = (x2 - x1 + 1) * (y2 - y1 + 1)
    left, kept = np.arange(len(found)), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        wide = np.maximum(0.0, np.minimum(x2[best], x2[left]) - np.maximum(x1[best], x1[left]) + 1)
        high = np.maximum(0.0, np.minimum(y2[best], y2[left]) - np.maximum(y1[best], y1[left]) + 1)
        shared = wide * high
        left = left[shared / (areas[best] + areas[left] - shared) <= _OVERLAP]
    return kept


def usable(faces: Faces) -> Faces:
    """Those whose numbers are finite."""
    found, points = faces
    fine: Any = np.isfinite(found).all(axis=1) & np.isfinite(points).all(axis=(1, 2))
    return found[fine], points[fine]
