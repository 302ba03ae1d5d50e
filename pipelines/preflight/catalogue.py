"""The acceptance of settings: shipped where it was measured before, else measured here."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from typing import Final

import numpy as np

from ironmask.acceptance import ANGLES, Acceptance, measured
from ironmask.choosing import largest_tolerance
from ironmask.params import Params

SHIPPED: Final = "acceptance.csv"
"""Made by `tests/pipelines/preflight/make_acceptance.py`."""

Key = tuple[int, int, int]


def acceptances(every: Iterable[Params]) -> Iterator[tuple[Params, Acceptance]]:
    """Each of some settings with its acceptance."""
    for params in every:
        key = (params.code_width, params.alpha, params.tolerance)
        yield params, shipped().get(key) or _here(params)


@cache
def shipped() -> dict[Key, Acceptance]:
    """The curves of the package, by N, alpha and tolerance."""
    text = files("pipelines.preflight").joinpath(SHIPPED).read_text("utf-8")
    rows = csv.reader(line for line in text.splitlines() if not line.startswith("#"))
    found: dict[Key, Acceptance] = {}
    for code_width, alpha, tolerance, *shares in rows:
        values = np.array(shares, dtype=np.float64)
        assert len(values) == len(ANGLES)  # noqa: S101
        found[int(code_width), int(alpha), int(tolerance)] = Acceptance(values)
    return found


def _here(params: Params) -> Acceptance:
    return _measured(params.code_width, params.alpha)[params.tolerance]


@cache
def _measured(code_width: int, alpha: int) -> list[Acceptance]:
    """By tolerance, all at once."""
    # Always the same directions: a choice that is made again must be the same.
    rng = np.random.Generator(np.random.PCG64(0))
    return measured(Params(code_width, alpha, largest_tolerance(alpha)), rng)
