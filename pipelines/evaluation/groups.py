"""Rates within demographic groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ironmask.comparisons import Setting
from ironmask.metrics import PairCounts, Rate, ScoreCounts, SubjectCounts
from pipelines.evaluation.errors_by_subject import Errors, accepts

Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class GroupRow:
    """Errors among the subjects of one demographic group, at a setting or the cosine's 1e-4."""

    label: str
    group: str
    what: str
    subjects: int
    fmr: Rate
    fnmr: Rate


def groups(
    errors: Errors,
    scores: ScoreCounts,
    settings: Sequence[Setting],
    labels: dict[str, list[str]],
    subjects: list[str],
) -> Iterator[GroupRow]:
    """Rates within each group. Both faces of an impostor comparison belong to the group."""
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
        refused = ~accepts(errors.genuine, number, tolerance)
        accepted = accepts(errors.impostor, number, tolerance)
        judged.append((f"{setting.name} tolerance {tolerance}", refused, accepted))
    for label, of_face in labels.items():
        of_subject = _of_subjects(np.array(of_face), errors.subject, len(subjects))
        for group in sorted(set(of_subject) - {""}):
            yield from _group(errors, label, group, of_subject == group, judged)


def _of_subjects(of_face: NDArray[np.str_], subject: Index, count: int) -> NDArray[np.str_]:
    """The label of each subject, taken from its first face."""
    first = np.searchsorted(subject, np.arange(count))
    return of_face[first]


def _group(
    errors: Errors,
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


def _within(errors: Errors, accepted: NDArray[np.bool_], some: Index) -> PairCounts:
    """Accepted impostors among some subjects, and the comparisons of these subjects only."""
    found = errors.accepted(accepted)
    return PairCounts.of(
        np.searchsorted(some, found.first),
        np.searchsorted(some, found.second),
        found.wrong,
        errors.trials.among(some),
    )
