"""Repair: people whose rows lie in lost data files are enrolled again, and nobody else is touched.

Lost files are taken out of the table first, so that nobody ever has two rows. What became of their
people is in the outcomes, under the seal, so the same command goes on wherever it was broken off:
until somebody has a template again, the next call looks for them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from ironmask.errors import NothingToDoError, SourceError, TableError
from pipelines.plan import from_live
from pipelines.ports import GenerationKeys, Store, Tables
from pipelines.repairing import damage
from pipelines.repairing.damage import Damage
from pipelines.repairing.take_out import take_out
from pipelines.run import admit, begin, draft
from pipelines.run.course import follow
from pipelines.run.summary import Summary
from pipelines.run.template_run import STEPS, TemplateRun
from pipelines.spec.template_job import TemplateJob
from pipelines.table import contents, waves
from pipelines.table.held import Destination
from pipelines.table.text_set import TextSet

_log = logging.getLogger("ironmask.repair")
_NAMED = 3


@dataclass(frozen=True)
class Repaired:
    """What a repair did. files: of templates that were lost. lost: people who had no template when
    it began; enrolled: those of them who have one now; without: those who have none. embeddings: of
    the vault that were lost. summary: of the run that enrolled them, where there was one.
    """

    dest: str
    files: int
    lost: int
    enrolled: int
    without: int
    embeddings: int
    summary: Summary | None

    @property
    def shortfall(self) -> str:
        """What is not as it was, in one line; empty where everything is."""
        failed = self.summary.failed if self.summary else 0
        if not (self.without or failed or self.embeddings):
            return ""
        return (
            f"{self.without:,} people are without a template still, {failed:,} inputs failed, "
            f"{self.embeddings:,} embeddings are gone from the vault; "
            f"see `ironmask failures {self.dest}`"
        )


@dataclass(frozen=True)
class Outlook:
    """What a repair would do. files: the lost ones of templates; lost: people without a template;
    listed: those of them whom the source has inputs of. embeddings: of lost files of the vault.
    """

    dest: str
    settings: str
    files: list[str]
    lost: int
    listed: int
    embeddings: int


def repair(run: TemplateRun) -> Repaired:
    """Do the whole job, or continue it where it was left off.

    Raises `TableError` where something is lost that cannot be made anew, `SourceError` where the
    source has nobody of those who would be taken out; then nothing is changed.
    """
    job, dest = run.job, run.dest
    unfinished = admit.admit(dest.tables, job, restart=run.restart)
    if unfinished and run.restart:
        begin.give_up(dest, unfinished)
        unfinished = None
    found = Damage() if unfinished else damage.find(dest.tables, dest.store)
    if found:
        _refuse(job, found, dest)
        take_out(dest, found)
        _log.info("taken out", extra={"files": len(found.templates)})
    before = contents.lost_people(dest.tables, job.generation)
    summary = _enrol(run) if unfinished or len(before.gone) else None
    if summary is None:
        dest.log_seal.end()
    after = contents.lost_people(dest.tables, job.generation)
    return Repaired(
        dest=job.dest,
        files=len(found.templates),
        lost=len(before.gone),
        enrolled=len(before.gone) - len(after.gone),
        without=len(after.gone),
        embeddings=found.embeddings,
        summary=summary,
    )


def _enrol(run: TemplateRun) -> Summary | None:
    """Enrol who lost their template; None where the source has nobody of them."""
    try:
        return follow(STEPS, replace(run, restart=False)).summary
    except NothingToDoError:
        return None


def _refuse(job: TemplateJob, found: Damage, dest: Destination) -> None:
    refuse_others(dest.tables, found)
    if not found.templates:
        return
    people = _people(dest.tables, dest.store, found)
    inputs = draft.listed(job, dest.store, dest.keys, own=dest.own)
    of_them = from_live.of_people(inputs, people)
    if len(people) and not any(_waiting(batch) for batch in of_them):
        raise SourceError(
            f"{job.source} has nothing of the {len(people):,} people whose templates are lost, so "
            "nothing was changed: name where their inputs are with --source"
        )


def refuse_others(tables: Tables, found: Damage) -> None:
    """Raise `TableError` where something is lost that no source can bring again."""
    if found.others:
        more = len(found.others) - _NAMED
        names = ", ".join(found.others[:_NAMED]) + (f" and {more:,} others" if more > 0 else "")
        raise TableError(
            f"{tables.dest}: what {names} held cannot be made anew from any source, for outcomes, "
            "runs, rates and generations are records: restore them from a backup, and repair the "
            "rest then"
        )


def _people(tables: Tables, store: Store, found: Damage) -> TextSet:
    """Whose rows cannot be had from lost files of templates."""
    by_attempt = waves.by_attempt(tables, store)
    lost = (damage.examined(tables, store, path, by_attempt).people for path in found.templates)
    names = sorted(set(chain.from_iterable(lost)))
    return TextSet([pa.array(names, pa.string())])


def _waiting(batch: pa.Table) -> list[str]:
    """The people of inputs that there is work for."""
    names: list[str] = pc.unique(
        batch.filter(pc.is_null(batch["outcome"]))["subject_id"]
    ).to_pylist()
    return names


def foresee(job: TemplateJob, tables: Tables, store: Store, keys: GenerationKeys) -> Outlook:
    """Say what a repair would do, writing nothing. Raises as `repair` does."""
    found = damage.find(tables, store)
    refuse_others(tables, found)
    if found.templates:
        people = _people(tables, store, found)
    else:
        people = contents.lost_people(tables, job.generation).gone
    of_them = from_live.of_people(draft.listed(job, store, keys), people)
    names = TextSet(pa.array(_waiting(batch), pa.large_string()) for batch in of_them)
    return Outlook(
        dest=job.dest,
        settings=job.describe(),
        files=found.templates,
        lost=len(people),
        listed=len(names),
        embeddings=found.embeddings,
    )
