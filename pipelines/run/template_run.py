"""A run that makes templates: plan, run and commit, report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pipelines.plan.plans import Plan
from pipelines.run import steps
from pipelines.run.begin import prepare_plan
from pipelines.run.course import Step, Watch
from pipelines.run.steps import Executor
from pipelines.run.summary import Summary, Tally
from pipelines.spec.template_job import TemplateJob
from pipelines.table.held import Destination


@dataclass
class TemplateRun:
    """A run under way, or the rest of one that was broken off, in a destination that is held.

    restart: close an unfinished run as it stands and plan afresh what it left. frozen, tally,
    resumed, summary: what the steps have found.
    """

    job: TemplateJob
    dest: Destination
    executor: Executor
    watch: Watch = field(default_factory=Watch)
    restart: bool = False
    timer: steps.Timer = field(default_factory=steps.Timer)
    frozen: Plan = field(init=False)
    tally: Tally = field(init=False)
    resumed: int = field(init=False)
    summary: Summary = field(init=False)

    def plan(self) -> None:
        """Find the plan of an unfinished run, or freeze a new one.

        Raises `NothingToDoError` where nothing is left to retry.
        """
        told = self.watch.told
        self.frozen = prepare_plan(self.job, self.dest, restart=self.restart, told=told)

    def run(self) -> None:
        """Make the templates that are not committed yet."""
        self.tally, self.resumed = steps.run(
            self.job, self.frozen, self.dest, self.executor, self.watch.progress
        )

    def report(self) -> None:
        """Check the counts, and record the run."""
        seconds = self.timer.seconds()
        self.summary = steps.report(
            self.job, self.frozen, self.tally, self.resumed, self.dest, seconds
        )


STEPS: Final = (
    Step("plan", TemplateRun.plan),
    Step("run and commit", TemplateRun.run, again=True),
    Step("report", TemplateRun.report),
)
