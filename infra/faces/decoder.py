"""Decode pictures in a child process: if it crashes or hangs, the worker goes on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from typing import IO, Final

from infra.faces.decoder_process import ANSWER, LENGTH, PIXELS, Limits, SharedPixels
from ironmask.errors import ImageError
from pipelines.ports import U8
from pipelines.spec.faces import FaceSettings
from pipelines.spec.outcomes import Reason

_SECONDS: Final = 30.0
_ATTEMPTS: Final = 2
_PIPE_BYTES: Final = 1 << 20
# A decoder needs no secret and no settings. So an intruder finds none in it.
_KEPT: Final = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "TMPDIR")
_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class _LostError(Exception):
    """The child ended, or did not answer in time."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Decoder:
    """`infra.faces.images.decode` in a child process, replaced whenever it dies or is too slow.

    seconds: the time limit of one picture. Threads must not share a decoder.
    """

    def __init__(self, settings: FaceSettings, seconds: float = _SECONDS) -> None:
        self._seconds = seconds
        # The child stops itself later than we stop it, in case we are gone.
        hard_stop = int(seconds) + 5
        self._limits = Limits(settings.max_pixels, settings.max_bytes, hard_stop)
        self._child: subprocess.Popen[bytes] | None = None
        self._shared: SharedPixels | None = None
        self._end: weakref.finalize[..., Decoder] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id; None before the first picture and after the last fault."""
        return self._child.pid if self._child else None

    def decode(self, data: bytes) -> U8:
        """Decode one file to upright (H, W, 3) uint8, channels B, G, R; valid until the next call.

        Raises `ImageError` with the decoder's own reason. The reason is `decoder_crashed` or
        `decoder_timeout` where a second child ended in that way too.
        """
        for attempt in range(_ATTEMPTS):
            try:
                return self._ask(data)
            except _LostError as error:
                self.close()
                if attempt == _ATTEMPTS - 1:
                    raise ImageError(error.reason, f"{error}, {_ATTEMPTS} times") from None
        raise AssertionError

    def close(self) -> None:
        """End the child."""
        if self._end is not None:
            self._end()
        self._child = self._shared = self._end = None

    def _ask(self, data: bytes) -> U8:
        child, shared = self._started()
        assert child.stdin is not None  # noqa: S101
        assert child.stdout is not None  # noqa: S101
        deadline = time.monotonic() + self._seconds
        _send(child.stdin, LENGTH.pack(len(data)) + data, deadline)
        kind, first, second = ANSWER.unpack(_receive(child.stdout, ANSWER.size, deadline))
        if kind == PIXELS:
            if first * second > self._limits.max_pixels:
                raise _crashed()
            return shared.array(first, second)
        text = _receive(child.stdout, first + second, deadline)
        raise ImageError(text[:first].decode(), text[first:].decode())

    def _started(self) -> tuple[subprocess.Popen[bytes], SharedPixels]:
        if self._child is None or self._shared is None:
            descriptor = _shared_memory()
            self._child = _start(self._limits, descriptor)
            self._shared = SharedPixels(descriptor)
            self._end = weakref.finalize(self, _stop, self._child, descriptor)
        return self._child, self._shared


def _shared_memory() -> int:
    """A descriptor of memory that may grow but never shrink, so that its reader is safe."""
    descriptor = os.memfd_create("ironmask-pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return descriptor


def _start(limits: Limits, descriptor: int) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-m",
            "infra.faces.decoder_process",
            limits.to_json(),
            str(descriptor),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=_environment(os.environ),
        pass_fds=[descriptor],
        bufsize=0,
    )
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None  # noqa: S101
        os.set_blocking(pipe.fileno(), False)
        # A larger pipe only adds speed, and may be refused.
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return child


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    kept = {name: ours[name] for name in _KEPT if name in ours}
    threads = dict.fromkeys(_THREADS, "1")
    return {**kept, **threads, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _stop(child: subprocess.Popen[bytes], descriptor: int) -> None:
    child.kill()
    child.wait()
    os.close(descriptor)
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()


def _send(pipe: IO[bytes], data: bytes, deadline: float) -> None:
    view = memoryview(data)
    while view:
        _await(pipe, select.POLLOUT, deadline)
        try:
            view = view[os.write(pipe.fileno(), view) :]
        except BlockingIOError:
            continue
        except OSError:
            raise _crashed() from None


def _receive(pipe: IO[bytes], count: int, deadline: float) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        _await(pipe, select.POLLIN, deadline)
        got = os.readv(pipe.fileno(), [view])
        if not got:
            raise _crashed()
        view = view[got:]
    return data


def _await(pipe: IO[bytes], event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(pipe, event)
    left = deadline - time.monotonic()
    if left <= 0 or not poll.poll(left * 1000):
        raise _LostError(Reason.DECODER_TIMEOUT, "the decoder did not end in time")


def _crashed() -> _LostError:
    return _LostError(Reason.DECODER_CRASHED, "the decoder crashed")
