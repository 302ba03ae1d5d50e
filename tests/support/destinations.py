"""A destination in memory, and what runs leave in it: for tests of one module of `pipelines`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from ironmask.params import Params
from pipelines.plan.plans import Plan
from pipelines.ports import F32
from pipelines.run.begin import write_run
from pipelines.run.commit import Committer
from pipelines.shard.context import AlignedShard, Context, InputRow, ShardResult, no_crops
from pipelines.shard.protect import protect_shard
from pipelines.shard.transit import Channel
from pipelines.spec.outcomes import Outcome, Reason
from pipelines.spec.template_job import SourceKind, TemplateJob
from pipelines.table import generations, layout, waves
from pipelines.table.held import Destination
from pipelines.table.log_entries import Commit
from pipelines.table.log_seal import LogSeal
from pipelines.table.orphans import DATA_TABLES
from pipelines.table.run_records import RunState
from pipelines.table.seal_reader import SealReader
from pipelines.table.sealed import SealedTables
from support.memory import MemoryStore
from support.memory_keys import MemoryKeyring
from support.memory_tables import MemoryTables

DEST: Final = "/memory/dest"
WIDTH: Final = 64
RUN: Final = "0123456789ab"
OTHER_RUN: Final = "ba9876543210"


def job(**changes: Any) -> TemplateJob:
    """A small enrolment of stored embeddings."""
    base = TemplateJob(
        source="/memory/e.parquet",
        dest=DEST,
        kind=SourceKind.EMBEDDINGS,
        model="declared:m",
        params=Params(n=WIDTH, alpha=12, tolerance=1),
    )
    return replace(base, **changes)


def plan(run_id: str = RUN, **changes: Any) -> Plan:
    """A plan that was never frozen: its numbers alone."""
    base = Plan(run_id, f"{DEST}/_ironmask/plans/{run_id}", "digest", 1, 1, 1, 1)
    return replace(base, **changes)


@dataclass
class Place:
    """A destination with keys of its first generation, which nobody holds yet."""

    store: MemoryStore = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        self.tables = MemoryTables(DEST, self.store)
        self.tables.create()
        self.keyring = MemoryKeyring(self.tables.table_id)
        self.keyring.add_generation(1)

    def held(self, generation: int = 1, check: Callable[[], None] = lambda: None) -> Destination:
        """The destination as a process holds it that goes on from its seal."""
        keys = self.keyring.generation(generation)
        seal = LogSeal(
            self.tables, self.store, keys, self.keyring.log_seal_key_of, self.keyring.has_seals
        )
        seal.begin()
        self.keyring.note_seals()
        return Destination(seal.tables, self.store, keys, check, seal)

    def reader(self) -> SealedTables:
        """The tables as whoever only reads them opens them."""
        source = SealReader(
            self.tables, self.store, self.keyring.log_seal_key_of, self.keyring.has_seals
        )
        return SealedTables(self.tables, self.store, source)

    def data(self) -> set[str]:
        """Addresses of all objects that are neither of a log nor of the seal."""
        found = self.store.remains(DEST)
        return {uri for uri in found if "_delta_log" not in uri and "_ironmask" not in uri}

    def listed(self, name: str) -> set[str]:
        """Paths of the files that a table's log lists, whatever the seal says."""
        return set(self.tables.table(name).files())


def row(subject: str, number: int = 0, **changes: Any) -> InputRow:
    """An input that was embedded; one with an outcome keeps it."""
    made = InputRow(f"{subject}/{number}.jpg", subject, 0, RUN, contents=[f"sha256:{subject}"])
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def failed(subject: str, reason: Reason = Reason.NO_FACE, number: int = 0) -> InputRow:
    """An input that failed."""
    made = row(subject, number)
    made.settle(Outcome.FAILED, reason, f"what is wrong with {subject}")
    return made


