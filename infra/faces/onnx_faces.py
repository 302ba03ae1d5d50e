"""Find and align the face of a picture, and embed aligned faces."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np

from infra.faces.decoder import Decoder
from infra.models.onnx_session import open_session, outputs_or_none
from infra.models.packs import ModelPack
from ironmask.errors import ImageError, ModelError, ParameterError
from pipelines.ports import F32, U8, AlignedFace
from pipelines.spec.faces import FacePolicy, FaceSettings, Provider
from pipelines.spec.outcomes import Reason

__all__ = [
    "FaceAligner",
    "FacePolicy",
    "FaceRecogniser",
    "FaceSettings",
    "Provider",
]

_SIDE: Final = 112
_GPU_BATCH: Final = 16
# A second face rivals the dominant one if it has at least this share of its area. It does not if it
# lies further from the centre, by more than this share of the dominant one's side.
_RIVAL_AREA: Final = 0.6
_RIVAL_OFFSET: Final = 0.5


class FaceAligner:
    """`Aligner` over an SCRFD detector. Make it inside a worker; it cannot be pickled.

    Pictures are decoded in a child process. A file that crashes or hangs the decoder therefore
    costs only itself.
    """

    def __init__(self, pack: ModelPack, settings: FaceSettings | None = None) -> None:
        """Load the detector; raise `ModelError` or `ProviderError`."""
        import cv2
        from insightface.model_zoo import SCRFD  # type: ignore[import-untyped,unused-ignore]

        cv2.setNumThreads(1)
        self._settings = settings or FaceSettings()
        self._decoder = Decoder(self._settings)
        session = open_session(pack.detector, pack.detector_sha256, self._settings.provider)
        # One session for every size: insightface would open more, with its own settings.
        self._detector = SCRFD(str(pack.detector), session=session, static_shape_sessions=False)
        self._detector.prepare(0, det_thresh=self._settings.det_threshold)
        if not self._detector.use_kps:
            raise ModelError(f"{pack.detector}: it finds no facial points, so cannot align")

    def align(self, data: bytes) -> AlignedFace:
        """Decode a file and align its face; raise `ImageError` with a reason code."""
        return self.align_pixels(self._decoder.decode(data))

    def align_many(
        self, contents: Iterable[tuple[int, bytes]]
    ) -> Iterator[tuple[int, AlignedFace | ImageError]]:
        """The face of each file, or why it cannot be used, one after the other."""
        for number, data in contents:
            try:
                yield number, self.align(data)
            except ImageError as error:
                yield number, error

    def crop(self, data: bytes) -> U8:
        """Decode a file to its aligned face, (112, 112, 3) uint8 BGR; raise `ImageError`.

        A picture of just that size is taken as an aligned face.
        """
        image = self._decoder.decode(data)
        if image.shape[:2] == (_SIDE, _SIDE):
            return image.copy()
        return self.align_pixels(image).crop

    def align_pixels(self, image: U8) -> AlignedFace:
        """Align the face of a (H, W, 3) uint8 BGR picture; raise `ImageError`."""
        found, points = self._detect(image)
        return aligned(image, found, points, self._settings)

    def close(self) -> None:
        """End the decoder's process; the next picture would start another one."""
        self._decoder.close()

    def _detect(self, image: U8) -> tuple[F32, F32]:
        """Boxes and scores (k, 5), points (k, 5, 2), in pixels of the picture; k >= 1."""
        short, long = sorted(image.shape[:2])
        for size in self._settings.det_sizes:
            if size * short < long:  # scaled, it would be less than one pixel wide
                continue
            found, points = self._detector.detect(image, input_size=(size, size))
            usable = np.isfinite(found).all(axis=1) & np.isfinite(points).all(axis=(1, 2))
            if usable.any():
                return found[usable], points[usable]
        raise no_face()


def no_face() -> ImageError:
    """The error of a picture in which nothing was found."""
    return ImageError(Reason.NO_FACE, "no face was found")


def aligned(image: U8, found: F32, points: F32, settings: FaceSettings) -> AlignedFace:
    """The face to use of a (H, W, 3) picture, aligned; raise `ImageError`.

    found: boxes and scores, (k, 5); points: (k, 5, 2); both in pixels of the picture, k >= 1.
    """
    index = choose_face(found[:, :4], image.shape[1], image.shape[0], settings.policy)
    x1, y1, x2, y2, score = (float(v) for v in found[index])
    side = min(x2 - x1, y2 - y1)
    if side < settings.min_face:
        raise ImageError(
            Reason.FACE_TOO_SMALL,
            f"the face is {side:.0f} pixels wide, less than {settings.min_face:g}",
        )
    crop = _crop(image, points[index])
    sharpness = _sharpness(crop)
    if sharpness < settings.min_sharpness:
        raise ImageError(
            Reason.FACE_BLURRED,
            f"sharpness {sharpness:.1f}, less than {settings.min_sharpness:g}",
        )
    return AlignedFace(crop, (x1, y1, x2, y2), score, sharpness, len(found))


