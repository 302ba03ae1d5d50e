"""What a run will do: the frozen plan, new or of an unfinished run, and what must not change."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ironmask.errors import MismatchError, SourceError
from ironmask.params import FIRST_VERSION
from ironmask.template import row_bytes
from pipelines.plan import plans
from pipelines.plan.census import Census
from pipelines.plan.plans import Plan
from pipelines.ports import GenerationKeys, Store, Tables
from pipelines.run import admit, draft
from pipelines.run.commit import Committer
from pipelines.spec.template_job import (
    LATER_PARAMS,
    LATER_SETTINGS,
    SourceKind,
    TemplateJob,
    digest,
    versions,
)
from pipelines.table import layout, run_records
from pipelines.table.held import Destination
from pipelines.table.orphans import destroy_orphans
from pipelines.table.run_records import RunState

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
    warnings: tuple[str, ...] = ()


def prepare_plan(
    job: TemplateJob,
    dest: Destination,
    *,
    restart: bool = False,
    begin: Callable[[], None] = lambda: None,
    told: Callable[[Census], None] = Census.log,
) -> Plan:
    """Return the plan of an unfinished run of the same job, or freeze a new one.

    begin: called once it is known that there is something to plan, before anything is written.
    told: called then with what the source looks like.
    """
    unfinished = admit.admit(dest.tables, job, restart=restart)
    if unfinished and restart:
        give_up(dest, unfinished)
        unfinished = None
    if unfinished:
        return _resume(job, unfinished, dest.tables, dest.store)
    run_id = secrets.token_hex(6)
    # Files of a run that died before its plan was known, or was closed, belong to nobody.
    destroy_orphans(dest.tables, dest.store, dest.check)
    destroy_unfinished_plans(dest)
    version = _source_version(job, dest.store)
    census = Census.of(job)
    try:
        rows = draft.draft(job, dest.tables, dest.store, dest.keys, census, dest.own, dest.old_keys)
    except SourceError:
        dest.log_seal.end()
        raise
    told(census)
    begin()
    uri = layout.plan_folder(job.dest, run_id)
    frozen = plans.write(rows, run_id, uri, _facts(job), dest.store, version)
    write_run(dest, frozen, job, RunState.RUNNING, {}, {})
    counts = {"run_id": run_id, "inputs": frozen.inputs, "shards": frozen.shards}
    _log.info("planned", extra=counts)
    return frozen


def give_up(dest: Destination, unfinished: run_records.RunRecord) -> None:
    """Close an unfinished run as it stands."""
    Committer(dest, unfinished.run_id).done()
    run_records.close(dest, unfinished)


def destroy_unfinished_plans(dest: Destination) -> None:
    """Remove the files of plans that no run has: of a planning that was killed."""
    runs = run_records.runs(dest.tables)
    known = {None, *(record.run_id for record in runs if record.fingerprint.get("plan"))}
    base = layout.plans_folder(dest.tables.dest) + "/"
    found = list(dest.store.remains(base))
    dest.store.delete([u for u in found if layout.plan_run(u.removeprefix(base)) not in known])


def _source_version(job: TemplateJob, store: Store) -> str:
    """What a file of embeddings must still be when its rows are read; photos have their own."""
    if job.purpose.rewrites:
        return ""
    return store.version(job.source) if job.kind is SourceKind.EMBEDDINGS else ""


def forecast(
    job: TemplateJob,
    tables: Tables | None,
    store: Store,
    keys: GenerationKeys | None,
    *,
    restart: bool = False,
    own: Sequence[str] = (),
    look: Callable[[pa.Table], None] = lambda _: None,
) -> Forecast:
    """Say what `enrol` would do, writing nothing. own: as `draft` takes it. look: sees the plan's
    rows pass by.
    """
    unfinished = admit.admit(tables, job, restart=restart) if tables else None
    if restart:
        unfinished = None
    census = Census.of(job)
    if tables and unfinished:
        rows = plans.tables(_resume(job, unfinished, tables, store), store)
    else:
        rows = draft.draft(job, tables, store, keys, census, own)
    seen = _Seen()
    for table in rows:
        seen.add(table)
        look(table)
    return Forecast(
        dest=job.dest,
        settings=job.describe(),
        resumes=unfinished.run_id if unfinished else "",
        inputs=seen.inputs,
        subjects=seen.subjects,
        shards=seen.shards,
        todo=seen.todo,
        reasons=dict(seen.reasons),
        template_bytes=seen.subjects * row_bytes(job.params, job.encoding),
        warnings=tuple(census.warnings(named=True)),
    )


class _Seen:
    """Counts over the rows of a plan."""

    def __init__(self) -> None:
        self.inputs = self.subjects = self.shards = self.todo = 0
        self.reasons = Counter[str]()
        self._last: str | None = None

    def add(self, table: pa.Table) -> None:
        waiting = table.filter(pc.is_null(table["outcome"]))["subject_id"]
        self.inputs += len(table)
        self.todo += len(waiting)
        self.shards = table["shard"][-1].as_py() + 1
        self.reasons.update(reason for reason in table["reason"].to_pylist() if reason)
        # All of a subject's inputs come together, perhaps in two tables.
        names = pc.unique(waiting).to_pylist()
        self.subjects += len(names) - (names[:1] == [self._last])
        self._last = names[-1] if names else self._last


def fingerprint(job: TemplateJob, plan_digest: str) -> dict[str, str]:
    """What must not change between the start of a run and its resumption, part by part."""
    settings = job.as_dict()
    model = settings.pop("model")
    # A table may be moved, or mounted elsewhere.
    del settings["dest"]
    # What releases of before did not know counts where it is used.
    for name in LATER_SETTINGS:
        if not settings[name]:
            del settings[name]
    if job.params.version == FIRST_VERSION:
        for name in LATER_PARAMS:
            del settings["params"][name]
    # Where the models run is no part of what they compute: a run may move to another machine.
    del settings["faces"]["provider"]
    return {
        "configuration": digest(settings),
        "model": model,
        "code": digest(versions()),
        "plan": plan_digest,
    }


def _facts(job: TemplateJob) -> dict[str, Any]:
    return {"settings": job.describe(), "versions": versions()}


def _resume(job: TemplateJob, record: run_records.RunRecord, tables: Tables, store: Store) -> Plan:
    frozen, _ = plans.load(layout.plan_folder(job.dest, record.run_id), store)
    now = fingerprint(job, plans.digest_of(frozen, store))
    frozen = replace(frozen, digest=now["plan"])
    changed = [name for name, value in now.items() if record.fingerprint.get(name) != value]
    if frozen.source_version != (found := _source_version(job, store)):
        changed.append(f"source ({frozen.source_version} then, {found} now)")
    if changed:
        details = admit.differences(record, job)
        raise MismatchError(
            f"{tables.dest} holds the unfinished run {record.run_id}, started with another "
            f"{' and '.join(changed)}{details}: continue it with what it was started with, or add "
            "--restart to keep what it committed and plan the rest afresh"
        )
    return frozen


def write_run(
    dest: Destination,
    frozen: Plan,
    job: TemplateJob,
    state: RunState,
    counts: dict[str, Any],
    timings: dict[str, Any],
) -> None:
    record = run_records.RunRecord(
        run_id=frozen.run_id,
        kind=job.purpose.value,
        state=state,
        fingerprint=fingerprint(job, frozen.digest),
        config={
            "job": job.as_dict(),
            "shapes": job.traits(),
            "generation": job.generation,
            "key_id": dest.keys.key_id,
            "keyed": True,
        },
        versions=versions(),
        counts=counts,
        timings=timings,
    )
    run_records.write(dest, record)
