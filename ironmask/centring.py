"""Centring: one template from several images of one person (Kim et al. 2021, supplement D.2)."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

from ironmask.arrays import F64, unit_rows
from ironmask.errors import TemplateError

# Below this share of the sum of lengths, the unit embeddings cancel and have no common direction.
_CANCELLED = 1e-6


class Centring(StrEnum):
    """How several embeddings become one template."""

    MEAN = "mean"
    REGRESSION = "regression"


def centre(embeddings: ArrayLike, n: int, method: Centring = Centring.MEAN) -> F64:
    """Return the unit template of m >= 1 embeddings, (m, n) of any scale, as (n,) float64.

    `mean`: the normalised sum of the unit embeddings. `regression`: the direction x with the same
    inner product to all of them, the least-squares solution of A x = 1 with the unit embeddings as
    rows of A, normalised. One embedding is only normalised.

    Raises `TemplateError` with reason `wrong_width`, `not_finite`, `zero_norm`, or
    `opposed_embeddings` where they cancel.
    """
    rows = unit_rows(embeddings, n)
    if len(rows) == 0:
        raise TemplateError("wrong_width", "a template needs at least one embedding")
    if len(rows) == 1:
        template: F64 = rows[0]
        return template
    if method is Centring.MEAN:
        total = rows.sum(axis=0)
    else:
        total = np.linalg.lstsq(rows, np.ones(len(rows)), rcond=None)[0]
    length = np.linalg.norm(rows @ total)
    if not length > _CANCELLED * len(rows):
        raise TemplateError(
            "opposed_embeddings", f"{len(rows)} embeddings point in opposed directions and cancel"
        )
    centred: F64 = total / np.linalg.norm(total)
    return centred
