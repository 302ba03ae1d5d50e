"""The least cosine of two faces of one person, settled before a run is planned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from ironmask import impostors
from ironmask.errors import ParameterError
from pipelines.ports import Store
from pipelines.preflight.calibrate import Judged, kept_profile
from pipelines.preflight.profile import Profile, sample_people
from pipelines.spec.template_job import DECLARED, SourceKind, TemplateJob

DEFAULT_FMR: Final = 1e-3
"""The share of strangers' pairs that count as one person: one of a thousand."""

_MOST_PEOPLE: Final = 4_000
# Two machines may add up differently, but a run must go on with the same bar.
_DIGITS: Final = 3


@dataclass(frozen=True)
class Bar:
    """The least cosine of faces of one person. source: for people, how it is known."""

    cosine: float
    source: str


@dataclass(frozen=True)
class Known:
    """What is known about how alike a model finds strangers.

    calibration: address of a Parquet of its embeddings, if one was named. points: measured
    (FMR, cosine) of a known model. judged: its profile, if there is one.
    """

    calibration: str | None
    points: Sequence[tuple[float, float]]
    judged: Judged


def settle(
    job: TemplateJob, fmr: float, known: Known, store: Store
) -> tuple[TemplateJob, Bar | None]:
    """The job with the bar that a false match rate sets, and the bar's origin. 0 sets no bar.

    Raises `ParameterError` for a rate that is not supported.
    """
    if not fmr:
        return replace(job, agreement=None), None
    if not impostors.LEAST_FMR <= fmr <= impostors.MOST_FMR:
        raise ParameterError(
            f"agreement at a false match rate of {fmr:g}: from {impostors.LEAST_FMR:g} to "
            f"{impostors.MOST_FMR:g} can be told, and 0 is for none"
        )
    found = _bar(job, fmr, known, store)
    rounded = replace(found, cosine=round(found.cosine, _DIGITS))
    return replace(job, agreement=rounded.cosine), rounded


def _bar(job: TemplateJob, fmr: float, known: Known, store: Store) -> Bar:
    """Use the best known measure. Labels in the source come late: they are in doubt themselves."""
    n = job.params.n
    if known.calibration and (bar := _measured(known.calibration, n, fmr, store)):
        return bar
    if known.points:
        return Bar(impostors.of_points(known.points, fmr), "measured on LFW")
    stored = job.source if job.kind is SourceKind.EMBEDDINGS else None
    if stored and (bar := _measured(stored, n, fmr, store)):
        return bar
    profile = known.judged.profile or kept_profile(job, job.model.removeprefix(DECLARED), store)
    if profile:
        space = Profile.from_bytes(profile, "the profile").space
        return Bar(impostors.of_moments(space, fmr), "by the model's profile")
    return Bar(
        impostors.on_sphere(n, fmr),
        "the least of any model, for this one is not known: measure it with --calibration",
    )


def _measured(address: str, n: int, fmr: float, store: Store) -> Bar | None:
    """The bar that a file's subjects give; None where they are too few.

    If each person were there under two names, one pair in as many as there are subjects would not
    be an impostor pair. With 1 / FMR subjects, such pairs cannot decide.
    """
    people = sample_people(address, n, store)[:_MOST_PEOPLE]
    if len(people) < ceil(1 / fmr):
        return None
    where = f"measured on {len(people):,} people of {address}"
    return Bar(impostors.of_embeddings(people, n, fmr), where)
