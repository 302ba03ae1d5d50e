"""The figures of a run as Prometheus reads them, on a port of the process that drives it.

A label is a word of a closed list, or the id of a run: never a subject, an address, a path or a
machine's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Final

from infra.exposition import Kind, Metric, process, served
from infra.settings import Settings
from pipelines.run.events import HERE, Events, Figures
from pipelines.spec.outcomes import Outcome, Reason
from pipelines.table.schemas import TABLES

STAGES: Final = ("read", "decode", "detect", "embed", "protect", "rewrite", "write")
_OTHER: Final = "other"


def exposed(settings: Settings) -> AbstractContextManager[None]:
    """Serve the figures of this process where the settings say; nowhere where they do not.

    Raises `ParameterError` for a port that cannot be listened on.
    """
    return served(settings.metrics_port, metrics)


def metrics(events: Events = HERE) -> list[Metric]:
    """Every metric, as of now."""
    seen = events.figures()
    return [*_of_process(seen), *_of_run(seen), *process()]


def _of_process(seen: Figures) -> Iterator[Metric]:
    """What this process has done; it only grows."""
    by_outcome = ("outcome", "reason")
    yield Metric(
        "ironmask_inputs", "Inputs with an outcome.", "counter", _known(seen.outcomes), by_outcome
    )
    yield Metric(
        "ironmask_subjects",
        "Subjects by what became of them; used: a template was made.",
        "counter",
        _known(seen.subjects),
        by_outcome,
    )
    stages = _listed(seen.stages, STAGES)
    yield Metric(
        "ironmask_stage_seconds", "Time that workers spent.", "counter", stages, ("stage",)
    )
    written = _listed(seen.written, tuple(TABLES))
    yield Metric(
        "ironmask_written_bytes", "Data files written by workers.", "counter", written, ("table",)
    )
    yield _one("shards_finished", "Shards that workers have finished.", "counter", seen.shards)
    yield _one("shards_resubmitted", "Shards handed out again.", "counter", seen.resubmitted)
    yield _one("commits", "Waves committed.", "counter", seen.commits)
    yield _one("commit_seconds", "Time that commits took.", "counter", seen.commit_seconds)
    yield _one("nodes_excluded", "Nodes that get no more work.", "gauge", len(seen.excluded))


def _of_run(seen: Figures) -> Iterator[Metric]:
    """How far the run is that this process works on."""
    run = seen.run
    yield Metric(
        "ironmask_run_info",
        "The run that is worked on.",
        "gauge",
        {(run.run_id, run.purpose): 1.0} if run.run_id else {},
        ("run", "purpose"),
    )
    gauges = {
        "run_inputs": ("Inputs of the run.", run.inputs),
        "run_inputs_committed": ("Inputs whose outcome is in the log.", run.inputs_committed),
        "run_shards": ("Shards of the run.", run.shards),
        "run_shards_committed": ("Shards that are in the log.", run.shards_committed),
        "shards_waiting": ("Finished shards that wait for their commit.", run.waiting),
        "shards_in_flight": ("Shards handed out and not finished.", len(seen.handed)),
        "oldest_shard_age_seconds": ("Since the oldest of these was handed out.", seen.oldest),
        "run_begun_timestamp_seconds": ("When work on it began, or went on.", run.begun),
        "last_commit_timestamp_seconds": (
            "When a wave was last committed; before the first, when work began.",
            run.committed_at or run.begun,
        ),
    }
    for name, (told, value) in gauges.items():
        yield _one(name, told, "gauge", value)


def _one(name: str, told: str, kind: Kind, value: float) -> Metric:
    return Metric(f"ironmask_{name}", told, kind, {(): float(value)})


def _known(counts: Mapping[tuple[str, str], int]) -> dict[tuple[str, ...], float]:
    """Counts by outcome and reason, each of its list. All outcomes are there from the start."""
    found: dict[tuple[str, ...], float] = {(outcome.value, ""): 0.0 for outcome in Outcome}
    for (outcome, reason), count in counts.items():
        label = Outcome(outcome).value, Reason(reason).value
        found[label] = found.get(label, 0.0) + count
    return found


def _listed(values: Mapping[str, float], names: tuple[str, ...]) -> dict[tuple[str, ...], float]:
    """Values by names of a list; what is not of it is counted together."""
    found: dict[tuple[str, ...], float] = {(name,): 0.0 for name in names}
    for name, value in values.items():
        label = (name if name in names else _OTHER,)
        found[label] = found.get(label, 0.0) + value
    return found
