"""The disposable decoder: what it says, and what dies when it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.pictures import bomb, claimed_size, file_bytes, noise

from infra.faces.decoder import Decoder
from infra.faces.images import decode
from ironmask.errors import ImageError
from pipelines.spec.faces import FaceSettings

SETTINGS = FaceSettings()
# Decoding it takes long enough to be met on the way, and not much longer.
SLOW = file_bytes(Image.effect_noise((6_000, 6_000), 60), "PNG", compress_level=1)


@pytest.fixture
def decoder():
    found = Decoder(SETTINGS)
    yield found
    found.close()


def strike(decoder: Decoder, number: int, times: int = 1) -> Callable[[], None]:
    """Send a signal to the child that is busy with a picture, and to those that come after it.

    Returns what ends this, and checks that it was done once at least.
    """
    struck: set[int] = set()
    over = threading.Event()

    def work() -> None:
        while len(struck) < times and not over.is_set():
            pid = decoder.pid
            if pid and pid not in struck and is_busy(pid):
                os.kill(pid, number)
                struck.add(pid)
            time.sleep(0.001)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def ended() -> None:
        over.set()
        thread.join()
        assert struck

    return ended


def is_busy(pid: int) -> bool:
    """Whether the child holds a large picture by now."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except FileNotFoundError:
        return False
    return pages * 4096 > len(SLOW) + (60 << 20)


def reason_of(decoder: Decoder, data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decoder.decode(data)
    return caught.value.reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_pixels_are_those_of_the_decoder_itself(decoder, kind):
    for side in (1, 30, 700):
        data = file_bytes(Image.effect_noise((side, side + 3), 40).convert("RGB"), kind)
        assert np.array_equal(decoder.decode(data), decode(data, SETTINGS))


def test_refusals_are_those_of_the_decoder_itself(decoder):
    for data in (b"", b"no picture", noise()[:1000], claimed_size(65_535, 65_535), b"GIF89a" * 9):
        with pytest.raises(ImageError) as here:
            decode(data, SETTINGS)
        with pytest.raises(ImageError) as there:
            decoder.decode(data)
        assert (there.value.reason, str(there.value)) == (here.value.reason, str(here.value))


def test_one_child_serves_many_pictures(decoder):
    decoder.decode(noise())
    first = decoder.pid
    reason_of(decoder, b"no picture")
    decoder.decode(noise(1))
    assert decoder.pid == first


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_crash_costs_a_second_attempt(decoder, number):
    done = strike(decoder, number)
    assert decoder.decode(SLOW).shape == (6_000, 6_000, 3)
    done()


def test_a_second_crash_costs_the_picture_and_no_more(decoder):
    done = strike(decoder, signal.SIGSEGV, times=2)
    assert reason_of(decoder, SLOW) == "decoder_crashed"
    done()
    assert decoder.decode(noise()).shape == (128, 128, 3)


@pytest.mark.slow
def test_a_decoder_that_hangs(decoder):
    hanging = Decoder(SETTINGS, seconds=3.0)
    done = strike(hanging, signal.SIGSTOP, times=2)
    assert reason_of(hanging, SLOW) == "decoder_timeout"
    done()
    assert hanging.decode(noise()).shape == (128, 128, 3)
    hanging.close()


def test_memory_is_bounded():
    """A picture within the limits of its pixels, in a process that may hold a tenth of it."""
    small = Decoder(FaceSettings(max_pixels=100_000))
    with pytest.raises(ImageError) as caught:
        small.decode(bomb())
    assert caught.value.reason == "too_many_pixels"
    pid = small.pid
    soft = Path(f"/proc/{pid}/limits").read_text()
    (line,) = [line for line in soft.splitlines() if line.startswith("Max address space")]
    assert int(line.split()[3]) < 3 << 30
    small.close()


def test_the_child_knows_no_secret(decoder, monkeypatch):
    monkeypatch.setenv("IRONMASK_S3_SECRET_KEY", "canary-of-ours")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-aws")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "canary-of-ray")
    decoder.decode(noise())
    assert b"canary" not in Path(f"/proc/{decoder.pid}/environ").read_bytes()
    opened = [os.readlink(link) for link in Path(f"/proc/{decoder.pid}/fd").iterdir()]
    assert all(
        name.startswith(("pipe:", "/dev/null", "/memfd:ironmask-pixels")) for name in opened
    ), opened


def test_a_closed_one_leaves_nothing(decoder):
    decoder.decode(noise())
    pid = decoder.pid
    decoder.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert decoder.decode(noise()).shape == (128, 128, 3)


def test_one_that_is_forgotten_leaves_nothing():
    forgotten = Decoder(SETTINGS)
    forgotten.decode(noise())
    pid = forgotten.pid
    del forgotten
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("stopped", [False, True], ids=["idle", "hanging"])
def test_a_killed_worker_leaves_no_child(stopped):
    """Its input ends with the worker; one that hangs is ended by its own alarm."""
    code = (
        "import os, signal, sys, threading, time\n"
        "from infra.faces.decoder import Decoder\n"
        "from pipelines.spec.faces import FaceSettings\n"
        "decoder = Decoder(FaceSettings(), seconds=-4)\n"  # the child's own stop after one second
        "child, _ = decoder._started()\n"
        "print(child.pid, flush=True)\n"
        "if sys.argv[1] == 'True':\n"
        # A request that never comes whole: the child waits in the middle of it.
        "    os.write(child.stdin.fileno(), bytes([255] + [0] * 7))\n"
        "time.sleep(60)\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", code, str(stopped)], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    pid = int(worker.stdout.readline())
    os.kill(pid, 0)
    worker.kill()
    worker.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_a_decoder_that_hangs_ends_by_itself():
    """Stopped for longer than its alarm, it ends as soon as it goes on."""
    hanging = Decoder(SETTINGS, seconds=-4)
    child, _ = hanging._started()
    assert child.stdin is not None
    # Read whole, decoded for ever: the alarm is all that ends it.
    data = SLOW
    os.set_blocking(child.stdin.fileno(), True)
    os.write(child.stdin.fileno(), len(data).to_bytes(8, "little"))
    child.stdin.write(data)
    while not is_busy(child.pid):
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGSTOP)
    time.sleep(1.5)
    os.kill(child.pid, signal.SIGCONT)
    assert child.wait(20) == -signal.SIGALRM
    hanging.close()
