"""The acceptance of settings: shipped where it was measured before, else measured here."""

from __future__ import annotations

import csv
import logging
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
_log = logging.getLogger("ironmask.settings")
# By N and alpha, and for each tolerance.
_measured: Final[dict[tuple[int, int], list[Acceptance]]] = {}


def acceptances(every: Iterable[Params]) -> Iterator[tuple[Params, Acceptance]]:
    """Each of some settings with its acceptance. Warns where some must be measured first."""
    some = list(every)
    new = {(one.code_width, one.alpha) for one in some if _key(one) not in shipped()}
    if waits := new - _measured.keys():
        _log.warning(
            "measuring %d curves of acceptance, about a second each: none come with the package "
            "for codes of %s entries",
            len(waits),
            ", ".join(str(code_width) for code_width in sorted({key[0] for key in waits})),
        )
    for params in some:
        yield params, shipped().get(_key(params)) or _here(params)


def _key(params: Params) -> Key:
    return params.code_width, params.alpha, params.tolerance


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
    code_width, alpha = params.code_width, params.alpha
    if (code_width, alpha) not in _measured:
        # Always the same directions: a choice that is made again must be the same.
        rng = np.random.Generator(np.random.PCG64(0))
        every = Params(code_width, alpha, largest_tolerance(alpha))
        _measured[code_width, alpha] = measured(every, rng)
    return _measured[code_width, alpha][params.tolerance]
