"""Enrolment: plan, run, commit, report."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from ironmask.digest import digest_bytes
from ironmask.errors import CountError, MismatchError
from ironmask.helper import encoding
from pipelines import layout, ledger, plan, sources
from pipelines.commit import Committer
from pipelines.job import EnrolJob, digest, versions
from pipelines.plan import Plan
from pipelines.ports import Store, Tables
from pipelines.records import METRICS, RUNS, Outcome, Reason
from pipelines.stages import ShardResult

_log = logging.getLogger("ironmask.enrol")
WAVE_SHARDS: Final = 16
WAVE_SECONDS: Final = 30.0
_RUNNING, _COMPLETE = "running", "complete"
# Failures to acquire: the image is sound, but no usable face was found in it.
_ACQUIRE: Final = frozenset(
    {
        Reason.NO_FACE,
        Reason.SEVERAL_FACES,
        Reason.FACE_TOO_SMALL,
        Reason.FACE_BLURRED,
        Reason.LOW_QUALITY,
    }
)


class Executor(Protocol):
    """Runs the stages over shards, anywhere, in any order."""

    def run(self, job: EnrolJob, plan: Plan, shards: Iterable[int]) -> Iterator[ShardResult]: ...


@dataclass
class Tally:
    """Running totals of one run."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    enrolled: int = 0
    not_enrolled: int = 0
    shards: int = 0
    bytes_written: int = 0
    timings: Counter[str] = field(default_factory=Counter)

    def add(self, result: ShardResult) -> None:
        self.outcomes += result.outcomes
        self.enrolled += result.enrolled
        self.not_enrolled += result.not_enrolled
        self.shards += 1
        self.bytes_written += sum(file.size for file in result.files.values())
        for name, seconds in result.timings.items():
            self.timings[name] += seconds  # type: ignore[assignment]

    def of(self, outcome: Outcome) -> int:
        """Inputs that ended so."""
        return sum(count for (found, _), count in self.outcomes.items() if found == outcome)

    @property
    def inputs(self) -> int:
        return sum(self.outcomes.values())


@dataclass(frozen=True)
class Summary:
    """What a finished run did, in counts and seconds; safe to log and to keep anywhere."""

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
    resumed_shards: int
    orphans_destroyed: int
    bytes_written: int
    seconds: float
    stage_seconds: dict[str, float]


class Timer:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self._start


@dataclass(frozen=True)
class Forecast:
    """What a run would do."""

    dest: str
    settings: str
    inputs: int
    subjects: int
    shards: int
    todo: int
    reasons: dict[str, int]
    template_bytes: int


Progress = Callable[[Plan, Tally], None]


def quiet(_plan: Plan, _tally: Tally) -> None:
    """No progress display."""


def enrol(
    job: EnrolJob,
    tables: Tables,
    store: Store,
    executor: Executor,
    progress: Progress = quiet,
) -> Summary:
    """Do the whole job, or continue it where an unfinished run left off.

    The caller holds the destination's lease and has made the tables and keys.
    """
    timer = Timer()
    frozen = prepare_plan(job, tables, store)
    tally, resumed = run(job, frozen, tables, store, executor, progress)
    return report(job, frozen, tally, resumed, tables, store, timer.seconds())


def prepare_plan(job: EnrolJob, tables: Tables, store: Store) -> Plan:
    """Return the plan of an unfinished run of the same job, or freeze a new one."""
    ledger.check_shapes(tables, job)
    for record in ledger.runs(tables):
        if record.kind == "enrol" and record.state == _RUNNING:
            return _resume(job, record, tables, store)
    run_id = secrets.token_hex(6)
    # Files of a run that died before its plan was known belong to nobody.
    Committer(tables, store, run_id).destroy_orphans()
    table = draft(job, tables, store)
    uri = layout.plan_file(job.dest, run_id)
    frozen = plan.write(table, run_id, uri, _facts(job), store)
    _record(tables, frozen, job, _RUNNING, {}, {})
    _log.info("planned", extra={"run_id": run_id, "inputs": frozen.inputs, "shards": frozen.shards})
    return frozen


