"""Where real faces and models lie, for suites that run outside pytest."""

from __future__ import annotations

import os
from pathlib import Path

_REPOSITORY = Path(__file__).parents[2]


def faces_and_model() -> tuple[Path, Path]:
    """The folder of photographs and that of a model. Raises `FileNotFoundError` where absent."""
    shared = Path(os.environ.get("IRONMASK_SHARED") or _REPOSITORY.parent / "shared").resolve()
    faces, model = shared / "faces" / "lfw_dev", shared / "models" / "buffalo_sc"
    if not (faces.is_dir() and model.is_dir()):
        raise FileNotFoundError(f"no models and faces at {shared}: set IRONMASK_SHARED")
    return faces, model
