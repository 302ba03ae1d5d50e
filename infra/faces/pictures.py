"""Pictures as files."""

from __future__ import annotations

from io import BytesIO

from pipelines.ports import U8


def png(pixels: U8) -> bytes:
    """The PNG file of (H, W, 3) uint8 RGB."""
    from PIL import Image

    sink = BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()
