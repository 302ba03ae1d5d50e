"""The child process that decodes pictures: `python -m infra.faces.decoder_process`.

Its arguments are a `Limits` as JSON and the descriptor of memory that it shares with its parent.

A request is the length of a file (8 bytes, little-endian) and its bytes. An answer is a kind (1
byte) and two 4-byte numbers. For a picture these are height and width; the upright (height, width,
3) uint8 B, G, R pixels then lie in the shared memory. For a refusal these are the lengths of a
reason code and of a message; both follow as UTF-8.

The process ends when its input ends. It also ends by itself where one picture takes too long, even
if its parent is gone.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import struct
import sys
from dataclasses import asdict, dataclass
from io import BytesIO
from json import dumps, loads
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from infra.faces.images import decode
from ironmask.errors import ImageError
from pipelines.spec.faces import FaceSettings

LENGTH: Final = struct.Struct("<Q")
ANSWER: Final = struct.Struct("<BII")
PIXELS, REFUSAL = 0, 1
# Bytes that Pillow and NumPy hold at most for one pixel, from 16 bits or RGBA to B, G, R.
_BYTES_A_PIXEL: Final = 32
_SPARE_BYTES: Final = 256 << 20


@dataclass(frozen=True)
class Limits:
    """max_pixels, max_bytes: of a picture and its file. seconds: of work on one picture."""

    max_pixels: int
    max_bytes: int
    seconds: int

    def to_json(self) -> str:
        return dumps(asdict(self))

    @property
    def memory(self) -> int:
        """Bytes that decoding may take in addition to those at the start of the process."""
        return _BYTES_A_PIXEL * self.max_pixels + 2 * self.max_bytes + _SPARE_BYTES


class SharedPixels:
    """Memory shared by two processes, as large as the largest picture so far."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._mapped = mmap.mmap(-1, 1)

    def array(self, height: int, width: int) -> NDArray[np.uint8]:
        """The (height, width, 3) uint8 pixels at its beginning."""
        count = height * width * 3
        if os.fstat(self._descriptor).st_size < count:
            os.ftruncate(self._descriptor, count)
        if len(self._mapped) < count:
            self._mapped = mmap.mmap(self._descriptor, count)
        return np.frombuffer(self._mapped, np.uint8, count).reshape(height, width, 3)


def serve(limits: Limits, shared: SharedPixels, source: BinaryIO, sink: BinaryIO) -> None:
    """Decode pictures until the input ends."""
    settings = FaceSettings(max_pixels=limits.max_pixels, max_bytes=limits.max_bytes)
    while len(head := source.read(LENGTH.size)) == LENGTH.size:
        data = source.read(LENGTH.unpack(head)[0])
        # By default the alarm ends the process, whatever the decoder is doing.
        signal.alarm(limits.seconds)
        try:
            pixels = decode(data, settings)
        except ImageError as error:
            reason, message = str(error.reason).encode(), str(error).encode()
            sink.write(ANSWER.pack(REFUSAL, len(reason), len(message)) + reason + message)
        else:
            shared.array(*pixels.shape[:2])[:] = pixels
            sink.write(ANSWER.pack(PIXELS, *pixels.shape[:2]))
        sink.flush()
        signal.alarm(0)


def _warm_up() -> None:
    """Load Pillow's readers before the memory is limited."""
    from PIL import Image

    image = Image.fromarray(np.zeros((2, 2, 3), np.uint8))
    for kind in ("JPEG", "PNG", "WEBP", "BMP"):
        buffer = BytesIO()
        image.save(buffer, kind)
        decode(buffer.getvalue(), FaceSettings())


def _bound_memory(limits: Limits) -> None:
    with open("/proc/self/statm", encoding="ascii") as statm:
        pages = int(statm.read().split()[0])
    bound = pages * resource.getpagesize() + limits.memory
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


def main() -> None:
    """Serve on the original standard input and output; nothing else may write there."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    limits = Limits(**loads(sys.argv[1]))
    _warm_up()
    if sys.platform == "linux":
        _bound_memory(limits)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with sink:
        serve(limits, SharedPixels(int(sys.argv[2])), sys.stdin.buffer, sink)


if __name__ == "__main__":
    main()
