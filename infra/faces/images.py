"""Decode picture files into upright BGR pixels."""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Final

import numpy as np

from ironmask.errors import ImageError
from pipelines.spec.outcomes import Reason

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.ports import U8
    from pipelines.spec.faces import FaceSettings

# Pillow opens MPO through its JPEG reader.
_ALLOWED: Final = ("JPEG", "PNG", "WEBP", "BMP")
_MAGIC: Final = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"BM": "BMP"}
_FOREIGN_MAGIC: Final = {
    b"GIF8": "GIF",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
    b"8BPS": "PSD",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x01\x00": "ICO",
    b"icns": "ICNS",
    b"DDS ": "DDS",
    b"qoif": "QOI",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"P4\n": "PBM",
    b"P5\n": "PGM",
    b"P6\n": "PPM",
    b"<svg": "SVG",
}
_HEIF_BRANDS: Final = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_ORIENTATION_TAG: Final = 0x0112
_WHITE: Final = (255, 255, 255, 255)

# Exceptions that Pillow's readers raise on damaged files.
_DAMAGE: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)


def decode(data: bytes, settings: FaceSettings) -> U8:
    """Decode one file to (H, W, 3) uint8, channels B, G, R, turned upright.

    Takes JPEG (also the first picture of an MPO), PNG, WebP and BMP. Transparent parts become
    white, and 16-bit grey is scaled to 8 bits. Raise `ImageError` with a reason code for others.
    """
    if not data:
        raise ImageError(Reason.EMPTY_FILE, "the file is empty")
    if len(data) > settings.max_bytes:
        raise ImageError(
            Reason.TOO_LARGE,
            f"{len(data)} bytes, more than max_bytes {settings.max_bytes}",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _open(data)
        _check_header(image, settings)
        try:
            image.load()
            return _bgr(_upright(image))
        except _DAMAGE as error:
            raise _damaged(data, str(image.format), error) from None


def _open(data: bytes) -> Image:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(BytesIO(data), formats=_ALLOWED)
    except Image.DecompressionBombError:
        raise ImageError(Reason.TOO_MANY_PIXELS, "more pixels than can be decoded") from None
    except UnidentifiedImageError as error:
        known = _sniff(data)
        if known is None:
            raise ImageError(Reason.NOT_AN_IMAGE, "the content is no known image format") from None
        if known in _ALLOWED:
            raise _damaged(data, known, error) from None
        raise ImageError(
            Reason.FORMAT_NOT_ALLOWED,
            f"{known} is not accepted; convert it to JPEG or PNG",
        ) from None
    except _DAMAGE as error:
        raise _damaged(data, _sniff(data) or "image", error) from None


def _check_header(image: Image, settings: FaceSettings) -> None:
    width, height = image.size
    if width * height > settings.max_pixels:
        raise ImageError(
            Reason.TOO_MANY_PIXELS,
            f"{width} x {height} pixels, more than max_pixels {settings.max_pixels}",
        )
    frames = int(getattr(image, "n_frames", 1))
    if frames > 1 and image.format != "MPO":
        raise ImageError(Reason.ANIMATED, f"{image.format} with {frames} frames")


def _damaged(data: bytes, kind: str, error: BaseException) -> ImageError:
    if _is_cut(data, kind):
        return ImageError(Reason.TRUNCATED, f"the {kind} file ends too early")
    # Pillow's own messages may quote the file's content.
    return ImageError(Reason.DECODE_FAILED, f"damaged {kind} file ({type(error).__name__})")


def _is_cut(data: bytes, kind: str) -> bool:
    """Whether the file is shorter than its own structure says."""
    if kind in ("JPEG", "MPO"):
        return b"\xff\xd9" not in data[-4096:]
    if kind == "PNG":
        return b"IEND" not in data[-4096:]
    if kind == "WEBP":
        return len(data) < 12 or len(data) < 8 + int.from_bytes(data[4:8], "little")
    if kind == "BMP":
        return len(data) < 26 or len(data) < int.from_bytes(data[2:6], "little")
    return False


def _sniff(data: bytes) -> str | None:
    """Name the format from the first bytes."""
    if data[:4] == b"RIFF" and data[8:12] in (b"WEBP", b""):
        return "WEBP"
    if data[4:8] == b"ftyp":
        if data[8:12] in (b"avif", b"avis"):
            return "AVIF"
        return "HEIC" if data[8:12] in _HEIF_BRANDS else None
    start = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith((b"<?xml", b"<!--", b"<!DOCTYPE svg")) and b"<svg" in start:
        return "SVG"
    for magic, name in (_MAGIC | _FOREIGN_MAGIC).items():
        if data.startswith(magic) or (name == "SVG" and start.startswith(magic)):
            return name
    # The file may end inside its signature.
    cut = len(data) >= 3 and any(magic.startswith(data) for magic in _MAGIC)
    return next(name for magic, name in _MAGIC.items() if magic.startswith(data)) if cut else None


def _upright(image: Image) -> Image:
    """Apply the EXIF orientation. A damaged EXIF block counts as none."""
    from PIL.Image import Transpose

    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DAMAGE:
        return image
    turn = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)
    return image if turn is None else image.transpose(turn)


def _bgr(image: Image) -> U8:
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        wide = np.clip(np.asarray(image, dtype=np.float64), 0, 65535)
        grey = np.rint(wide / 257.0).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, _WHITE)
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    width, height = image.size
    # Pillow reverses the channels five times as fast as NumPy.
    pixels = image.convert("RGB").tobytes("raw", "BGR")
    return np.frombuffer(pixels, dtype=np.uint8).reshape(height, width, 3)
