"""Turn the blocks' counts into rates with intervals: all numbers of a report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ironmask.comparisons import BINS, Setting, cosine_bin, thresholds
from ironmask.errors import ProtocolError
from ironmask.metrics import (
    LEAST_ERRORS,
    Curve,
    Difference,
    OperatingPoint,
    Rate,
    ScoreCounts,
    mcnemar,
)
from ironmask.params import Params
from ironmask.template import row_bytes
from pipelines.evaluation import blocks
from pipelines.evaluation.blocks import Part, Plan, Sources
from pipelines.evaluation.comparisons import Uncompared
from pipelines.evaluation.comparisons import trials as trials_of
from pipelines.evaluation.errors_by_subject import Errors, accepts, side
from pipelines.evaluation.frozen import Case, Evaluation
from pipelines.evaluation.groups import GroupRow, groups
from pipelines.evaluation.stored_templates import Access, losses
from pipelines.ports import Store
from pipelines.spec.outcomes import ACQUISITION

TARGETS: Final = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class CosineRow:
    """The recogniser alone at the lowest threshold whose FMR is at most `target`.

    fmr, fnmr: with intervals. fmr is None where impostors of this threshold were not kept.
    """

    target: float
    point: OperatingPoint
    fmr: Rate | None
    fnmr: Rate


@dataclass(frozen=True, slots=True)
class ProtectedRow:
    """One setting and tolerance.

    against: the FNMR minus the recogniser's own at an FMR that is no higher; None where the
    recogniser's threshold rests on fewer than 30 accepted impostors.
    """

    setting: str
    params: Params
    encoding: str
    row_bytes: int
    fmr: Rate
    fnmr: Rate
    same: OperatingPoint
    against: Difference | None


@dataclass(frozen=True)
class CaseResults:
    """The results of one kind of templates. lost: templates that could not be made or reopened.

    agreements: of genuine comparisons and of a sample of impostors, by setting. curve: of the
    recogniser alone. uncompared: where a list names the comparisons.
    """

    case: Case
    templates: int
    lost: int
    genuine: int
    impostor: int
    scores: ScoreCounts = field(repr=False)
    cosine: list[CosineRow]
    protected: list[ProtectedRow]
    groups: list[GroupRow]
    agreements: dict[str, tuple[list[int], list[int]]] = field(repr=False)
    curve: Curve = field(repr=False)
    uncompared: Uncompared | None = None

    @property
    def asked(self) -> int:
        """The number of comparisons asked for."""
        return self.genuine + self.impostor + (self.uncompared.total if self.uncompared else 0)


@dataclass(frozen=True, slots=True)
class Folded:
    """Failures that are included in the rates of one kind of templates.

    fta: failure-to-acquire rate of genuine comparisons; impostor_fta: of the others. fte:
    failure-to-enrol rate. Where a list names the comparisons, the rates are shares of these, and
    include those of subjects who were not enrolled.
    """

    fta: float
    impostor_fta: float
    fte: float


@dataclass(frozen=True)
class Failures:
    """The failures that are included in FAR and FRR.

    attempts: all faces to acquire, whether their files are sound or not. reasons: why some have no
    comparable embedding. not_acquired: those of them whose file is sound. subjects: all subjects to
    enrol. without: those of them without a template.
    """

    attempts: int
    reasons: dict[str, int]
    not_acquired: int
    subjects: int
    without: int

    @property
    def fta(self) -> float:
        """Failure-to-acquire rate."""
        return self.not_acquired / self.attempts

    @property
    def fte(self) -> float:
        """Failure-to-enrol rate."""
        return self.without / self.subjects


@dataclass(frozen=True)
class Results:
    """All of an evaluation's numbers. excluded, unlabelled: faces that were left out (see
    `labelled_faces.Labels`). missing, duplicates: see `stored_templates.Rows`.
    """

    evaluation: Evaluation
    subjects: int
    faces: int
    excluded: int
    unlabelled: int
    missing: int
    duplicates: int
    faces_a_subject: list[int]
    failures: Failures
    cases: list[CaseResults]

    @property
    def listed(self) -> CaseResults | None:
        """The first case with listed comparisons."""
        return next((case for case in self.cases if case.uncompared), None)

    def folded(self, case: CaseResults) -> Folded:
        """The failures that are included in the rates of one case."""
        lost = case.uncompared
        if lost is None:
            return Folded(self.failures.fta, self.failures.fta, self.failures.fte)
        genuine, impostor = lost.total_genuine, lost.total_impostor
        return Folded(
            fta=genuine / (genuine + case.genuine),
            impostor_fta=impostor / (impostor + case.impostor),
            fte=0.0,
        )


def results(evaluation: Evaluation, sources: Sources) -> Results:
    """Add up all blocks. Bootstraps use the evaluation's own randomness."""
    known = blocks.plan(evaluation, sources)
    labels = known.faces.labels
    return Results(
        evaluation=evaluation,
        subjects=len(labels.subjects),
        faces=len(labels.subject),
        excluded=labels.excluded,
        unlabelled=labels.unlabelled,
        missing=known.rows.missing if known.rows else 0,
        duplicates=known.rows.duplicates if known.rows else 0,
        faces_a_subject=np.bincount(labels.subject).tolist(),
        failures=_failures(known, sources.access),
        cases=[_case(evaluation, sources.store, known, part) for part in known.parts],
    )