def vectors(count: int, seed: int = 0) -> F32:
    """(count, WIDTH) float32, each of length one."""
    found = np.random.default_rng(seed).standard_normal((count, WIDTH))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def context(dest: Destination, run_id: str = RUN, **changes: Any) -> Context:
    """What the stages of a run share."""
    return Context(
        job(**changes), plan(run_id), dest.tables.table_id, dest.store, dest.keys, None,
        dest.old_keys,
    )  # fmt: skip


def written(
    shared: Context, people: Sequence[str | InputRow], shard: int = 0, seed: int = 0
) -> ShardResult:
    """Protect and write a shard, which no log lists, and a file of its outcomes alone.

    people: names, or rows of inputs.
    """
    return settled(shared, finished(shared, people, shard, seed))


def settled(shared: Context, result: ShardResult) -> ShardResult:
    """A finished shard with a file of its outcomes alone."""
    rows = Channel(shared.keys, shared.plan.run_id, result.shard).rows(result.rows)
    attempts = [(shared.plan.run_id, result.shard, result.attempt)]
    key = shared.keys.log_seal_key()
    file = waves.write(shared.job.dest, shared.store, attempts, rows, key)
    return replace(result, files={**result.files, "inputs": file})


def finished(
    shared: Context, people: Sequence[str | InputRow], shard: int = 0, seed: int = 0
) -> ShardResult:
    """Protect a shard, as it is handed over to a committer. people: names, or rows of inputs."""
    rows = [row(one) if isinstance(one, str) else one for one in people]
    for one in rows:
        one.shard, one.run_id = shard, shared.plan.run_id
    open_ones = [number for number, one in enumerate(rows) if not one.outcome]
    aligned = AlignedShard(rows, open_ones, no_crops())
    return protect_shard(shared, shard, aligned, vectors(len(open_ones), seed))


def commit(
    dest: Destination, result: ShardResult, sequence: int, names: Iterable[str] = DATA_TABLES
) -> None:
    """Let the logs list the files of a shard, of some tables."""
    run_id = layout.run_of(next(iter(result.files.values())).path)
    for name in names:
        files = [result.files[name]] if name in result.files else []
        dest.commit(Commit(name, files, f"{run_id}/{name}", sequence))


def commit_wave(committer: Committer, wave: Iterable[ShardResult]) -> None:
    """Commit finished shards as a run does."""
    for result in wave:
        committer.add(result)
    committer.commit()


def enrolled(
    dest: Destination,
    people: Sequence[str | InputRow],
    run_id: str = RUN,
    state: RunState = RunState.COMPLETE,
    **changes: Any,
) -> ShardResult:
    """A whole run of one shard, its templates and outcomes committed. Returns what it wrote."""
    shared = context(dest, run_id, **changes)
    generations.begin(dest)
    record(dest, shared.job, run_id, RunState.RUNNING)
    result = written(shared, people)
    commit(dest, result, 1)
    if state is not RunState.RUNNING:
        record(dest, shared.job, run_id, state, {"subjects_enrolled": result.enrolled})
    return result


def record(
    dest: Destination,
    asked: TemplateJob,
    run_id: str = RUN,
    state: RunState = RunState.RUNNING,
    counts: dict[str, Any] | None = None,
) -> None:
    """Add the newest word about a run, which has no plan to be read."""
    write_run(dest, plan(run_id, digest=""), asked, state, counts or {}, {})


def outcomes(dest: Destination) -> Counter[tuple[str, str, str]]:
    """How often each (subject, outcome, reason) is in `inputs`."""
    rows = dest.tables.table("inputs").rows(["subject_id", "outcome", "reason"]).to_pylist()
    return Counter((one["subject_id"], one["outcome"], one["reason"]) for one in rows)


def people(dest: Destination, generation: int = 1) -> list[str]:
    """Who has a template in a generation, in order."""
    found = dest.tables.table("templates").rows(["subject_id", "generation"]).to_pylist()
    return sorted(one["subject_id"] for one in found if one["generation"] == generation)
