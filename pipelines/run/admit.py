"""Whether a job may add to a destination, and which unfinished run it goes on with."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from typing import Any

from ironmask.errors import MismatchError
from ironmask.params import Params
from pipelines.ports import Tables
from pipelines.spec.template_job import TemplateJob, stored
from pipelines.table import generations
from pipelines.table.run_records import RunRecord, RunState, rows_of_run, runs, traits

_log = logging.getLogger("ironmask.enrol")


def admit(tables: Tables, job: TemplateJob, *, restart: bool = False) -> RunRecord | None:
    """Return the unfinished run of a destination that a job may add to, if there is one.

    restart: that run is about to be closed, so it binds only by what it committed. Raises
    `MismatchError` naming each difference where the job's rows would not fit those there.
    """
    known = runs(tables)
    _refuse_unfinished_generation(tables, job, known)
    for record in known:
        before = traits(record)
        if record.config.get("generation") != job.generation:
            continue
        found = [
            f"{name} is {before[name]} there and {value} here"
            for name, value in job.traits().items()
            if name in before and before[name] != value
        ]
        goes_on = record.state == RunState.RUNNING and not restart
        # Outcomes hold labels as well, whether or not anybody was enrolled.
        mixes = before["pseudonymous"] != job.pseudonymous
        if found and (goes_on or not _is_empty(tables, record, outcomes=mixes)):
            advice = (
                "Use those of the table; to change them for everybody, run `ironmask reprotect` "
                "with the new ones"
            )
            if job.renews is not None:
                advice = "Go on with the same options as then, or give it up with --abandon"
            raise MismatchError(
                f"{tables.dest} was enrolled with other settings: {'; '.join(found)} (now "
                f"{job.params.bits:.1f} bits). {advice}"
            )
    return next((record for record in known if record.state == RunState.RUNNING), None)


def binding(tables: Tables, *, restart: bool = False) -> TemplateJob | None:
    """The newest job whose settings bind what is added to the live generation; None before any.

    restart: as of `admit`.
    """
    number = generations.live(tables)
    for record in reversed(runs(tables)):
        goes_on = record.state == RunState.RUNNING and not restart
        is_own = record.config.get("generation") == number
        if is_own and (goes_on or not _is_empty(tables, record, outcomes=False)):
            return stored(record.config["job"])
    return None


def as_begun(tables: Tables, job: TemplateJob, *, restart: bool) -> TemplateJob:
    """The job; without a test of faces where it goes on with a run that began without any.

    A run of before can then be finished by the command that it was begun with.
    """
    begun = [record for record in runs(tables) if record.state == RunState.RUNNING]
    if restart or job.agreement is None:
        return job
    if all("agreement" in record.config.get("job", {}) for record in begun):
        return job
    _log.warning("the run was begun without --agreement by an earlier release, and ends without it")
    return replace(job, agreement=None, keeps_other_faces=False)


def _refuse_unfinished_generation(tables: Tables, job: TemplateJob, known: list[RunRecord]) -> None:
    """Raise `MismatchError` where another kind of run has to be finished first."""
    for record in known:
        own = record.kind == job.purpose and record.config.get("generation") == job.generation
        if record.state == RunState.RUNNING and not own:
            raise MismatchError(
                f"{tables.dest} holds an unfinished run of another kind, {record.run_id} "
                f"({record.kind}): finish that first with the same command as then"
            )
    found = generations.read(tables)
    halves = [
        one
        for state in (generations.State.PREPARING, generations.State.RETIRED)
        for one in generations.in_state(found, state)
    ]
    if halves and job.renews is None:
        one = halves[0]
        by = max(found.values(), key=lambda other: other.number).purpose
        raise MismatchError(
            f"{tables.dest}: generation {one.number} is {one.state}, so a re-protection has not "
            f"ended: finish it with `ironmask {by}`, or, before its switch, give it up with "
            "`ironmask reprotect --abandon`"
        )


def _is_empty(tables: Tables, record: RunRecord, *, outcomes: bool) -> bool:
    """Whether a run left no row that binds: a template, or with `outcomes` an outcome."""
    names = ("templates", "inputs") if outcomes else ("templates",)
    return not any(rows_of_run(tables, name, record.run_id) for name in names)


def differences(record: RunRecord, job: TemplateJob) -> str:
    """The settings in which a job differs from a run, in brackets; empty where none does."""
    then = dict(record.config.get("job", {}))
    if "params" in then:
        then["params"] = asdict(Params.recorded(then["params"]))
    was = _flat(then)
    now = _flat(json.loads(json.dumps(job.as_dict(), default=str)))
    now = {name: value for name, value in now.items() if name in was or value}
    parts = [
        f"{name}: {was.get(name)} then, {value} now"
        for name, value in now.items()
        if was.get(name) != value
    ]
    return f" ({'; '.join(parts)})" if parts else ""


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of settings beside them, so that only what differs is named."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat
