"""The settings that there are, as a verb."""

from __future__ import annotations

from ironmask.choosing import FLOOR_BITS, MOST_KIB
from ironmask.helper import DEFAULT_ENCODING
from pipelines.evaluation import offers
from pipelines.evaluation.offers import Settings, SettingsRequest


def settings(
    profile: str | None = None,
    *,
    calibration: str | None = None,
    fmr: float | None = None,
    photos: int | None = None,
    floor_bits: float = FLOOR_BITS,
    most_kib: float = MOST_KIB,
    encoding: str = DEFAULT_ENCODING,
    rows: int = 12,
) -> Settings:
    """List the settings there are, with what each accepts and costs; choose one for an FMR.

    profile: the output folder of an evaluation. calibration: a Parquet of embeddings instead.
    Without either, figures of one model on LFW that come with the package serve. rows: the most
    settings to list, those that accept most.

    Raises `ParameterError` for limits that nothing keeps to, or an FMR that so few comparisons
    cannot tell; `SourceError` for a profile or calibration that is none.

    >>> settings(fmr=1e-5).chosen.describe()  # doctest: +SKIP
    """
    limits = (fmr, photos, floor_bits, most_kib, encoding, rows)
    return offers.settings(SettingsRequest(profile, calibration, *limits))
