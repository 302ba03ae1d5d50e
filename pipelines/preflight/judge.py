"""Before an enrolment: what one stolen row would be worth, with this model and these settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ironmask.attacks import Foretold, foretell
from ironmask.errors import RiskError
from ironmask.filling import Filling
from ironmask.params import Params
from ironmask.random import secure_generator
from pipelines.preflight.profile import LEAST_A_DIRECTION, Calibration, Profile
from pipelines.spec.template_job import RISKS, TemplateJob

FLOOR_BITS: Final = 64.0
"""The least cost of searching one unencrypted row that is not a risk, in bits."""


@dataclass(frozen=True)
class Preflight:
    """profile: the measurements of the model. name: the model's name for people. left: bits that
    the subspace does not rule out. row: the cost of searching one row.
    """

    profile: Profile
    name: str
    left: float
    row: Foretold

    def describe(self) -> str:
        """The measurements, for people."""
        least = "at least " if self.row.is_bound else "about "
        share, space = self.row.share, self.profile.space
        rows = "one row gives" if share in (0, 1) else f"{share:.0%} of rows give each"
        how = ", by the width of its code alone" if self.row.by_width else ""
        return (
            f"embeddings of {self.name} use about {space.effective_rank:.0f} of {space.n} "
            f"directions (measured on {self.profile.of}); with its helper in the clear, {rows} its "
            f"template after {least}{self.row.trials:,.0f} guesses ({self.row.bits:.1f} bits){how}"
        )

    def metrics(self, run_id: str) -> Iterator[dict[str, Any]]:
        """The same as rows of `metrics`, without their time."""
        space = self.profile.space
        found = {
            "row_bits": self.row.bits, "bits_left": self.left,
            "effective_rank": space.effective_rank,
        }  # fmt: skip
        for name, value in found.items():
            yield {
                "run_id": run_id, "name": f"preflight_{name}", "label": self.profile.model,
                "value": value, "denominator": space.count,
            }  # fmt: skip


def assess(
    calibration: Calibration, params: Params, encoding: str, share: float, name: str
) -> Preflight:
    """Foretell the search of one row. share: of filling, 0 for none. name: the model's."""
    profile = calibration.profile
    filling = Filling.of(profile.space, share) if share else None
    space = filling.spectrum(profile.space) if filling else profile.space
    row = foretell(
        calibration.others, profile.space, params, secure_generator(), filling=filling,
        encoding=encoding,
    )  # fmt: skip
    return Preflight(profile, name, space.bits_left(params), row)


def check(job: TemplateJob, found: Preflight | None, name: str) -> None:
    """Refuse unencrypted helpers that do not hide their templates. name: the model's.

    Raises `RiskError` unless the job accepts the risk.
    """
    if job.sealed or job.accepted_risk == RISKS[0]:
        return
    way_out = (
        "Leave --plaintext-helpers out, and helpers are encrypted; or take the risk by name: "
        f"--accept-risk {RISKS[0]}"
    )
    if found is None or not found.profile.is_enough:
        seen = f"only {found.profile.space.count:,}" if found else "none"
        needed = LEAST_A_DIRECTION * job.params.n
        raise RiskError(
            "refused: with --plaintext-helpers a stolen row may give its template away; to tell, "
            f"embeddings of {needed:,} people by {name} are needed, and {seen} are at hand. "
            f"Name a Parquet of them with --calibration. {way_out}"
        )
    if found.row.bits < FLOOR_BITS:
        raise RiskError(
            f"refused: {found.describe()}, and {FLOOR_BITS:.0f} bits are the least. {way_out}"
        )
