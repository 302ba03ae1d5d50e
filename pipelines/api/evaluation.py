"""Evaluation as a verb: compare, report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Unpack

from pipelines.api.options import EvaluateOptions, refuse_others
from pipelines.evaluation import job
from pipelines.evaluation.cost import Spent
from pipelines.evaluation.job import CheckedEvaluation
from pipelines.evaluation.request import EvaluateRequest
from pipelines.evaluation.results import Results
from pipelines.report import page
from pipelines.report.headline import headline
from pipelines.run.course import Counting, Step, Take, directly, follow, uncounted
from pipelines.spec.options import assembled


@dataclass
class Evaluation:
    """An evaluation under way, or one that is done.

    results: every rate, with its counts and interval. spent: what protection costs on this machine.
    files: addresses of the report, first, and of its tables.
    """

    request: EvaluateRequest = field(repr=False)
    prepared: CheckedEvaluation = field(repr=False)
    progress: Counting = field(default=uncounted, repr=False)
    results: Results = field(init=False, repr=False)
    spent: Spent = field(init=False, repr=False)
    files: list[str] = field(init=False)

    @property
    def headline(self) -> str:
        """What protection costs, in one sentence."""
        return headline(self.results)

    def compare(self) -> None:
        """Run the blocks that are left, and add everything up."""
        with job.opened(self.request, self.prepared) as engine:
            self.results = job.run(self.prepared, engine, self.progress)

    def report(self) -> None:
        """Write the report, its tables, and the rates of the table that was evaluated."""
        self.spent = job.measure(self.prepared)
        self.files = page.write(self.results, self.spent, self.prepared.sources.store)
        job.write_rates(self.prepared, self.results)


STEPS: Final = (
    Step("compare", Evaluation.compare, again=True),
    Step("report", Evaluation.report),
)


def evaluate(source: str, out: str, **options: Unpack[EvaluateOptions]) -> Evaluation:
    """Say what protection costs: genuine and impostor comparisons with it and without.

    source: a Parquet of embeddings. out: a folder or `s3://` prefix for the report and its tables.
    An unfinished evaluation is continued; the result is the same for any number of workers.

    Raises `ParameterError`, `SourceError` and `ProtocolError` for what cannot be evaluated,
    `MismatchError` where `out` holds another evaluation.

    >>> evaluate("embeddings.parquet", "evaluation/").headline  # doctest: +SKIP
    """
    refuse_others(options, EvaluateOptions)
    request = assembled(EvaluateRequest, {"source": source, "out": out, **options})
    return carry_out(request, job.prepare(request))


def carry_out(
    request: EvaluateRequest,
    prepared: CheckedEvaluation,
    progress: Counting = uncounted,
    take: Take = directly,
) -> Evaluation:
    """Do an evaluation that is checked already. take: takes each of its steps."""
    return follow(STEPS, Evaluation(request, prepared, progress), take)
