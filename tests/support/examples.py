"""Stored embeddings for the documents' examples, of a model that fills a part of its space only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

EACH: Final = 12
"""Faces of each subject: more than the largest number that a protocol of the documents enrols."""

_RANK: Final = 40


def people(count: int) -> list[str]:
    """Names of subjects, those of the documents first."""
    return ["Ada", "Bob", *(f"person_{number}" for number in range(count - 2))]


def write_faces(
    path: Path, names: Sequence[str], *, each: int = EACH, width: int = 128, seed: int = 1
) -> Path:
    """Write `each` faces of each subject, named as LFW names them, about 22 degrees from its mean.

    The same names and seed give the same faces, and fewer of them the first ones.
    """
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((width, width)))[0][:_RANK]
    rng = np.random.default_rng(seed)
    inner = rng.standard_normal((len(names), 1, _RANK))
    faces = (inner + 0.4 * rng.standard_normal((len(names), EACH, _RANK)))[:, :each] @ basis
    columns = {
        "subject_id": [name for name in names for _ in range(each)],
        "image": [f"{name}/{name}_{n:04d}.jpg" for name in names for n in range(1, each + 1)],
        "embedding": list(faces.reshape(-1, width).astype(np.float32)),
    }
    pq.write_table(pa.table(columns), path)
    return path
