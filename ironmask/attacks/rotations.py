"""Stored or guessable seeds: with the hidden rotation, searching an angle finds the codeword.

P = R Q. R turns s = Q t to c in their plane and leaves the rest alone. Suppose someone can make Q
again, from a seed that was kept or derived from a name. Then R = P Q' is known, and R - I has rank
two. Its range is the plane, and c is one of the unit vectors in it, the only sparse one. A seed
costs as much as making Q.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

from ironmask import codeword
from ironmask.arrays import F32, F64
from ironmask.attacks.result import Confirm, Recovered, believed, template_of
from ironmask.errors import ParameterError

_ANGLES: Final = 4096
_SURE: Final = 0.985
# tr(R) = n - 2 + 2 cos(angle); for an unrelated rotation it is about 0.
_LEAST_TRACE: Final = 0.5


def recover_from_rotation(
    helper: F32, hidden: F32 | F64, alpha: int, *, confirm: Confirm | None = None
) -> Recovered:
    """Recover the template if this is its hidden rotation. helper, hidden: (n, n).

    Raises `ParameterError` for a wide helper, which is no rotation, and for one of another width.
    """
    if helper.shape[0] != helper.shape[1]:
        raise ParameterError(
            f"a helper of {helper.shape} is no rotation: this attack is one on square helpers"
        )
    if helper.shape != np.shape(hidden):
        raise ParameterError(f"a rotation of {np.shape(hidden)} for a helper of {helper.shape}")
    began = time.perf_counter()
    related = float(np.einsum("ij,ij->", helper, hidden)) >= _LEAST_TRACE * len(helper)
    if not related:
        return Recovered((), 1, time.perf_counter() - began, 0.0)
    turn = helper.astype(np.float64) @ np.asarray(hidden, dtype=np.float64).T
    plane = np.linalg.svd(turn - np.eye(len(turn)))[0][:, :2]
    angle = np.arange(_ANGLES) * (np.pi / _ANGLES)
    points = (plane @ np.stack([np.cos(angle), np.sin(angle)])).T
    codes = codeword.decode(points, alpha)
    cosines = (codeword.dense(codes, len(helper)) * points).sum(axis=1)
    first = int(cosines.argmax())
    score = float(cosines[first])
    right = believed([codes[first]], score >= _SURE, confirm)
    found = () if right is None else (template_of(helper, right[0]),)
    return Recovered(found, 1, time.perf_counter() - began, score)


def scan_seeds(
    helper: F32,
    alpha: int,
    seeds: Iterable[int],
    rotation_of: Callable[[int], F32 | F64],
    *,
    confirm: Confirm | None = None,
) -> Recovered:
    """Try the rotations of some seeds. Trials count the seeds that were tried.

    rotation_of: makes the rotation, (n, n), from a seed, as the suspected software does.
    """
    began, trials, best = time.perf_counter(), 0, 0.0
    for seed in seeds:
        trials += 1
        found = recover_from_rotation(helper, rotation_of(seed), alpha, confirm=confirm)
        best = max(best, found.score)
        if found.success:
            return Recovered(found.templates, trials, time.perf_counter() - began, best)
    return Recovered((), trials, time.perf_counter() - began, best)
