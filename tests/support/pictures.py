"""Picture files for tests: real faces, and what people put beside them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

ORIENTATION = 0x0112


def file_bytes(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photos(face_data: Path) -> Iterator[Path]:
    """One photograph of each person, all of different people."""
    for person in sorted((face_data / "faces" / "lfw_dev").iterdir()):
        yield min(person.iterdir())


def noise(seed: int = 0, side: int = 128) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return file_bytes(Image.fromarray(values))


def side_by_side(left: Path, right: Path) -> bytes:
    """Two people, equally large and equally far from the middle."""
    both = Image.new("RGB", (280, 250))
    for place, path in enumerate((left, right)):
        both.paste(Image.open(path).crop((55, 0, 195, 250)), (140 * place, 0))
    return file_bytes(both)


def shrunk(photo: Path, side: int = 40) -> bytes:
    return file_bytes(Image.open(photo).resize((side, side), Image.Resampling.LANCZOS))


def blurred(photo: Path, radius: float = 7.0) -> bytes:
    return file_bytes(Image.open(photo).filter(ImageFilter.GaussianBlur(radius)))


def sideways(photo: Path) -> bytes:
    """A photograph that only its EXIF block turns upright."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return file_bytes(Image.open(photo).transpose(Image.Transpose.ROTATE_90), exif=exif)


def claimed_size(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(width: int = 9_000, height: int = 8_000) -> bytes:
    """A sound PNG of a few kilobytes that decodes to very many pixels."""
    return file_bytes(Image.new("1", (width, height)))


def animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (64, 64), (shade, 0, 0)) for shade in (10, 200)]
    return file_bytes(frames[0], kind, save_all=True, append_images=frames[1:])
