"""What a run did: running totals, the checked summary at its end, and its metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from ironmask.errors import CountError
from pipelines.plan.plans import Plan
from pipelines.ports import Tables
from pipelines.shard.context import ShardResult
from pipelines.spec.outcomes import ACQUISITION, Outcome, Reason
from pipelines.spec.template_job import TemplateJob
from pipelines.table.contents import people_by_disagreement
from pipelines.table.data_files import together
from pipelines.table.held import Destination
from pipelines.table.run_records import rows_of_run
from pipelines.table.schemas import METRICS

_TRIED: Final = pa.array([Outcome.USED.value, Outcome.FAILED.value, Outcome.DUPLICATE.value])


@dataclass
class Tally:
    """Running totals of one call. before: inputs that earlier calls of the run had committed.

    committed: inputs that this call has committed, among those that it has done. excluded: why a
    node of the cluster got no work, by what people know it as.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    enrolled: int = 0
    bytes_written: int = 0
    timings: dict[str, float] = field(default_factory=dict)
    before: int = 0
    shards: int = 0
    committed: int = 0
    excluded: dict[str, str] = field(default_factory=dict)

    def add(self, result: ShardResult) -> None:
        self.outcomes += result.outcomes
        self.shards += 1
        self.enrolled += result.enrolled
        self.bytes_written += sum(file.size for file in result.files.values())
        for name, seconds in result.timings.items():
            self.timings[name] = self.timings.get(name, 0.0) + seconds

    def of(self, outcome: Outcome) -> int:
        """Inputs that ended so."""
        return sum(count for (found, _), count in self.outcomes.items() if found == outcome)

    @property
    def inputs(self) -> int:
        return sum(self.outcomes.values())


# Flat, since runs keep it field by field, and releases of before read it so.
@dataclass(frozen=True)
class Summary:
    """What a finished run did, in counts and seconds; safe to log and to keep anywhere.

    disagreement: people with faces that are not theirs, by reason. excluded_nodes: why a node of
    the cluster got no work, or got none for a time.
    """

    run_id: str
    dest: str
    settings: str
    inputs: int
    used: int
    failed: int
    duplicate: int
    skipped: int
    reasons: dict[str, int]
    subjects_enrolled: int
    subjects_not_enrolled: int
    disagreement: dict[str, int]
    resumed_shards: int
    orphans_destroyed: int
    bytes_written: int
    seconds: float
    stage_seconds: dict[str, float]
    excluded_nodes: dict[str, str] = field(default_factory=dict)

    @property
    def served_nobody(self) -> bool:
        """Whether nobody has a template for it: neither by this run nor from before it."""
        return not (self.subjects_enrolled or self.reasons.get(Reason.ALREADY_ENROLLED))

    def shortfall(self, max_failures: int) -> str:
        """Why an enrolment is not what was asked for, in one line; empty where it is."""
        if self.failed > max_failures:
            return f"{self.failed:,} inputs failed; see `ironmask failures {self.dest}`"
        if self.served_nobody:
            return f"nobody could be enrolled; see `ironmask inspect {self.dest}`"
        return ""


def summarise(
    job: TemplateJob,
    frozen: Plan,
    tally: Tally,
    resumed: int,
    orphans: int,
    tables: Tables,
    seconds: float,
) -> Summary:
    """Count what the log lists of a run.

    Raises `CountError` where that is not the plan, or people of whom inputs were used have no
    template.
    """
    found = _Counts()
    columns = ["run_id", "subject_id", "outcome", "reason"]
    for rows in together(tables.table("inputs").batches(columns, [frozen.run_id])):
        found.add(rows.filter(pc.equal(rows["run_id"], frozen.run_id)))
    outcomes = found.outcomes
    if outcomes.total() != frozen.inputs:
        raise CountError(
            f"{job.dest}: run {frozen.run_id} planned {frozen.inputs:,} inputs and has outcomes "
            f"for {outcomes.total():,}; it is not recorded as complete"
        )
    enrolled = rows_of_run(tables, "templates", frozen.run_id)
    if found.people != enrolled:
        raise CountError(
            f"{job.dest}: run {frozen.run_id} has {found.people:,} people of whom inputs were used "
            f"and {enrolled:,} templates; it is not recorded as complete: restore the table from a "
            "backup of before it"
        )
    by_outcome, reasons = Counter[str](), Counter[str]()
    for (outcome, reason), count in outcomes.items():
        by_outcome[outcome] += count
        if reason:
            reasons[reason] += count
    return Summary(
        run_id=frozen.run_id,
        dest=job.dest,
        settings=job.describe(),
        inputs=frozen.inputs,
        **{outcome.value: by_outcome[outcome.value] for outcome in Outcome},
        reasons=dict(sorted(reasons.items())),
        subjects_enrolled=enrolled,
        subjects_not_enrolled=found.without_template,
        disagreement=dict(found.disagreement),
        resumed_shards=resumed,
        orphans_destroyed=orphans,
        bytes_written=tally.bytes_written,
        seconds=seconds,
        stage_seconds={name: round(value, 3) for name, value in tally.timings.items()},
        excluded_nodes=tally.excluded,
    )


@dataclass
class _Counts:
    """Counts over the outcomes of a run, some files at a time: one has all inputs of a subject.

    people: subjects of whom an input was used. without_template: those of whom none was, the
    numerator of the failure-to-enrol rate. disagreement: subjects, by reason.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    people: int = 0
    without_template: int = 0
    disagreement: Counter[str] = field(default_factory=Counter)

    def add(self, rows: pa.Table) -> None:
        """Take in all outcomes of some files."""
        grouped = rows.group_by(["outcome", "reason"]).aggregate([([], "count_all")])
        for row in grouped.to_pylist():
            self.outcomes[row["outcome"], row["reason"]] += row["count_all"]
        named = pc.not_equal(rows["subject_id"], "")
        tried = rows.filter(pc.and_(pc.is_in(rows["outcome"], _TRIED), named))
        subjects = tried.group_by("subject_id").aggregate([("outcome", "max")])
        # The last of these words, by the alphabet, is the one of an input that was used.
        used = pc.sum(pc.equal(subjects["outcome_max"], Outcome.USED.value)).as_py() or 0
        self.people += used
        self.without_template += len(subjects) - used
        self.disagreement.update(people_by_disagreement(rows))


def write_metrics(dest: Destination, summary: Summary) -> None:
    """Record the rates of a run, once however often it ends."""
    not_acquired = sum(summary.reasons.get(reason, 0) for reason in ACQUISITION)
    subjects = summary.subjects_enrolled + summary.subjects_not_enrolled
    rates = {
        "failure_to_acquire": (not_acquired, summary.used + summary.failed),
        "failure_to_enrol": (summary.subjects_not_enrolled, subjects),
    }
    rows = [
        {
            "run_id": summary.run_id,
            "name": name,
            "label": "enrolment",
            "value": errors / trials if trials else 0.0,
            "numerator": errors,
            "denominator": trials,
            "at": datetime.now(UTC),
        }
        for name, (errors, trials) in rates.items()
    ]
    once = f"{summary.run_id}/metrics"
    dest.append("metrics", pa.Table.from_pylist(rows, METRICS), once)