def _failures(known: Plan, access: Access | None) -> Failures:
    """Failures of the source; with a table, of its enrolments and of the probes."""
    labels = known.faces.labels
    reasons, attempts = Counter(labels.unusable), len(labels.subject)
    not_acquired = reasons.total()
    subjects, without = len(labels.subjects) + labels.lost, labels.lost
    if access and known.rows:
        lost = losses(access.tables, access.issued.generation)
        reasons.update(lost.failed)
        not_acquired += sum(lost.failed.get(reason, 0) for reason in ACQUISITION)
        attempts = len(known.rows.found.probes) + lost.used
        subjects, without = lost.subjects, lost.without
    return Failures(
        attempts=attempts + reasons.total(),
        reasons=dict(reasons.most_common()),
        not_acquired=not_acquired,
        subjects=subjects,
        without=without,
    )


def _case(evaluation: Evaluation, store: Store, known: Plan, part: Part) -> CaseResults:
    labels, settings = known.faces.labels, evaluation.settings
    table = blocks.matches(evaluation, store, part.blocks)
    sums = blocks.counted(evaluation, store, part.blocks)
    if evaluation.issued and len(sums.lost) == len(part.found.templates):
        raise ProtocolError(
            f"no template of {evaluation.issued.dest} gives back its codeword: the embeddings of "
            f"{evaluation.source} are not those that were enrolled, or of another model"
        )
    errors = Errors(
        genuine=side(table, True),
        impostor=side(table, False),
        subject=labels.subject,
        template=part.found.subject,
        trials=trials_of(part.found, labels, sums.lost),
        rng=evaluation.generator(f"bootstrap {part.case.name}"),
        floor=evaluation.floor,
    )
    genuine_cosines = np.bincount(cosine_bin(errors.genuine["cosine"]), minlength=BINS)
    scores = ScoreCounts(thresholds(), genuine_cosines.astype(np.int64), sums.cosines)
    return CaseResults(
        case=part.case,
        templates=len(part.found.templates) - len(sums.lost),
        lost=len(sums.lost),
        genuine=len(errors.genuine["cosine"]),
        impostor=errors.trials.total,
        scores=scores,
        cosine=[_cosine(errors, scores, target, evaluation.floor) for target in TARGETS],
        protected=[
            _protected(errors, scores, number, setting, tolerance)
            for number, setting in enumerate(settings)
            for tolerance in setting.tolerances
        ],
        groups=list(groups(errors, scores, settings, labels.groups, labels.subjects)),
        agreements={
            setting.name: (
                np.bincount(
                    errors.genuine[f"agreement_{number}"], minlength=sums.agreements.shape[1]
                ).tolist(),
                sums.agreements[number].tolist(),
            )
            for number, setting in enumerate(settings)
        },
        curve=Curve.of(errors.kept, scores),
        uncompared=part.found.uncompared,
    )


def _cosine(errors: Errors, scores: ScoreCounts, target: float, floor: float) -> CosineRow:
    point = scores.at_fmr(target)
    kept = point.threshold >= floor
    above = errors.impostor["cosine"].astype(np.float64) >= point.threshold
    return CosineRow(
        target=target,
        point=point,
        fmr=errors.rate(errors.accepted(above)) if kept else None,
        fnmr=errors.rate(errors.refused_at(point.threshold)),
    )


def _protected(
    errors: Errors, scores: ScoreCounts, number: int, setting: Setting, tolerance: int
) -> ProtectedRow:
    params = replace(setting.params, tolerance=tolerance)
    fmr = errors.rate(errors.accepted(accepts(errors.impostor, number, tolerance)))
    refused = errors.refused(~accepts(errors.genuine, number, tolerance))
    same = scores.at_fmr(fmr.value)
    accepted = scores.accepted(same.threshold)
    return ProtectedRow(
        setting=setting.name,
        params=params,
        encoding=setting.encoding,
        row_bytes=row_bytes(params, setting.encoding),
        fmr=fmr,
        fnmr=errors.rate(refused),
        same=same,
        against=mcnemar(refused, errors.refused_at(same.threshold))
        if accepted >= LEAST_ERRORS
        else None,
    )
