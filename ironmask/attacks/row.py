"""Attack one stolen row as hard as time allows.

More guessed entries find codewords that fewer do not. Each entry more costs a factor of about
2 N / alpha, so a thief begins with one and goes on.
"""

from __future__ import annotations

import time
from typing import Final

import numpy as np

from ironmask.accelerator import CPU
from ironmask.arrays import F32
from ironmask.attacks.result import Budget, Confirm, Recovered
from ironmask.attacks.subspace import recover_from_subspace
from ironmask.params import Structure
from ironmask.spectrum import Spectrum

# Guessed entries, and the share of the time after which each stage ends.
_STAGES: Final = ((1, 0.2), (2, 0.4), (3, 0.7), (4, 1.0))


def recover_from_row(
    helper: F32,
    space: Spectrum,
    alpha: int,
    rng: np.random.Generator,
    *,
    seconds: float,
    confirm: Confirm | None = None,
    device: str = CPU,
    structure: Structure = Structure.REAL,
) -> Recovered:
    """Look for the template of one issue, with one guessed entry, then two, and so on.

    See `recover_from_subspace`. space: of other embeddings of the same model, filled if the issue's
    template is. The trials are those of all stages.
    """
    began, trials, best = time.perf_counter(), 0, -float("inf")
    for guessed, part in _STAGES:
        left = part * seconds - (time.perf_counter() - began)
        if guessed >= alpha or left <= 0:
            continue
        found = recover_from_subspace(
            helper, space, alpha, rng, guessed=guessed,
            budget=Budget(len(helper) if guessed == 1 else 1 << 40, left, device),
            confirm=confirm, structure=structure,
        )  # fmt: skip
        trials += found.trials
        best = max(best, found.score)
        if found.success:
            spent = time.perf_counter() - began
            return Recovered(found.templates, trials, spent, best, structure=structure)
    # More guessed entries could always be tried.
    spent = time.perf_counter() - began
    return Recovered((), trials, spent, best, out_of_time=True, structure=structure)
