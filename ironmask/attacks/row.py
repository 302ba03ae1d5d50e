"""Attack one stolen row as hard as time allows, and foretell how hard that will be.

More guessed entries find codewords that fewer do not. Each entry more costs a factor of about
2 N / alpha, so a thief begins with one and goes on. The forecast uses fresh issues, whose codewords
are known: it measures which share of right guesses leads to the codeword, for each number of
guessed entries.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import numpy as np

from ironmask import codeword, helper
from ironmask.accelerator import CPU
from ironmask.arrays import F32, F64, I32
from ironmask.attacks.result import Budget, Confirm, Recovered
from ironmask.attacks.subspace import guesses_needed, recover_from_subspace, share_recovered
from ironmask.filling import Filling
from ironmask.params import Params, Structure
from ironmask.rotation import Sampler
from ironmask.spectrum import Spectrum

# Guessed entries, and the share of the time after which each stage ends.
_STAGES: Final = ((1, 0.2), (2, 0.4), (3, 0.7), (4, 1.0))
_FORETOLD: Final = (1, 2, 3, 4, 6, 8, 10, 12)


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
            budget=Budget(len(helper) if guessed == 1 else 1 << 40, left),
            confirm=confirm, device=device, structure=structure,
        )  # fmt: skip
        trials += found.trials
        best = max(best, found.score)
        if found.success:
            spent = time.perf_counter() - began
            return Recovered(found.templates, trials, spent, best, structure=structure)
    # More guessed entries could always be tried.
    return Recovered((), trials, time.perf_counter() - began, best, out_of_time=True)


@dataclass(frozen=True, slots=True)
class Foretold:
    """The cost of the search.

    guessed: the number of entries to guess that needs the fewest trials. trials: on average, for
    the share of rows that fall at all. is_bound: no set of right entries led to a codeword; trials
    is then a lower limit.
    """

    guessed: int
    trials: float
    share: float
    is_bound: bool

    @property
    def bits(self) -> float:
        """log2 of the trials."""
        return float(np.log2(self.trials))


def foretell(
    templates: F64,
    space: Spectrum,
    params: Params,
    rng: np.random.Generator,
    *,
    filling: Filling | None = None,
    encoding: str = helper.DEFAULT_ENCODING,
    sets: int = 24,
) -> Foretold:
    """Foretell the search of one row, from fresh issues of some embeddings, (k, n) unit rows.

    space: measured on other embeddings. filling: of the templates, where they are filled. sets: so
    many sets of right entries are tried for each template.
    """
    stolen = fresh_issues(templates, params, rng, filling=filling, encoding=encoding)
    known = space if filling is None else filling.spectrum(space)
    best: Foretold | None = None
    for guessed in (g for g in _FORETOLD if g < params.alpha):
        hits = [
            share_recovered(p, known, code, _chosen(code, guessed, sets, rng)) for p, code in stolen
        ]
        fallen = sum(map(bool, hits))
        success = max(sum(hits), 1) / (sets * (fallen or len(stolen)))
        trials = guesses_needed(params.code_width, params.alpha, guessed, success)
        here = Foretold(guessed, trials, fallen / len(stolen), not fallen)
        # Once something was found, bounds say nothing. Of two bounds the later is the larger one.
        if best is None or best.is_bound or (fallen and trials < best.trials):
            best = here
        if success == 1:
            break
    assert best is not None  # noqa: S101
    return best


def fresh_issues(
    templates: F64,
    params: Params,
    rng: np.random.Generator,
    *,
    filling: Filling | None = None,
    encoding: str = helper.DEFAULT_ENCODING,
) -> list[tuple[F32, I32]]:
    """Make issues of templates, (k, n) unit rows, to attack.

    Each has the helper, (N, n), as a thief decodes it, and the codeword, (alpha,).
    """
    sampler, made = Sampler.of(params), []
    for template in templates if filling is None else filling.filled(templates, rng):
        code = codeword.sample(rng, params.code_width, params.alpha)
        (target,) = codeword.dense(code, params.code_width)
        rows = sampler.carrying(rng, template, target)
        stored = helper.encode(rows[None], params, encoding)
        made.append((helper.decode(stored, params, encoding)[0], code[0]))
    sampler.wipe()
    return made


def _chosen(code: I32, guessed: int, sets: int, rng: np.random.Generator) -> I32:
    """Random sets of a codeword's signed entries, (sets, guessed)."""
    return np.stack([rng.choice(code, guessed, replace=False) for _ in range(sets)])
