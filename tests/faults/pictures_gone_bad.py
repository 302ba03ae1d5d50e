"""Kinds of picture files that people, software and attackers send, made from real photographs.

Each kind tells which outcomes it may have: a sound picture in an odd form may show a face or not; a
damaged one may be refused, or be decoded all the same.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from support.pictures import ORIENTATION, animated, bomb, claimed_size, file_bytes, noise

Rng = np.random.Generator
Maker = Callable[[bytes, Rng], bytes]
Outcomes = frozenset[tuple[str, str]]


def failed(*reasons: str) -> Outcomes:
    return frozenset(("failed", reason) for reason in reasons)


FACE = failed("no_face", "several_faces", "face_too_small", "face_blurred") | {("used", "")}
DAMAGED = failed("truncated", "decode_failed", "not_an_image", "too_many_pixels", "animated")
EITHER = FACE | DAMAGED
FOREIGN = failed("format_not_allowed")
TOO_MANY = failed("too_many_pixels")
XMP = b"http://ns.adobe.com/xap/1.0/\0"
SWOLLEN = zlib.compress(bytes(50_000_000))


@dataclass(frozen=True)
class Kind:
    """One way to be odd. suffix: of the file's name, which may lie."""

    name: str
    make: Maker
    may: Outcomes
    suffix: str = ".jpg"


def opened(photo: bytes) -> Image.Image:
    return Image.open(io.BytesIO(photo)).convert("RGB")


