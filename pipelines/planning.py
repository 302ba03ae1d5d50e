"""What a run will do: the frozen plan, new or of an unfinished run, and what must not change."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ironmask.digest import digest_bytes
from ironmask.errors import MismatchError, SourceError
from ironmask.helper import encoding
from pipelines import layout, ledger, plan, sources
from pipelines.commit import Committer, destroy_orphans
from pipelines.destination import Destination
from pipelines.job import EnrolJob, SourceKind, digest, versions
from pipelines.ledger import RunState
from pipelines.plan import Plan
from pipelines.ports import GenerationKeys, Store, Tables

_log = logging.getLogger("ironmask.enrol")


@dataclass(frozen=True)
class Forecast:
    """What a run would do; `resumes` names the unfinished run that it would continue."""

    dest: str
    settings: str
    resumes: str
    inputs: int
    subjects: int
    shards: int
    todo: int
    reasons: dict[str, int]
    template_bytes: int


def prepare_plan(job: EnrolJob, dest: Destination, *, restart: bool = False) -> Plan:
    """Return the plan of an unfinished run of the same job, or freeze a new one."""
    unfinished = ledger.admit(dest.tables, job, restart=restart)
    if unfinished and restart:
        Committer(dest, unfinished.run_id).done()
        ledger.close(dest, unfinished)
        unfinished = None
    if unfinished:
        return _resume(job, unfinished, dest.tables, dest.store)
    run_id = secrets.token_hex(6)
    # Files of a run that died before its plan was known, or was closed, belong to nobody.
    destroy_orphans(dest.tables, dest.store, dest.check)
    version = _source_version(job, dest.store)
    table = draft(job, dest.tables, dest.store, dest.keys)
    uri = layout.plan_file(job.dest, run_id)
    frozen = plan.write(table, run_id, uri, _facts(job), dest.store, version)
    record(dest, frozen, job, RunState.RUNNING, {}, {})
    counts = {"run_id": run_id, "inputs": frozen.inputs, "shards": frozen.shards}
    _log.info("planned", extra=counts)
    return frozen


def _source_version(job: EnrolJob, store: Store) -> str:
    """What a file of embeddings must still be when its rows are read; photos have their own."""
    return store.version(job.source) if job.kind is SourceKind.EMBEDDINGS else ""


def draft(
    job: EnrolJob, tables: Tables | None, store: Store, keys: GenerationKeys | None
) -> pa.Table:
    """Arrange the plan's rows without writing anything; no tables means an empty destination."""
    live, used = pa.array([], pa.string()), pa.array([], pa.string())
    if tables is not None:
        live = ledger.live_subjects(tables, job.generation)
        used = ledger.used_contents(tables)
    # Without keys there is no template yet that an embedding could be in.
    key = keys.content_key() if keys else secrets.token_bytes(32)
    batches = sources.read(job.source, job.kind, store, key, job.faces.max_bytes)
    table = plan.build(batches, live, used, job.shard_size)
    if not len(table):
        raise SourceError(f"{job.source} lists no input as a {job.kind}: check its address")
    return table


def forecast(
    job: EnrolJob,
    tables: Tables | None,
    store: Store,
    keys: GenerationKeys | None,
    *,
    restart: bool = False,
) -> Forecast:
    """Say what `enrol` would do, writing nothing."""
    unfinished = ledger.admit(tables, job, restart=restart) if tables else None
    if restart:
        unfinished = None
    if tables and unfinished:
        frozen = _resume(job, unfinished, tables, store)
        table = plan.table(frozen, store)
    else:
        table = draft(job, tables, store, keys)
    open_rows = table.filter(pc.is_null(table["outcome"]))
    subjects = pc.count_distinct(open_rows["subject_id"]).as_py()
    row_bytes = encoding(job.encoding).nbytes(job.params.n) + digest_bytes(job.params)
    reasons = pc.value_counts(table["reason"].combine_chunks()).to_pylist()
    return Forecast(
        dest=job.dest,
        settings=job.describe(),
        resumes=unfinished.run_id if unfinished else "",
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
    # A table may be moved, or mounted elsewhere.
    del settings["dest"]
    # Where the models run is no part of what they compute: a run may move to another machine.
    del settings["faces"]["provider"]
    return {
        "configuration": digest(settings),
        "model": model,
        "code": digest(versions()),
        "plan": plan_digest,
    }


def _facts(job: EnrolJob) -> dict[str, Any]:
    return {"settings": job.describe(), "versions": versions()}


def _resume(job: EnrolJob, record: ledger.RunRecord, tables: Tables, store: Store) -> Plan:
    frozen, _ = plan.load(layout.plan_file(job.dest, record.run_id), store)
    now = fingerprint(job, plan.digest_of(frozen, store))
    changed = [name for name, value in now.items() if record.fingerprint.get(name) != value]
    if frozen.source_version != (found := _source_version(job, store)):
        changed.append(f"source ({frozen.source_version} then, {found} now)")
    if changed:
        details = ledger.differences(record, job)
        raise MismatchError(
            f"{tables.dest} holds the unfinished run {record.run_id}, started with another "
            f"{' and '.join(changed)}{details}: continue it with what it was started with, or add "
            "--restart to keep what it committed and plan the rest afresh"
        )
    return frozen


def record(
    dest: Destination,
    frozen: Plan,
    job: EnrolJob,
    state: RunState,
    counts: dict[str, Any],
    timings: dict[str, Any],
) -> None:
    record = ledger.RunRecord(
        run_id=frozen.run_id,
        kind="enrol",
        state=state,
        fingerprint=fingerprint(job, frozen.digest),
        config={
            "job": job.as_dict(),
            "shapes": job.shapes(),
            "generation": job.generation,
            "key_id": dest.keys.key_id,
        },
        versions=versions(),
        counts=counts,
        timings=timings,
    )
    ledger.write(dest, record)
