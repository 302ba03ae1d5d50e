"""The settings that there are, for people and for machines."""

from __future__ import annotations

from typing import Any

from pipelines.evaluation.offers import Listed, Settings
from pipelines.report.sheets import Sheet


def sheet(found: Settings) -> Sheet:
    """The table of settings, the chosen one marked."""
    measured = found.offer.measured
    note = (
        f"Expected with {measured.source} ({measured.curve.genuine:,} genuine and "
        f"{measured.curve.impostor:,} impostor comparisons). Alone: TAR of the recogniser without "
        "protection at the same FMR. ms: one verification on one core here. Bits count guesses of "
        "a codeword; whoever has the keys needs fewer."
    )
    if found.others:
        note += f" {found.others:,} more keep to the limits, and are worse or accept less."
    columns = ["", "N", "alpha", "tol.", "bits", "KiB a row", "TAR", "alone", "FMR (95 %)", "ms"]
    return Sheet("Settings", note, columns, [_cells(one, found) for one in found.listed])


def answer(found: Settings) -> str:
    """The choice in one sentence; empty where no FMR was asked for."""
    return f"Chosen: {found.chosen.describe()}." if found.chosen else ""


def plain(found: Settings) -> dict[str, Any]:
    """The same as plain values."""
    measured = found.offer.measured
    return {
        "source": measured.source,
        "photos": measured.photos,
        "genuine": measured.curve.genuine,
        "impostor": measured.curve.impostor,
        "settings": [_plain(one, found) for one in found.listed],
    }


def _cells(one: Listed, found: Settings) -> list[str]:
    setting, params = one.candidate, one.candidate.params
    fmr = setting.fmr
    return [
        "*" if setting is found.chosen else "",
        str(params.code_width),
        str(params.alpha),
        str(params.tolerance),
        f"{params.bits:.1f}",
        f"{setting.kib:.1f}",
        f"{setting.tar:.4f}",
        "" if one.recogniser is None else f"{one.recogniser:.4f}",
        f"{fmr.value:.2g} ({fmr.low:.2g} to {fmr.high:.2g})",
        f"{one.verify.p50:.1f}",
    ]


def _plain(one: Listed, found: Settings) -> dict[str, Any]:
    setting, params = one.candidate, one.candidate.params
    return {
        "code_width": params.code_width,
        "structure": str(params.structure),
        "alpha": params.alpha,
        "tolerance": params.tolerance,
        "encoding": setting.encoding,
        "bits": params.bits,
        "row_bytes": setting.row_bytes,
        "tar": setting.tar,
        "tar_low": 1 - setting.fnmr.high,
        "tar_high": 1 - setting.fnmr.low,
        "tar_error": setting.fnmr.error,
        "recogniser_tar": one.recogniser,
        "fmr": setting.fmr.value,
        "fmr_low": setting.fmr.low,
        "fmr_high": setting.fmr.high,
        "fmr_bound": setting.fmr.bound,
        "verify_ms": one.verify.p50,
        "chosen": setting is found.chosen,
    }