def draft(job: EnrolJob, tables: Tables | None, store: Store) -> pa.Table:
    """Arrange the plan's rows without writing anything; no tables means an empty destination."""
    live, used = pa.array([], pa.string()), pa.array([], pa.string())
    if tables is not None:
        live = ledger.live_subjects(tables, job.generation)
        used = ledger.used_contents(tables)
    return plan.build(sources.read(job.source, job.kind, store), live, used, job.shard_size)


def forecast(job: EnrolJob, tables: Tables | None, store: Store) -> Forecast:
    """Say what `enrol` would do, writing nothing."""
    table = draft(job, tables, store)
    open_rows = table.filter(pc.is_null(table["outcome"]))
    subjects = pc.count_distinct(open_rows["subject_id"]).as_py()
    row_bytes = encoding(job.encoding).nbytes(job.params.n) + digest_bytes(job.params)
    reasons = pc.value_counts(table["reason"].combine_chunks()).to_pylist()
    return Forecast(
        dest=job.dest,
        settings=job.describe(),
        inputs=len(table),
        subjects=subjects,
        shards=pc.max(table["shard"]).as_py() + 1,
        todo=len(open_rows),
        reasons={item["values"]: item["counts"] for item in reasons if item["values"]},
        template_bytes=subjects * row_bytes,
    )


def fingerprint(job: EnrolJob, plan_digest: str) -> dict[str, str]:
    """What must not change between the start of a run and its resumption, part by part."""
    settings = job.as_dict()
    model = settings.pop("model")
    return {
        "configuration": digest(settings),
        "model": model,
        "code": digest(versions()),
        "plan": plan_digest,
    }


def _facts(job: EnrolJob) -> dict[str, Any]:
    return {"settings": job.describe(), "versions": versions()}


def _resume(job: EnrolJob, record: ledger.RunRecord, tables: Tables, store: Store) -> Plan:
    uri = layout.plan_file(job.dest, record.run_id)
    frozen, _ = plan.load(uri, store)
    now = fingerprint(job, frozen.digest)
    changed = [name for name, value in now.items() if record.fingerprint.get(name) != value]
    if changed:
        details = _setting_changes(record.config, job)
        raise MismatchError(
            f"{tables.dest} holds the unfinished run {record.run_id}, started with another "
            f"{' and '.join(changed)}{details}: continue it with what it was started with"
        )
    return frozen


def _setting_changes(before: dict[str, Any], job: EnrolJob) -> str:
    was = before.get("job", {})
    now = json.loads(json.dumps(job.as_dict(), default=str))
    parts = [
        f"{name}: {was.get(name)} then, {value} now"
        for name, value in now.items()
        if was.get(name) != value
    ]
    return f" ({'; '.join(parts)})" if parts else ""


def run(
    job: EnrolJob,
    frozen: Plan,
    tables: Tables,
    store: Store,
    executor: Executor,
    progress: Progress = quiet,
) -> tuple[Tally, int]:
    """Execute the shards that the log does not list yet; commit them in waves.

    Returns this call's totals, and how many shards earlier calls had committed.
    """
    committer = Committer(tables, store, frozen.run_id)
    done = committer.done()
    orphans = committer.destroy_orphans()
    _log.info(
        "started",
        extra={"run_id": frozen.run_id, "shards_done": len(done), "orphans_destroyed": orphans},
    )
    tally = Tally()
    wave: list[ShardResult] = []
    last = time.monotonic()
    todo = (shard for shard in range(frozen.shards) if shard not in done)
    progress(frozen, tally)
    for result in executor.run(job, frozen, todo):
        wave.append(result)
        if len(wave) >= WAVE_SHARDS or time.monotonic() - last >= WAVE_SECONDS:
            committer.commit(wave)
            _log.info("wave committed", extra={"run_id": frozen.run_id, "shards": len(wave)})
            wave, last = [], time.monotonic()
        tally.add(result)
        progress(frozen, tally)
    committer.commit(wave)
    return tally, len(done)


