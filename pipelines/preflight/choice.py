"""Choose settings by a false match rate, with what is known of a recogniser."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Final

from ironmask import choosing
from ironmask.choosing import FLOOR_BITS, Candidate, Limits
from ironmask.errors import ParameterError, SourceError
from pipelines.ports import Store
from pipelines.preflight import catalogue, curves
from pipelines.preflight.curves import Measured
from pipelines.spec.options import Goal, TemplateSettings
from pipelines.spec.template_job import MIN_BITS, SourceKind, TemplateJob

_CHOSEN: Final = ("preset", "alpha", "tolerance", "code_width", "structure")


@dataclass(frozen=True)
class Offer:
    """The candidates within some limits, the most accepting first. chosen: for the limits' FMR."""

    measured: Measured
    candidates: list[Candidate] = field(repr=False)
    chosen: Candidate | None = None

    @property
    def why(self) -> str:
        """The choice and what it rests on, for people."""
        chosen = f"{self.chosen.describe()}; " if self.chosen else ""
        return f"{chosen}expected with {self.measured.source}"


def offer(
    measured: Measured, encoding: str, limits: Limits, *, filling: float = 0.0, wide: bool = True
) -> Offer:
    """All candidates, and the one to choose where the limits have an FMR.

    filling: the share of a template's energy that is noise: cosines shrink by sqrt(1 - share).
    wide: whether codes may be wider than the embedding. Raises `ParameterError` where the
    comparisons cannot tell so low a rate, or no setting keeps to it.
    """
    if limits.fmr is not None:
        choosing.refuse_too_few(measured.curve, limits.fmr)
    some = choosing.catalogue(measured.n, encoding, limits)
    settings = catalogue.acceptances(params for params in some if wide or not params.is_wide)
    every = choosing.candidates(settings, encoding, measured.curve, shrunk=sqrt(1 - filling))
    if limits.fmr is None:
        return Offer(measured, every)
    return Offer(measured, every, choosing.choose(every, measured.curve, limits.fmr))


def settle(
    job: TemplateJob, goal: Goal, named: TemplateSettings, calibration: str | None, store: Store
) -> tuple[TemplateJob, Offer | None]:
    """The job with the parameters that a goal chooses, and the choice; as it is without a goal.

    named: what was chosen by name. calibration: address of a Parquet of the model's embeddings.
    Helpers in the clear are never wide. Raises `ParameterError` for parameters that are named
    beside a goal, and as `offer` does.
    """
    if goal.fmr is None:
        if goal != Goal():
            raise ParameterError("--photos and --floor-bits go with --fmr")
        return job, None
    if given := sorted(named.given(*_CHOSEN)):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ParameterError(f"--fmr chooses the parameters: leave {options} out, or --fmr")
    limits = Limits(goal.fmr, FLOOR_BITS if goal.floor_bits is None else goal.floor_bits)
    if limits.bits < MIN_BITS:
        raise ParameterError(
            f"--floor-bits {limits.bits:g} is below the least that templates may have: {MIN_BITS}"
        )
    photos = 1 if goal.photos is None else goal.photos
    if photos < 1:
        raise ParameterError("at least one photo of each person is enrolled")
    measured = _measured(job, goal.fmr, photos, calibration, store)
    found = offer(measured, job.encoding, limits, filling=job.filling, wide=job.sealed)
    assert found.chosen is not None  # noqa: S101
    return replace(job, params=found.chosen.params), found


def _measured(
    job: TemplateJob, fmr: float, photos: int, calibration: str | None, store: Store
) -> Measured:
    """Stored embeddings serve where they can tell so low a rate; else what is shipped does."""
    n = job.params.n
    if calibration:
        found = curves.from_embeddings(calibration, photos, store)
        if found.n != n:
            raise ParameterError(
                f"{calibration} holds embeddings of width {found.n}, the model's are {n}: "
                "calibrate with embeddings of the same model"
            )
        return found
    if job.kind is SourceKind.EMBEDDINGS:
        with suppress(SourceError):
            found = curves.from_embeddings(job.source, photos, store)
            if found.curve.least_bound <= fmr:
                return found
    return curves.shipped(n, photos)
