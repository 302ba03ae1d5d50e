"""How pictures and faces are accepted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from ironmask.errors import ParameterError

FacePolicy = Literal["dominant", "single", "largest"]
Provider = Literal["cpu", "cuda", "tensorrt"]

# Pillow itself refuses pictures above this.
_PIXEL_CEILING: Final = 178_956_970


@dataclass(frozen=True, slots=True)
class FaceSettings:
    """Limits and choices; the defaults suit photographs of one person.

    det_sizes: side of the square the detector sees, in pixels, multiples of 32. The first is
        used; the next ones are tried where no face was found.
    det_threshold: least detector confidence, in 0..1.
    policy: which face of several is taken. `dominant`: large and central, refused where another
        face is comparably large and central; `largest`; `single`: a second face is refused.
    min_face: least shorter side of the face box, in pixels of the picture.
    min_sharpness: least variance of the Laplacian of the grey (112, 112) crop.
    min_norm: least Euclidean norm of a raw embedding; 0 accepts all. The caller of the
        recogniser applies it.
    max_pixels, max_bytes: largest picture and file that are decoded.
    provider: where the models run.
    """

    det_sizes: tuple[int, ...] = (320, 640)
    det_threshold: float = 0.5
    policy: FacePolicy = "dominant"
    min_face: float = 24.0
    min_sharpness: float = 6.0
    min_norm: float = 0.0
    max_pixels: int = 64_000_000
    max_bytes: int = 50 * 1024 * 1024
    provider: Provider = "cpu"

    def __post_init__(self) -> None:
        """Raise `ParameterError` for a value that cannot be used."""
        object.__setattr__(self, "det_sizes", tuple(self.det_sizes))  # JSON knows lists only
        if not self.det_sizes or any(s < 32 or s % 32 for s in self.det_sizes):
            raise ParameterError(f"det_sizes {self.det_sizes}: give multiples of 32, at least one")
        if not 0.0 < self.det_threshold < 1.0:
            raise ParameterError(f"det_threshold {self.det_threshold}: must lie between 0 and 1")
        if self.policy not in get_args(FacePolicy):
            raise ParameterError(f"policy {self.policy!r}: one of {get_args(FacePolicy)}")
        if self.provider not in get_args(Provider):
            raise ParameterError(f"provider {self.provider!r}: one of {get_args(Provider)}")
        for name in ("min_face", "min_sharpness", "min_norm"):
            if not getattr(self, name) >= 0.0:
                raise ParameterError(f"{name} {getattr(self, name)}: must not be negative")
        if not 1 <= self.max_pixels <= _PIXEL_CEILING:
            raise ParameterError(f"max_pixels {self.max_pixels}: 1 to {_PIXEL_CEILING}")
        if self.max_bytes < 1:
            raise ParameterError(f"max_bytes {self.max_bytes}: must be positive")