def report(
    job: EnrolJob,
    frozen: Plan,
    tally: Tally,
    resumed: int,
    tables: Tables,
    store: Store,
    seconds: float,
) -> Summary:
    """Check the counts against the plan, record the run, and say what happened."""
    orphans = Committer(tables, store, frozen.run_id).destroy_orphans()
    outcomes = _outcomes(tables, frozen.run_id)
    by_outcome = Counter[str]()
    for (outcome, _), count in outcomes.items():
        by_outcome[outcome] += count
    if sum(outcomes.values()) != frozen.inputs:
        raise CountError(
            f"{job.dest}: run {frozen.run_id} planned {frozen.inputs:,} inputs and has outcomes "
            f"for {sum(outcomes.values()):,}; it is not recorded as complete"
        )
    enrolled = len(tables.table("templates").rows(["run_id"], _of_run(frozen.run_id)))
    reasons = Counter[str]()
    for (_, reason), count in outcomes.items():
        reasons[reason] += count
    reasons.pop("", None)
    summary = Summary(
        run_id=frozen.run_id,
        dest=job.dest,
        settings=job.describe(),
        inputs=frozen.inputs,
        **{outcome.value: by_outcome[outcome.value] for outcome in Outcome},
        reasons=dict(sorted(reasons.items())),
        subjects_enrolled=enrolled,
        subjects_not_enrolled=_subjects_without_template(tables, frozen.run_id),
        resumed_shards=resumed,
        orphans_destroyed=orphans,
        bytes_written=tally.bytes_written,
        seconds=seconds,
        stage_seconds={name: round(value, 3) for name, value in tally.timings.items()},
    )
    _write_metrics(tables, summary)
    counts = {k: v for k, v in asdict(summary).items() if k not in ("stage_seconds", "seconds")}
    timings = {"seconds": seconds, "stages": summary.stage_seconds}
    _record(tables, frozen, job, _COMPLETE, counts, timings)
    done = {"run_id": frozen.run_id, "inputs": summary.inputs, "failed": summary.failed}
    _log.info("completed", extra=done)
    return summary


def _of_run(run_id: str) -> Any:
    return pads.field("run_id") == run_id


def _outcomes(tables: Tables, run_id: str) -> Counter[tuple[str, str]]:
    found = tables.table("inputs").rows(["outcome", "reason"], _of_run(run_id))
    grouped = found.group_by(["outcome", "reason"]).aggregate([([], "count_all")])
    return Counter(
        {(row["outcome"], row["reason"]): row["count_all"] for row in grouped.to_pylist()}
    )


def _subjects_without_template(tables: Tables, run_id: str) -> int:
    """Subjects whose every input failed: the numerator of the failure-to-enrol rate."""
    tried = pads.field("outcome").isin([Outcome.USED.value, Outcome.FAILED.value])
    found = tables.table("inputs").rows(["subject_id", "outcome"], _of_run(run_id) & tried)
    subjects = found.group_by("subject_id").aggregate([("outcome", "max")])
    return sum(value == Outcome.FAILED.value for value in subjects["outcome_max"].to_pylist())


def _record(
    tables: Tables,
    frozen: Plan,
    job: EnrolJob,
    state: str,
    counts: dict[str, Any],
    timings: dict[str, Any],
) -> None:
    config = {"job": job.as_dict(), "shapes": job.shapes(), "generation": job.generation}
    row = {
        "run_id": frozen.run_id,
        "kind": "enrol",
        "state": state,
        "at": datetime.now(UTC),
        "fingerprint": json.dumps(fingerprint(job, frozen.digest)),
        "config": json.dumps(config, default=str),
        "versions": json.dumps(versions()),
        "counts": json.dumps(counts),
        "timings": json.dumps(timings),
    }
    tables.table("runs").append(pa.Table.from_pylist([row], RUNS))


def _write_metrics(tables: Tables, summary: Summary) -> None:
    acquired = sum(summary.reasons.get(reason, 0) for reason in _ACQUIRE)
    subjects = summary.subjects_enrolled + summary.subjects_not_enrolled
    rates = {
        "failure_to_acquire": (acquired, summary.used + summary.failed),
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
    tables.table("metrics").append(pa.Table.from_pylist(rows, METRICS))
