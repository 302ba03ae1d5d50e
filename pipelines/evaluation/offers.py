"""The settings that there are for a recogniser: what each accepts, and what it costs here."""

from __future__ import annotations

from dataclasses import dataclass

from threadpoolctl import threadpool_limits

from infra.settings import load as load_settings
from infra.store.addresses import normalise
from ironmask.choosing import FLOOR_BITS, MOST_KIB, Candidate, Limits, undominated
from ironmask.comparisons import Setting
from ironmask.errors import ParameterError
from ironmask.helper import DEFAULT_ENCODING, encoding
from pipelines.evaluation.cost import Times, verification
from pipelines.ports import Store
from pipelines.preflight import curves
from pipelines.preflight.choice import Offer, offer
from pipelines.preflight.curves import Measured
from pipelines.setup import ports

_N = 512


@dataclass(frozen=True)
class SettingsRequest:
    """What is asked. profile: folder of an evaluation's results. calibration: a Parquet of
    embeddings. Without either, the curve that is shipped serves. photos: enrolled of each person.
    rows: the most settings to list.
    """

    profile: str | None = None
    calibration: str | None = None
    fmr: float | None = None
    photos: int | None = None
    floor_bits: float = FLOOR_BITS
    most_kib: float = MOST_KIB
    encoding: str = DEFAULT_ENCODING
    rows: int = 12


@dataclass(frozen=True)
class Listed:
    """One setting. recogniser: the TAR of the recogniser alone at the same FMR, where its curve
    reaches so far. verify: of one probe, on one core of this machine.
    """

    candidate: Candidate
    recogniser: float | None
    verify: Times


@dataclass(frozen=True)
class Settings:
    """Settings that no other one betters in every way, the most accepting first. others: the number
    of those left out.
    """

    offer: Offer
    listed: list[Listed]
    others: int

    @property
    def chosen(self) -> Candidate | None:
        """The setting that the rule takes for the FMR that was asked for."""
        return self.offer.chosen


def settings(request: SettingsRequest) -> Settings:
    """List the settings within the limits, and choose one where an FMR is asked for.

    Raises `ParameterError` for limits that nothing keeps to, or an FMR that the comparisons cannot
    tell; `SourceError` for a profile or calibration that is none.
    """
    if request.profile and request.calibration:
        raise ParameterError("PROFILE and --calibration are two origins of one thing: name one")
    if request.photos is not None and request.photos < 1:
        raise ParameterError("at least one photo of each person is enrolled")
    encoding(request.encoding)
    _, storage = load_settings()
    storage.export()
    limits = Limits(request.fmr, request.floor_bits, request.most_kib)
    found = offer(_measured(request, ports.open_store(storage)), request.encoding, limits)
    every = found.candidates
    if limits.fmr is not None:
        every = [one for one in every if one.fmr.bound <= limits.fmr]
    if not every:
        raise ParameterError(
            f"no setting has {limits.bits:g} bits within {limits.kib:g} KiB a row: ask for fewer "
            "bits, or allow more bytes"
        )
    some = undominated(every)[: request.rows]
    shown = [one for one in every if one in some or one is found.chosen]
    with threadpool_limits(1):
        listed = [_listed(one, found.measured) for one in shown]
    return Settings(found, listed, len(every) - len(shown))


def _measured(request: SettingsRequest, store: Store) -> Measured:
    if request.profile:
        return curves.from_results(normalise(request.profile), request.photos, store)
    photos = request.photos or 1
    if request.calibration:
        return curves.from_embeddings(normalise(request.calibration), photos, store)
    return curves.shipped(_N, photos)


def _listed(one: Candidate, measured: Measured) -> Listed:
    verify = verification(Setting(one.params, one.encoding))
    return Listed(one, measured.curve.tar_at(one.fmr.value), verify)
