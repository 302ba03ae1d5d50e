"""Enrolment: plan, run, commit, report."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.plan.census import Census
from pipelines.run.begin import prepare_plan
from pipelines.run.steps import Executor, Progress, Timer, quiet, report, run
from pipelines.run.summary import Summary
from pipelines.spec.template_job import TemplateJob
from pipelines.table.held import Destination


def enrol(
    job: TemplateJob,
    dest: Destination,
    executor: Executor,
    progress: Progress = quiet,
    *,
    restart: bool = False,
    told: Callable[[Census], None] = Census.log,
) -> Summary:
    """Do the whole job, or continue it where an unfinished run left off.

    restart: close an unfinished run as it stands and plan afresh what it left. told: called with
    what the source looks like, once a new run has planned it.
    """
    timer = Timer()
    frozen = prepare_plan(job, dest, restart=restart, told=told)
    tally, resumed = run(job, frozen, dest, executor, progress)
    return report(job, frozen, tally, resumed, dest, timer.seconds())
