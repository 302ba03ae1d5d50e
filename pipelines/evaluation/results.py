"""From the blocks' numbers to rates with intervals: all that a report says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ironmask.comparisons import BINS, Setting, cosine_bin, thresholds
from ironmask.metrics import (
    Counts,
    Difference,
    OperatingPoint,
    PairCounts,
    Rate,
    ScoreCounts,
    SubjectCounts,
    Trials,
    mcnemar,
    rate,
)
from ironmask.params import Params
from ironmask.template import row_bytes
from pipelines.evaluation import blocks
from pipelines.evaluation.job import Evaluation
from pipelines.evaluation.protocol import trials as trials_of
from pipelines.ports import Store

TARGETS: Final = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class CosineRow:
    """The recogniser alone at the lowest threshold whose FMR is at most `target`.

    fmr, fnmr: with intervals; fmr is None where impostors of this threshold were not kept.
    """

    target: float
    point: OperatingPoint
    fmr: Rate | None
    fnmr: Rate


@dataclass(frozen=True, slots=True)
class ProtectedRow:
    """One setting and tolerance. against: FNMR less the recogniser's own at no higher an FMR."""

    setting: str
    params: Params
    encoding: str
    row_bytes: int
    fmr: Rate
    fnmr: Rate
    same: OperatingPoint
    against: Difference


@dataclass(frozen=True, slots=True)
class GroupRow:
    """Errors among the subjects of one demographic group, at a setting or the cosine's 1e-4."""

    label: str
    group: str
    what: str
    subjects: int
    fmr: Rate
    fnmr: Rate


@dataclass(frozen=True)
class Results:
    """All of an evaluation's numbers. agreements: genuine and sampled impostors by setting."""

    evaluation: Evaluation
    subjects: int
    faces: int
    templates: int
    excluded: int
    unusable: int
    faces_a_subject: list[int]
    genuine: int
    impostor: int
    scores: ScoreCounts = field(repr=False)
    cosine: list[CosineRow]
    protected: list[ProtectedRow]
    groups: list[GroupRow]
    agreements: dict[str, tuple[list[int], list[int]]] = field(repr=False)


def results(evaluation: Evaluation, store: Store) -> Results:
    """Add up all blocks. The randomness of bootstraps is the evaluation's own."""
    known = blocks.plan(evaluation, store)
    labels = known.faces.labels
    numbers = known.blocks(evaluation.block)
    table = blocks.matches(evaluation, store, numbers)
    sums = [sum(parts) for parts in zip(*blocks.counted(evaluation, store, numbers), strict=True)]
    errors = _Errors(
        genuine=_side(table, True),
        impostor=_side(table, False),
        subject=labels.subject,
        template=known.found.subject,
        trials=trials_of(known.found, labels),
        rng=evaluation.generator("bootstrap"),
    )
    genuine_cosines = np.bincount(cosine_bin(errors.genuine["cosine"]), minlength=BINS)
    scores = ScoreCounts(thresholds(), genuine_cosines.astype(np.int64), sums[0])
    settings = evaluation.settings
    return Results(
        evaluation=evaluation,
        subjects=len(labels.subjects),
        faces=len(labels.subject),
        templates=len(known.found.templates),
        excluded=labels.excluded,
        unusable=labels.unusable,
        faces_a_subject=np.bincount(labels.subject).tolist(),
        genuine=len(errors.genuine["cosine"]),
        impostor=errors.trials.total,
        scores=scores,
        cosine=[_cosine(errors, scores, target, evaluation.floor) for target in TARGETS],
        protected=[
            _protected(errors, scores, number, setting, tolerance)
            for number, setting in enumerate(settings)
            for tolerance in range(setting.params.tolerance + 1)
        ],
        groups=list(_groups(errors, scores, settings, labels.groups, labels.subjects)),
        agreements={
            setting.name: (
                np.bincount(
                    errors.genuine[f"agreement_{number}"], minlength=len(sums[1][0])
                ).tolist(),
                sums[1][number].tolist(),
            )
            for number, setting in enumerate(settings)
        },
    )


@dataclass(frozen=True)
class _Errors:
    """Kept comparisons by column, and what errors among them mean for their subjects."""

    genuine: dict[str, NDArray[Any]]
    impostor: dict[str, NDArray[Any]]
    subject: Index
    template: Index
    trials: Trials
    rng: np.random.Generator

    def refused(self, is_error: NDArray[np.bool_]) -> SubjectCounts:
        """Genuine comparisons that are errors, by subject."""
        owner = self.template[self.genuine["template"]]
        possible = np.bincount(owner, minlength=self.trials.subjects)
        wrong = np.bincount(owner[is_error], minlength=self.trials.subjects)
        return SubjectCounts.of(wrong, possible)

    def accepted(self, is_error: NDArray[np.bool_]) -> PairCounts:
        """Impostor comparisons that are errors, by pair of subjects."""
        first = self.template[self.impostor["template"][is_error]]
        second = self.subject[self.impostor["probe"][is_error]]
        return PairCounts.of(first, second, np.ones(len(first), dtype=int), self.trials)

    def rate(self, counts: Counts) -> Rate:
        return rate(counts, self.rng)

    def refused_at(self, threshold: float) -> SubjectCounts:
        return self.refused(self.genuine["cosine"].astype(np.float64) < threshold)


def _side(table: pa.Table, genuine: bool) -> dict[str, NDArray[Any]]:
    some = table.filter(pc.equal(table["genuine"], genuine))
    return {name: some[name].to_numpy() for name in some.column_names}


def _cosine(errors: _Errors, scores: ScoreCounts, target: float, floor: float) -> CosineRow:
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
    errors: _Errors, scores: ScoreCounts, number: int, setting: Setting, tolerance: int
) -> ProtectedRow:
    params = Params(setting.params.n, setting.params.alpha, tolerance)
    fmr = errors.rate(errors.accepted(_accepts(errors.impostor, number, tolerance)))
    refused = errors.refused(~_accepts(errors.genuine, number, tolerance))
    same = scores.at_fmr(fmr.value)
    return ProtectedRow(
        setting=setting.name,
        params=params,
        encoding=setting.encoding,
        row_bytes=row_bytes(params, setting.encoding),
        fmr=fmr,
        fnmr=errors.rate(refused),
        same=same,
        against=mcnemar(refused, errors.refused_at(same.threshold)),
    )


def _accepts(side: dict[str, NDArray[Any]], number: int, tolerance: int) -> NDArray[np.bool_]:
    """Comparisons that a setting accepts at a tolerance."""
    bits: NDArray[np.bool_] = (side[f"tolerances_{number}"] >> tolerance) & 1 == 1
    return bits


def _groups(
    errors: _Errors,
    scores: ScoreCounts,
    settings: Sequence[Setting],
    groups: dict[str, list[str]],
    subjects: list[str],
) -> Iterator[GroupRow]:
    """Rates within each group: both faces of an impostor comparison belong to it."""
    threshold = scores.at_fmr(1e-4).threshold
    judged = [
        (
            "cosine",
            errors.genuine["cosine"].astype(np.float64) < threshold,
            errors.impostor["cosine"].astype(np.float64) >= threshold,
        )
    ]
    for number, setting in enumerate(settings):
        tolerance = setting.params.tolerance
        refused = ~_accepts(errors.genuine, number, tolerance)
        accepted = _accepts(errors.impostor, number, tolerance)
        judged.append((f"{setting.name} tolerance {tolerance}", refused, accepted))
    for label, of_face in groups.items():
        of_subject = _of_subjects(np.array(of_face), errors.subject, len(subjects))
        for group in sorted(set(of_subject) - {""}):
            yield from _group(errors, label, group, of_subject == group, judged)


def _of_subjects(of_face: NDArray[np.str_], subject: Index, count: int) -> NDArray[np.str_]:
    """The label of each subject: that of its first face."""
    first = np.searchsorted(subject, np.arange(count))
    return of_face[first]


def _group(
    errors: _Errors,
    label: str,
    group: str,
    inside: NDArray[np.bool_],
    judged: list[tuple[str, NDArray[np.bool_], NDArray[np.bool_]]],
) -> Iterator[GroupRow]:
    weights = inside.astype(np.float64)[None]
    trials = int(errors.trials.of_subjects(weights)[0] @ weights[0]) // 2
    owner = errors.template[errors.genuine["template"]]
    pair = (
        inside[errors.template[errors.impostor["template"]]]
        & inside[errors.subject[errors.impostor["probe"]]]
    )
    possible = np.bincount(owner[inside[owner]], minlength=len(inside))
    if not trials or not possible.any():
        return
    for what, refused, accepted in judged:
        wrong = np.bincount(owner[refused & inside[owner]], minlength=len(inside))
        some = np.flatnonzero(inside)
        by_subject = SubjectCounts.of(wrong[some], possible[some])
        yield GroupRow(
            label=label,
            group=group,
            what=what,
            subjects=len(some),
            fmr=errors.rate(_within(errors, accepted & pair, some)),
            fnmr=errors.rate(by_subject),
        )


def _within(errors: _Errors, accepted: NDArray[np.bool_], some: Index) -> PairCounts:
    """Accepted impostors among some subjects, with the comparisons of those alone."""
    found = errors.accepted(accepted)
    return PairCounts.of(
        np.searchsorted(some, found.first),
        np.searchsorted(some, found.second),
        found.wrong,
        errors.trials.among(some),
    )
