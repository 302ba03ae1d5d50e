"""Search a collection of faces with a stolen helper: P alone tells who matches, without a digest.

The alpha largest entries of |P t'| sum to sqrt(alpha) times the cosine between P t' and its nearest
codeword. For the person's own face this sum is far larger than chance makes it. So neither salts
nor slow digests stop this attack; only encryption of P does. A face costs 2 N n operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from ironmask.accelerator import CPU, accelerator
from ironmask.arrays import F32, F64, unit_rows
from ironmask.errors import ParameterError

_FACES: Final = 4096


@dataclass(frozen=True, slots=True)
class Match:
    """The face of a collection that is nearest to a row.

    place: its index. score: its cosine to the nearest codeword. deviations: how far the score lies
    above the mean of the other faces, in their standard deviations.
    """

    place: int
    score: float
    deviations: float


def codeword_cosines(helper: F32, faces: ArrayLike, alpha: int, *, device: str = CPU) -> F64:
    """Cosine of P t' to its nearest codeword for each face t', (k, n) of any scale: (k,).

    helper: (N, n) float32, decoded. Raises `TemplateError` for an unusable face, `ProviderError`
    for an absent device.
    """
    on, n = accelerator(device), helper.shape[1]
    unit, p = unit_rows(faces, n).astype(np.float32), on.upload(np.ascontiguousarray(helper.T))
    found = []
    for start in range(0, len(unit), _FACES):
        size = on.xp.abs(on.upload(unit[start : start + _FACES]) @ p)
        found.append(on.download(on.sum_of_largest(size, alpha)))
    cosines: F64 = np.concatenate(found).astype(np.float64) / np.sqrt(alpha)
    return cosines


def best_match(helper: F32, faces: ArrayLike, alpha: int, *, device: str = CPU) -> Match:
    """Find the face of a collection, (k, n), that a row was most likely made from.

    Raises `ParameterError` for fewer than three faces: none can stand out of two.
    """
    scores = codeword_cosines(helper, faces, alpha, device=device)
    if len(scores) < 3:
        raise ParameterError(f"a collection of {len(scores)} faces: at least three are compared")
    place = int(scores.argmax())
    others = np.delete(scores, place)
    spread = max(float(others.std()), float(np.finfo(np.float32).eps))
    best = float(scores[place])
    return Match(place, best, (best - float(others.mean())) / spread)


def dictionary_bits(accepted: int, comparisons: int) -> tuple[float, bool]:
    """log2 of the strangers' faces until one is accepted: -log2(FAR); and whether it is measured.

    Where no comparison was accepted, it is a lower limit, from the one-sided 95 % bound
    3 / comparisons (rule of three). Raises `ParameterError` for impossible counts.
    """
    if not 0 <= accepted <= comparisons or comparisons < 1:
        raise ParameterError(f"{accepted} accepted of {comparisons} comparisons")
    rate = accepted / comparisons if accepted else min(1.0, 3 / comparisons)
    return float(-np.log2(rate)), accepted > 0
