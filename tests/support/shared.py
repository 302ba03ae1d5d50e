"""Where real faces and models lie: `shared` beside the repository, or IRONMASK_SHARED."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).parents[2]
SHARED = Path(os.environ.get("IRONMASK_SHARED") or _REPOSITORY.parent / "shared").resolve()


def faces_and_model() -> tuple[Path, Path]:
    """The folder of photographs and that of a model. Raises `FileNotFoundError` where absent."""
    faces, model = SHARED / "faces" / "lfw_dev", SHARED / "models" / "buffalo_sc"
    if not (faces.is_dir() and model.is_dir()):
        raise FileNotFoundError(f"no models and faces at {SHARED}: set IRONMASK_SHARED")
    return faces, model


def shared_or_skipped() -> Path:
    """The folder with models and faces; whoever asks is skipped where they are not at hand."""
    try:
        faces_and_model()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return SHARED
