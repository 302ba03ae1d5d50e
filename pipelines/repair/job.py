"""Repair: people whose rows lie in lost data files are enrolled again, and nobody else is touched.

Lost files are taken out of the table first, so that nobody ever has two rows. What became of their
people is in the outcomes, under the seal, so the same command goes on wherever it was broken off:
until somebody has a template again, the next call looks for them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from ironmask.errors import NothingToDoError, SourceError, TableError
from pipelines.plan import from_live
from pipelines.ports import GenerationKeys, Store, Tables
from pipelines.repair import damage
from pipelines.repair.damage import Damage
from pipelines.repair.take_out import take_out
from pipelines.run import admit, begin, draft, steps
from pipelines.run.steps import Executor, Progress, quiet
from pipelines.run.summary import Summary
from pipelines.spec.template_job import TemplateJob
from pipelines.table import contents
from pipelines.table.held import Destination
from pipelines.table.text_set import TextSet

_log = logging.getLogger("ironmask.repair")
_NAMED = 3


@dataclass(frozen=True)
class HeldRepair:
    """A destination that this process repairs. restart: an unfinished repair is closed first."""

    job: TemplateJob
    dest: Destination
    executor: Executor
    restart: bool = False


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


def repair(held: HeldRepair, progress: Progress = quiet) -> Repaired:
    """Do the whole job, or continue it where it was left off.

    Raises `TableError` where something is lost that cannot be made anew, `SourceError` where the
    source has nobody of those who would be taken out; then nothing is changed.
    """
    timer = steps.Timer()
    job, dest = held.job, held.dest
    unfinished = admit.admit(dest.tables, job, restart=held.restart)
    if unfinished and held.restart:
        begin.give_up(dest, unfinished)
        unfinished = None
    found = Damage() if unfinished else damage.find(dest.tables, dest.store)
    if found:
        _refuse(job, found, dest)
        take_out(dest, found)
        _log.info("taken out", extra={"files": len(found.templates)})
    before = contents.lost_people(dest.tables, job.generation)
    summary = _enrol(held, progress, timer) if unfinished or len(before.gone) else None
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


def _enrol(held: HeldRepair, progress: Progress, timer: steps.Timer) -> Summary | None:
    """Enrol who lost their template; None where the source has nobody of them."""
    job, dest = held.job, held.dest
    try:
        frozen = begin.prepare_plan(job, dest)
    except NothingToDoError:
        return None
    tally, resumed = steps.run(job, frozen, dest, held.executor, progress)
    return steps.report(job, frozen, tally, resumed, dest, timer.seconds())


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
    by_attempt = damage.inputs_by_attempt(tables)
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
