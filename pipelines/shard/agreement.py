"""Whether the faces of one subject show one person, and what happens to those that do not."""

from __future__ import annotations

from collections.abc import Iterable

from ironmask.agreement import agreeing
from pipelines.shard.context import InputRow, Subject
from pipelines.spec.outcomes import Outcome, Reason
from pipelines.spec.template_job import TemplateJob

_OTHER = "most of the subject's faces are of somebody else: see whose face this is"
_NO_MAJORITY = (
    "the subject's faces are of several people, and no more than half of them are of one: see "
    "whether the source gives each person a name, and its photos to nobody else"
)


def of_one_person(job: TemplateJob, subjects: list[Subject]) -> list[Subject]:
    """Keep the inputs of each subject that agree, and settle the rows of the others.

    Where the job keeps other faces, these stay, and their rows only get the reason.
    """
    bar = job.agreement
    if bar is None:
        return subjects
    return [one for subject in subjects for one in _of_one_person(job, bar, subject)]


def _of_one_person(job: TemplateJob, bar: float, subject: Subject) -> list[Subject]:
    """One subject, or none where no person has the majority."""
    name, rows, vectors = subject
    agree = agreeing(vectors, job.params.n, bar)
    others = [row for row, own in zip(rows, agree, strict=True) if not own]
    if not others:
        return [subject]
    is_majority = len(others) < len(rows)
    reason, detail = (
        (Reason.OTHER_FACE, _OTHER) if is_majority else (Reason.FACES_DISAGREE, _NO_MAJORITY)
    )
    if job.keeps_other_faces:
        _note(others, reason)
        return [subject]
    for row in others:
        row.settle(Outcome.FAILED, reason, detail)
    kept = [row for row, own in zip(rows, agree, strict=True) if own]
    return [(name, kept, vectors[agree])] if is_majority else []


def _note(rows: Iterable[InputRow], reason: Reason) -> None:
    for row in rows:
        row.reason = reason.value
