"""The result of an attack that looks for a template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from ironmask import algebra, codeword
from ironmask.accelerator import CPU
from ironmask.arrays import F32, F64, I32
from ironmask.errors import ParameterError
from ironmask.params import Structure

Codes = list[I32]
"""Codewords, one for each attacked issue, (alpha,) int32 each."""

Confirm = Callable[[Codes], bool]
"""Tells whether codewords are right, signs included; for example by their digests."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What an attack may take: starts, seconds, and the device that computes (see
    `ironmask.accelerator`).
    """

    trials: int
    seconds: float = float("inf")
    device: str = CPU


@dataclass(frozen=True, slots=True)
class Recovered:
    """The end of an attack.

    templates: one unit vector, (n,) float64, for each attacked issue; none where it gave up.
    trials: starts; each is one guess. score: the attack's own measure, computed without a template.
    out_of_time: it gave up before it had tried everything, so the result proves nothing.
    structure: of the helpers.
    """

    templates: tuple[F64, ...] = field(repr=False)
    trials: int
    seconds: float
    score: float
    out_of_time: bool = False
    structure: Structure = Structure.REAL

    @property
    def success(self) -> bool:
        """Whether the attack itself believes that it is right."""
        return bool(self.templates)

    @property
    def bits(self) -> float:
        """log2 of the guesses made."""
        return float(np.log2(max(self.trials, 1)))

    def cosine(self, *truth: ArrayLike) -> float:
        """The least cosine between recovered and true templates, 0 without success.

        A template and its negative count as one: an issue of one is an issue of the other. The same
        holds for its products with i, j and k where helpers are quaternionic.
        """
        if not self.templates:
            return 0.0
        pairs = zip(self.templates, map(np.asarray, truth), strict=True)
        return min(self._nearest(found, true / np.linalg.norm(true)) for found, true in pairs)

    def _nearest(self, found: F64, true: F64) -> float:
        d = self.structure.components
        turned = algebra.times(found.reshape(-1, 1, d), np.eye(d)).transpose(1, 0, 2)
        return float(np.abs(turned.reshape(d, -1) @ true).max())


def require_issues(helpers: Sequence[F32] | F32) -> None:
    """Raise `ParameterError` for fewer than two helpers, (b, N, n), or b of (N, n)."""
    if len(helpers) < 2 or any(np.ndim(helper) != 2 for helper in helpers):
        raise ParameterError("this attack needs the helpers of two issues or more: (b, N, n)")


def believed(
    codes: Codes,
    seem_right: bool,
    confirm: Confirm | None,
    structure: Structure = Structure.REAL,
) -> Codes | None:
    """Return codewords with the unit that a digest confirms, where one can be asked; else None.

    Helpers alone cannot tell a template from its negative, and quaternionic ones not from its
    products with i, j and k.
    """
    if confirm is None:
        return codes if seem_right else None
    by_code = [algebra.unit_multiples(code[None], structure) for code in codes]
    turned = [[one[0] for one in own] for own in zip(*by_code, strict=True)]
    every = (own for some in turned for own in (some, [-code for code in some]))
    return next(filter(confirm, every), None)


def template_of(helper: F32, code: I32) -> F64:
    """The template of a helper, (N, n), and its codeword, (alpha,) int32: P' c at unit length."""
    vector = codeword.dense(code[None], len(helper))[0] @ helper.astype(np.float64)
    unit: F64 = vector / np.linalg.norm(vector)
    return unit