def choose_face(boxes: F32, width: int, height: int, policy: FacePolicy) -> int:
    """Index of the face to use among boxes (k, 4): x1, y1, x2, y2 in pixels; k >= 1.

    `dominant` takes the largest area - 2 * (distance from the picture's centre)^2, as insightface
    does. Raise `ImageError` SEVERAL_FACES where the policy allows no choice.
    """
    if policy == "single" and len(boxes) > 1:
        raise ImageError(Reason.SEVERAL_FACES, f"{len(boxes)} faces, the policy allows one")
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    if policy == "largest":
        return int(np.argmax(area))
    offset = np.hypot(
        (boxes[:, 0] + boxes[:, 2]) / 2 - width // 2,
        (boxes[:, 1] + boxes[:, 3]) / 2 - height // 2,
    )
    best = int(np.argmax(area - 2.0 * offset**2))
    reach = offset[best] + _RIVAL_OFFSET * math.sqrt(max(float(area[best]), 0.0))
    rivals = (area >= _RIVAL_AREA * area[best]) & (offset <= reach)
    rivals[best] = False
    if policy == "dominant" and rivals.any():
        raise ImageError(
            Reason.SEVERAL_FACES,
            f"{int(rivals.sum()) + 1} faces are comparably large and central",
        )
    return best


def _crop(image: U8, points: F32) -> U8:
    from insightface.utils.face_align import norm_crop  # type: ignore[import-untyped,unused-ignore]

    with warnings.catch_warnings():  # insightface calls a function that scikit-image renamed
        warnings.simplefilter("ignore", FutureWarning)
        crop: U8 = norm_crop(image, points, image_size=_SIDE)
    return crop


def _sharpness(crop: U8) -> float:
    """Variance of the Laplacian of the grey crop."""
    import cv2

    return float(cv2.Laplacian(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), cv2.CV_64F).var())


class FaceRecogniser:
    """`Recogniser` over an ArcFace-like model. Make it inside a worker; it cannot be pickled.

    n: width of its embeddings.
    batch: how many faces it takes at once; 1 if the model allows no more.
    """

    n: int
    batch: int

    def __init__(
        self, pack: ModelPack, settings: FaceSettings | None = None, *, batch: int | None = None
    ) -> None:
        """Load the recogniser; raise `ModelError`, `ProviderError` or `ParameterError`.

        batch: by default 1 on a CPU, whose cache holds the layers of one face, and 16 on a GPU.
        """
        import cv2
        from insightface.model_zoo import ArcFaceONNX

        provider = (settings or FaceSettings()).provider
        if batch is None:
            batch = 1 if provider == "cpu" else _GPU_BATCH
        if batch < 1:
            raise ParameterError(f"batch {batch}: must be at least 1")
        cv2.setNumThreads(1)
        self._session = open_session(pack.recogniser, pack.recogniser_sha256, provider)
        if len(self._session.get_outputs()) != 1:
            raise ModelError(f"{pack.recogniser}: a recogniser has one output")
        self._model = ArcFaceONNX(str(pack.recogniser), session=self._session)
        self.n = int(self._run(_probe(1)).shape[1])
        self.batch = batch if batch > 1 and self._takes_batches() else 1

    def embed(self, crops: U8) -> F32:
        """Map (k, 112, 112, 3) uint8 BGR to (k, n) float32, not normalised.

        Raise `ParameterError` for another shape or type.
        """
        if crops.dtype != np.uint8 or crops.shape[1:] != (_SIDE, _SIDE, 3):
            raise ParameterError(
                f"crops are {crops.dtype} {crops.shape}, not uint8 (k, {_SIDE}, {_SIDE}, 3)"
            )
        out = np.empty((len(crops), self.n), dtype=np.float32)
        for start in range(0, len(crops), self.batch):
            part = slice(start, start + self.batch)
            out[part] = self._run(crops[part])
        return out

    def _run(self, crops: U8) -> F32:
        # insightface turns BGR into RGB, as the models expect.
        features: F32 = self._model.get_feat(list(crops))
        return features

    def _takes_batches(self) -> bool:
        """Whether two faces at once give the same embeddings as one by one."""
        crops = _probe(2)
        alone = np.concatenate([self._run(crops[:1]), self._run(crops[1:])])
        scale = 1.0 / self._model.input_std
        blob = (crops[..., ::-1].astype(np.float32) - self._model.input_mean) * scale
        feed: dict[str, Any] = {self._model.input_name: blob.transpose(0, 3, 1, 2).copy()}
        found = outputs_or_none(self._session, feed)
        if found is None or found[0].shape != alone.shape:
            return False
        return bool(np.allclose(found[0], alone, rtol=0.05, atol=0.05))


def _probe(count: int) -> U8:
    """(count, 112, 112, 3) uint8, a fixed pattern that differs from picture to picture."""
    flat = np.arange(count * _SIDE * _SIDE * 3, dtype=np.uint64) * 2654435761
    return ((flat >> 12) & 0xFF).astype(np.uint8).reshape(count, _SIDE, _SIDE, 3)
