"""Centring: one template from several images of one person (Kim et al. 2021, supplement D.2)."""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ironmask.arrays import F32, F64, unit_rows
from ironmask.errors import ParameterError, TemplateError

# A mean of unit embeddings that is shorter than this has no usable direction.
_CANCELLED = 1e-6
# Singular values below this share of the largest are rounding of float32 embeddings.
_RELATIVE_NOISE = 1e-4
# A template of the regression must have at least this cosine to every embedding.
_LEAST_COSINE = 1e-3


class Centring(StrEnum):
    """How several embeddings become one template."""

    MEAN = "mean"
    REGRESSION = "regression"

    @classmethod
    def named(cls, name: str) -> Centring:
        """The method with this name. Raises `ParameterError`, which lists the names."""
        try:
            return cls(name)
        except ValueError:
            raise ParameterError(
                f"unknown centring {name!r}; the methods are {', '.join(cls)}"
            ) from None


def centre(embeddings: ArrayLike, n: int, method: Centring = Centring.MEAN) -> F64:
    """Return the unit template of m >= 1 embeddings, (m, n) of any scale, as (n,) float64.

    `mean`: the normalised sum of the unit embeddings. `regression`: the direction x that has the
    same inner product with all of them. It is the normalised least-squares solution of A x = 1,
    where the rows of A are the unit embeddings. A single embedding is only normalised.

    Raises `TemplateError` with reason `wrong_width`, `not_finite`, `zero_norm`, or
    `opposed_embeddings` where they cancel.
    """
    rows = unit_rows(embeddings, n)
    if len(rows) == 0:
        raise TemplateError("wrong_width", "a template needs at least one embedding")
    if len(rows) == 1:
        template: F64 = rows[0]
        return template
    return _mean(rows) if method is Centring.MEAN else _regression(rows)


def by_person(
    embeddings: F32 | F64,
    person: NDArray[np.intp],
    method: Centring = Centring.MEAN,
    most: int | None = None,
) -> F64:
    """One template of each person, as an enrolment makes it: (people, n) unit rows.

    embeddings: (k, n) of any scale. person: (k,), whose embedding each is. most: use only so many
    of a person's embeddings, the first ones. People whose embeddings cancel are left out.
    """
    order = np.argsort(person, kind="stable")
    _, first = np.unique(person[order], return_index=True)
    made = []
    for own in np.split(order, first[1:]):
        with suppress(TemplateError):
            made.append(centre(embeddings[own[:most]], embeddings.shape[1], method))
    return np.array(made).reshape(-1, embeddings.shape[1])


def _mean(rows: F64) -> F64:
    mean = rows.mean(axis=0)
    length = np.linalg.norm(mean)
    if not length > _CANCELLED:
        raise TemplateError("opposed_embeddings", f"{len(rows)} embeddings cancel each other")
    template: F64 = mean / length
    return template


def _regression(rows: F64) -> F64:
    direction = np.linalg.lstsq(rows, np.ones(len(rows)), rcond=_RELATIVE_NOISE)[0]
    length = np.linalg.norm(direction)
    if not (length > 0 and (rows @ direction).min() > _LEAST_COSINE * length):
        raise TemplateError(
            "opposed_embeddings", f"{len(rows)} embeddings have no direction in common"
        )
    template: F64 = direction / length
    return template
