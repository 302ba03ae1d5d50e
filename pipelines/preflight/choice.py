"""Choose settings by a false match rate, with what is known of a recogniser."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from ironmask import choosing
from ironmask.choosing import Candidate, Limits
from ironmask.errors import ParameterError, SourceError
from pipelines.ports import Store
from pipelines.preflight import catalogue, curves
from pipelines.preflight.curves import Known


@dataclass(frozen=True, slots=True)
class Wanted:
    """A false match rate to keep to, and how many photos a person has, typically."""

    fmr: float
    photos: int = 1


@dataclass(frozen=True)
class Offer:
    """The candidates within some limits, the most accepting first. chosen: for the limits' FMR."""

    known: Known
    candidates: list[Candidate] = field(repr=False)
    chosen: Candidate | None = None

    @property
    def why(self) -> str:
        """The choice and what it rests on, for people."""
        chosen = f"{self.chosen.describe()}; " if self.chosen else ""
        return f"{chosen}expected with {self.known.source}"


def offer(known: Known, encoding: str, limits: Limits) -> Offer:
    """All candidates, and the one to choose where the limits have an FMR.

    Raises `ParameterError` where the comparisons cannot tell so low a rate, or none has it.
    """
    if limits.fmr is not None:
        choosing.refuse_too_few(known.curve, limits.fmr)
    wanted = choosing.catalogue(known.n, encoding, limits)
    every = choosing.candidates(catalogue.acceptances(wanted), encoding, known.curve)
    if limits.fmr is None:
        return Offer(known, every)
    return Offer(known, every, choosing.choose(every, known.curve, limits.fmr))


def best_known(
    calibration: str | None, source: str | None, n: int, wanted: Wanted, store: Store
) -> Known:
    """The best that is known of a model whose embeddings are n wide.

    calibration: address of a Parquet of its embeddings, if one was named. source: of the stored
    embeddings to enrol, if they are stored; they serve where they can tell so low a rate.
    Raises `ParameterError` for a calibration of another width.
    """
    if calibration:
        found = curves.from_embeddings(calibration, wanted.photos, store)
        if found.n != n:
            raise ParameterError(
                f"{calibration} holds embeddings of width {found.n}, the model's are {n}: "
                "calibrate with embeddings of the same model"
            )
        return found
    if source:
        with suppress(SourceError):
            found = curves.from_embeddings(source, wanted.photos, store)
            if found.n == n and found.curve.least_bound <= wanted.fmr:
                return found
    return curves.shipped(n, wanted.photos)
