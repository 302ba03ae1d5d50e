"""Template inversion as verbs: fit an inverter; show what it makes of templates to recognisers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Unpack

from pipelines.api.options import InvertEvaluateOptions, InvertFitOptions, refuse_others
from pipelines.inversion import contact_sheet, fitting, job, units
from pipelines.inversion import request as inversion_request
from pipelines.inversion.fitting import FitResult
from pipelines.inversion.request import Checked, InvertEvaluateRequest, InvertFitRequest
from pipelines.inversion.results import InversionResults
from pipelines.report import page
from pipelines.run.course import Counting, Step, Take, directly, follow, uncounted
from pipelines.spec.options import assembled


@dataclass
class Fitting:
    """A fit under way, or one that is done.

    result: what was learnt; its `headline` says it in a sentence. files: addresses of the inverter,
    first, and of the photos that could not be used.
    """

    request: InvertFitRequest = field(repr=False)
    checked: Checked = field(repr=False)
    progress: Counting = field(default=uncounted, repr=False)
    result: FitResult = field(init=False, repr=False)
    files: list[str] = field(init=False)

    def learn(self) -> None:
        """Embed the photos, and let one process learn from them."""
        with fitting.opened(self.request.workplace, self.checked) as engine:
            self.result = fitting.run(self.checked, engine, self.progress)

    def report(self) -> None:
        """Write which photos could not be used."""
        self.files = page.write_fit(self.result, self.checked.store)


@dataclass
class InversionEvaluation:
    """An evaluation of inverters under way, or one that is done.

    results: hits of every inverter; their `headline` says what a thief gets. files: addresses of
    the report, first, of its tables, and of the contact sheet, if one was asked for.
    """

    request: InvertEvaluateRequest = field(repr=False)
    checked: Checked = field(repr=False)
    progress: Counting = field(default=uncounted, repr=False)
    results: InversionResults = field(init=False, repr=False)
    files: list[str] = field(init=False)

    def attack(self) -> None:
        """Embed the photos, invert the templates of tested people, and add everything up."""
        with fitting.opened(self.request.workplace, self.checked) as engine:
            self.results = job.run(self.checked, engine, self.progress)

    def report(self) -> None:
        """Write the report, and the contact sheet where it was asked for."""
        self.files = page.write_inversion(self.results, self.checked.store)
        if self.request.contact_sheet:
            self.files += contact_sheet.write(units.surroundings(self.checked.spec))
        job.end(self.checked)


FIT_STEPS: Final = (Step("learn", Fitting.learn, again=True), Step("report", Fitting.report))
STEPS: Final = (
    Step("attack", InversionEvaluation.attack, again=True),
    Step("report", InversionEvaluation.report),
)


def invert_fit(faces: str, out: str, **options: Unpack[InvertFitOptions]) -> Fitting:
    """Let an inverter learn what embeddings of a model look like, from photos of people.

    faces: a folder or a zip file of `person/photo`. out: a folder or `s3://` prefix for the
    inverter. An unfinished fit is continued.

    Raises `ParameterError`, `SourceError`, `ModelError` and `ProtocolError` for what cannot be
    fitted, `MismatchError` where `out` holds another fit.

    >>> invert_fit("faces.zip", "linear/", model="buffalo_sc").result.headline  # doctest: +SKIP
    """
    refuse_others(options, InvertFitOptions)
    request = assembled(InvertFitRequest, {"faces": faces, "out": out, **options})
    return fit_out(request, inversion_request.prepare_fit(request))


def invert_evaluate(
    faces: str, out: str, inverters: Sequence[str], **options: Unpack[InvertEvaluateOptions]
) -> InversionEvaluation:
    """Say how many people can be impersonated by faces that inverters make of their templates.

    faces: a folder or a zip file of `person/photo`; people whom an inverter has learnt from are
    left out. out: a folder or `s3://` prefix for the report. inverters: folders of fits. An
    unfinished evaluation is continued.

    Raises `ParameterError`, `SourceError`, `ModelError`, `TableError` and `KeyStoreError` for what
    cannot be evaluated, `MismatchError` for an inverter of another model.

    >>> invert_evaluate("faces.zip", "report/", ["linear/"]).results.headline  # doctest: +SKIP
    """
    refuse_others(options, InvertEvaluateOptions)
    flat = {"faces": faces, "out": out, "inverters": inverters, **options}
    request = assembled(InvertEvaluateRequest, flat)
    return carry_out(request, inversion_request.prepare_evaluation(request))


def fit_out(
    request: InvertFitRequest,
    checked: Checked,
    progress: Counting = uncounted,
    take: Take = directly,
) -> Fitting:
    """Do a fit that is checked already. take: takes each of its steps."""
    return follow(FIT_STEPS, Fitting(request, checked, progress), take)


def carry_out(
    request: InvertEvaluateRequest,
    checked: Checked,
    progress: Counting = uncounted,
    take: Take = directly,
) -> InversionEvaluation:
    """Do an evaluation that is checked already. take: takes each of its steps."""
    return follow(STEPS, InversionEvaluation(request, checked, progress), take)