def again(photo: bytes, rng: Rng) -> Image.Image:
    """The photograph, a little different each time, so that no two files are the same."""
    pixels = np.asarray(opened(photo)).copy()
    pixels[0, :8] = rng.integers(0, 256, (8, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def saved(kind: str, mode: str = "RGB", **options: Any) -> Maker:
    return lambda photo, rng: file_bytes(again(photo, rng).convert(mode), kind, **options)


def cut(photo: bytes, rng: Rng) -> bytes:
    return photo[: rng.integers(20, len(photo) - 2)]


def flipped(low: float, high: float) -> Maker:
    """A few bits turned over in some part of the file."""

    def make(photo: bytes, rng: Rng) -> bytes:
        data = bytearray(photo)
        begin, end = int(low * len(data)), max(1, int(high * len(data)))
        for place in rng.integers(begin, end, rng.integers(1, 9)):
            data[place] ^= 1 << int(rng.integers(8))
        return bytes(data)

    return make


def blanked(photo: bytes, rng: Rng) -> bytes:
    size = int(rng.integers(50, 2000))
    start = int(rng.integers(0, max(1, len(photo) - size)))
    return photo[:start] + bytes(size) + photo[start + size :]


def with_segment(marker: int, body: Maker, times: int = 1) -> Maker:
    """A JPEG with a segment of some content right after its start."""

    def make(photo: bytes, rng: Rng) -> bytes:
        content = body(photo, rng)
        segment = struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
        return photo[:2] + segment * times + photo[2:]

    return make


def oriented(number: int) -> Maker:
    """A photograph that only its EXIF block turns upright."""
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip

    def make(photo: bytes, rng: Rng) -> bytes:
        image, exif = again(photo, rng), Image.Exif()
        exif[ORIENTATION] = number
        turned = image.transpose(turns[number]) if number in turns else image
        return file_bytes(turned, "JPEG", exif=exif, quality=95)

    return make


def random_bytes(count: int) -> Maker:
    return lambda _, rng: rng.bytes(count)


def beginning(magic: bytes, count: int = 400) -> Maker:
    """A file that begins like one of some format, and goes on with noise."""
    return lambda _, rng: magic + rng.bytes(count)


def jpeg_size(photo: bytes, width: int, height: int, marker: int | None = None) -> bytes:
    """The same JPEG with other claims in its frame header."""
    data, place = bytearray(photo), photo.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    if marker is not None:
        data[place + 1] = marker
    return bytes(data)


def coded_otherwise(photo: bytes, rng: Rng) -> bytes:
    """A frame header that says arithmetic coding, or lossless, or anything but what follows."""
    image = opened(photo)
    marker = int(rng.choice([0xC1, 0xC3, 0xC5, 0xC9, 0xCA, 0xCB, 0xCF]))
    return jpeg_size(file_bytes(again(photo, rng), "JPEG"), *image.size, marker)


def scans(photo: bytes, rng: Rng) -> bytes:
    """A progressive JPEG whose last scan comes hundreds of times."""
    data = file_bytes(again(photo, rng), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 300 + data[-2:]


def with_zip(photo: bytes, rng: Rng) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("payload.txt", rng.bytes(200))
    return photo + buffer.getvalue()


def png_with(name: bytes, body: Callable[[Rng], bytes]) -> Maker:
    """A PNG with a chunk of some content before its pixels."""

    def make(photo: bytes, rng: Rng) -> bytes:
        data, content = file_bytes(again(photo, rng), "PNG"), body(rng)
        check = struct.pack(">I", zlib.crc32(name + content))
        return data[:33] + struct.pack(">I", len(content)) + name + content + check + data[33:]

    return make


def wrong_check(photo: bytes, rng: Rng) -> bytes:
    data = bytearray(file_bytes(again(photo, rng), "PNG"))
    place = data.index(b"IDAT") + int(rng.integers(4, 2000))
    data[place] ^= 0xFF
    return bytes(data)


def sixteen_bits(colours: int) -> Maker:
    def make(photo: bytes, rng: Rng) -> bytes:
        pixels = np.asarray(again(photo, rng).convert("RGB" if colours == 3 else "L"))
        wide = pixels.astype(np.uint16) * 257
        _, encoded = cv2.imencode(".png", wide[..., ::-1] if colours == 3 else wide)
        return bytes(encoded)

    return make


def riff(photo: bytes, rng: Rng) -> bytes:
    """A WebP whose outer size is not its own."""
    data = bytearray(file_bytes(again(photo, rng), "WEBP"))
    data[4:8] = struct.pack("<I", int(rng.integers(0, 2**32)))
    return bytes(data)


def bitmap(height: int, compression: int) -> Maker:
    """A BMP with a strange height, or run lengths that leave the picture."""

    def make(_: bytes, rng: Rng) -> bytes:
        body = rng.bytes(64 * 64)
        header = struct.pack(
            "<IiiHHIIiiII", 40, 64, height, 1, 8, compression, len(body), 0, 0, 256, 0
        )
        palette = bytes(v for n in range(256) for v in (n, n, n, 0))
        start = 14 + len(header) + len(palette)
        first = struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start)
        return first + header + palette + body

    return make


def script(_: bytes, rng: Rng) -> bytes:
    return b"GIF89a/*" + rng.bytes(20).replace(b"*/", b"") + b"*/=1;alert(1)//"


def drawing(_: bytes, rng: Rng) -> bytes:
    number = int(rng.integers(1 << 30))
    return f"<svg xmlns='http://www.w3.org/2000/svg'><text>{number}</text></svg>".encode()


def words(_: bytes, rng: Rng) -> bytes:
    return json.dumps({"not": "a picture", "number": int(rng.integers(1 << 60))}).encode()


def marked(make: Callable[[], bytes]) -> Maker:
    """A file that is always the same, made different by what no reader looks at."""
    content = make()
    return lambda _, rng: content + rng.bytes(8)


def with_page(photo: bytes, rng: Rng) -> bytes:
    page = b"<html><script>alert(1)</script>" + rng.bytes(4)
    return file_bytes(again(photo, rng), "PNG") + page


def claiming_png(_: bytes, rng: Rng) -> bytes:
    return claimed_size(65_535, 65_535) + rng.bytes(4)


def claiming_jpeg(photo: bytes, rng: Rng) -> bytes:
    return jpeg_size(photo, 65_535, 65_535) + rng.bytes(4)


def claiming_more(photo: bytes, rng: Rng) -> bytes:
    return jpeg_size(photo, 250, int(rng.integers(251, 3000)))


def huffman_table(_: bytes, rng: Rng) -> bytes:
    return bytes([0, *[0] * 15, 1, int(rng.integers(12))])


def without_length(photo: bytes, rng: Rng) -> bytes:
    return photo[:2] + b"\xff\xe5\x00\x00" + photo[2:] + rng.bytes(2)


def swelling(rng: Rng) -> bytes:
    """What grows a thousand times when a reader unpacks it."""
    return b"a\0\0" + SWOLLEN + rng.bytes(3)


def thin(width: int, height: int) -> Maker:
    row = Image.new("RGB", (width, height), (90, 90, 90))
    return marked(lambda: file_bytes(row))


def pages(photo: bytes, rng: Rng) -> bytes:
    both = [again(photo, rng), again(photo, rng)]
    return file_bytes(both[0], "TIFF", save_all=True, append_images=both[1:])


def doubled(photo: bytes, rng: Rng) -> bytes:
    return file_bytes(again(photo, rng), "MPO", save_all=True, append_images=[opened(photo)])


KINDS = [
    Kind("cut short", cut, EITHER),
    Kind("bits flipped in the header", flipped(0, 0.05), EITHER),
    Kind("bits flipped in the body", flipped(0.05, 1), EITHER),
    Kind("zero bytes long", lambda _, __: b"", failed("empty_file")),
    Kind("a run of zeros", blanked, EITHER),
    Kind("zeros only", lambda _, rng: bytes(int(rng.integers(1, 9000))), failed("not_an_image")),
    Kind("noise", random_bytes(3000), failed("not_an_image")),
    Kind("noise as pixels", lambda _, rng: noise(int(rng.integers(1 << 31))), FACE, ".png"),
    Kind("PNG bomb", marked(bomb), TOO_MANY, ".png"),
    Kind("PNG that claims 65,535 pixels a side", claiming_png, TOO_MANY),
    Kind("JPEG that claims 65,535 pixels a side", claiming_jpeg, TOO_MANY),
    Kind("JPEG that claims a few pixels more", claiming_more, EITHER),
    Kind("65,535 pixels wide and one high", thin(65_535, 1), failed("no_face"), ".png"),
    Kind("65,535 pixels high and one wide", thin(1, 65_535), failed("no_face"), ".png"),
    Kind("JPEG and archive", with_zip, FACE),
    Kind("PNG and page", with_page, FACE, ".png"),
    Kind("GIF and script", script, FOREIGN, ".gif"),
    Kind("CMYK", saved("JPEG", "CMYK"), FACE),
    Kind("greyscale", saved("JPEG", "L"), FACE),
    Kind("palette", saved("PNG", "P"), FACE, ".png"),
    Kind("one bit", saved("PNG", "1"), FACE, ".png"),
    Kind("transparent", saved("PNG", "RGBA"), FACE, ".png"),
    Kind("grey and transparent", saved("PNG", "LA"), FACE, ".png"),
    Kind("16-bit grey", sixteen_bits(1), FACE, ".png"),
    Kind("16-bit colour", sixteen_bits(3), FACE, ".png"),
    *(Kind(f"EXIF orientation {n}", oriented(n), FACE) for n in range(1, 9)),
    Kind("damaged EXIF", with_segment(0xE1, beginning(b"Exif\0\0")), EITHER),
    Kind("damaged ICC profile", with_segment(0xE2, beginning(b"ICC_PROFILE\0\x01\x01")), EITHER),
    Kind("damaged XMP", with_segment(0xE1, beginning(XMP)), EITHER),
    Kind("thousands of tables", with_segment(0xC4, huffman_table, 4000), EITHER),
    Kind("a segment of no length", without_length, EITHER),
    Kind("thousands of comments", with_segment(0xFE, lambda _, rng: rng.bytes(20), 4000), EITHER),
    Kind("coded otherwise than it says", coded_otherwise, EITHER),
    Kind("hundreds of scans", scans, EITHER),
    Kind("progressive", saved("JPEG", progressive=True), FACE),
    Kind("two pictures in one", doubled, FACE),
    Kind("lossless WebP", saved("WEBP", lossless=True), FACE, ".webp"),
    Kind("WebP of a wrong size", riff, EITHER, ".webp"),
    Kind("animated WebP", marked(lambda: animated("WEBP")), failed("animated"), ".webp"),
    Kind("animated PNG", marked(lambda: animated("PNG")), failed("animated"), ".png"),
    Kind("animated GIF", marked(lambda: animated("GIF")), FOREIGN, ".gif"),
    Kind("a wrong checksum", wrong_check, EITHER, ".png"),
    Kind("a bomb in a text", png_with(b"zTXt", swelling), EITHER, ".png"),
    Kind("a bomb in a profile", png_with(b"iCCP", swelling), EITHER, ".png"),
    Kind("an unknown chunk", png_with(b"abCd", lambda rng: rng.bytes(5000)), EITHER, ".png"),
    Kind("TIFF", saved("TIFF"), FOREIGN, ".tiff"),
    Kind("TIFF of two pages", pages, FOREIGN, ".tiff"),
    Kind("GIF", saved("GIF"), FOREIGN, ".gif"),
    Kind("ICO", saved("ICO"), FOREIGN, ".ico"),
    Kind("JPEG 2000", beginning(b"\x00\x00\x00\x0cjP  \r\n\x87\n"), FOREIGN, ".jp2"),
    Kind("PSD", beginning(b"8BPS\x00\x01"), FOREIGN, ".psd"),
    Kind("HEIC", beginning(b"\x00\x00\x00\x18ftypheic"), FOREIGN, ".heic"),
    Kind("AVIF", beginning(b"\x00\x00\x00\x18ftypavif"), FOREIGN, ".avif"),
    Kind("PDF", beginning(b"%PDF-1.7\n"), FOREIGN, ".pdf"),
    Kind("SVG", drawing, FOREIGN, ".svg"),
    Kind("text", words, failed("not_an_image"), ".txt"),
    Kind("BMP", saved("BMP"), FACE, ".bmp"),
    Kind("BMP upside down", bitmap(-64, 0), EITHER, ".bmp"),
    Kind("BMP of impossible height", bitmap(-(2**31), 0), EITHER, ".bmp"),
    Kind("BMP of too many pixels", bitmap(2_000_000, 0), TOO_MANY, ".bmp"),
    Kind("BMP whose runs leave it", bitmap(64, 1), EITHER, ".bmp"),
    Kind("PNG called JPEG", saved("PNG"), FACE),
    Kind("JPEG called PNG", saved("JPEG"), FACE, ".png"),
    Kind("WebP called BMP", saved("WEBP"), FACE, ".bmp"),
    Kind("text called JPEG", words, failed("not_an_image")),
]  # fmt: skip


def corrupt(photos: list[Path], count: int, seed: int) -> Iterator[tuple[Kind, bytes]]:
    """Files of every kind in turn."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        photo = photos[int(rng.integers(len(photos)))].read_bytes()
        yield kind, kind.make(photo, rng)
