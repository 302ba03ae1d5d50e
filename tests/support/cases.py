"""Inputs that users of such software have met: the scripts of `shared/cases`, run in a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def make(face_data: Path, name: str, folder: Path) -> Path:
    """Write the input of one case into a new folder; skipped where the cases are not at hand."""
    script = next((face_data / "cases").glob(f"{name}-*/make.py"), None)
    if script is None:
        pytest.skip(f"no case {name} at {face_data / 'cases'}: set IRONMASK_SHARED")
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(face_data / "cases")}
    subprocess.run([sys.executable, str(script)], cwd=folder, env=environment, check=True)
    return folder
