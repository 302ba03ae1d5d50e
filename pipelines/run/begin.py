"""What a run will do: the frozen plan, new or of an unfinished run, and what must not change."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ironmask.errors import MismatchError, NothingToDoError, SourceError
from ironmask.template import row_bytes
from pipelines.plan import from_live, from_rows, from_vault, plans, sources
from pipelines.plan.arrange import arrange
from pipelines.plan.census import Census
from pipelines.plan.naming import Known
from pipelines.plan.plans import Plan
from pipelines.ports import GenerationKeys, Store, Tables
from pipelines.run import admit
from pipelines.run.commit import Committer
from pipelines.spec.addresses import row_and_image
from pipelines.spec.template_job import (
    LATER_SETTINGS,
    RETRY_ALL,
    Purpose,
    SourceKind,
    TemplateJob,
    digest,
    versions,
)
from pipelines.table import contents, layout, run_records
from pipelines.table.held import Destination
from pipelines.table.identities import Identities
from pipelines.table.orphans import destroy_orphans
from pipelines.table.pseudonyms import Pseudonyms
from pipelines.table.run_records import RunState
from pipelines.table.text_set import TextSet

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
        rows = draft(job, dest.tables, dest.store, dest.keys, census, dest.own, dest.old_keys)
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


def draft(
    job: TemplateJob,
    tables: Tables | None,
    store: Store,
    keys: GenerationKeys | None,
    census: Census,
    own: Sequence[str] = (),
    old_keys: GenerationKeys | None = None,
) -> Iterator[pa.Table]:
    """Arrange the plan's rows without writing anything; no tables means an empty destination.

    census: filled with what the source looks like. own: keyset files, which are no inputs.
    old_keys: of the generation that the job renews, if it renews one. Raises `SourceError` where
    there is nothing of anybody, `NothingToDoError` where nothing is to be retried.
    """
    rows = _drafted(job, tables, store, keys, census, own, old_keys)
    first = next(rows, None)
    census.refuse_nobody()
    if first is None and job.retry:
        raise _nothing_to_retry(job)
    if first is None and job.purpose is Purpose.REPAIR:
        raise NothingToDoError(
            f"{job.source} holds nothing of the people of {job.dest} whose templates were lost"
        )
    if first is None and job.renews is not None:
        raise SourceError(
            f"{job.source} holds nothing that generation {job.renews} was made from: name where "
            "its inputs are now with --source"
        )
    if first is None:
        raise _nothing_in(job)
    return chain([first], rows)


def refuse_empty(job: TemplateJob, store: Store) -> None:
    """Raise `SourceError` for a source that gives a new table nothing; no image is read for it.

    A file of embeddings was looked into for its width.
    """
    if job.retry:
        raise _nothing_to_retry(job)
    if job.kind is SourceKind.EMBEDDINGS:
        return
    batches = sources.read(job.source, job.kind, store, 0, job.allow_roots)
    if next(batches, None) is None:
        raise _nothing_in(job)


def _nothing_to_retry(job: TemplateJob) -> NothingToDoError:
    return NothingToDoError(
        f"{job.dest}: nothing to retry; no input of {job.source} has failed so, or its person has "
        "a template by now"
    )


def _nothing_in(job: TemplateJob) -> SourceError:
    return SourceError(f"{job.source} lists no input as a {job.kind}: check its address")


def _drafted(
    job: TemplateJob,
    tables: Tables | None,
    store: Store,
    keys: GenerationKeys | None,
    census: Census,
    own: Sequence[str],
    old_keys: GenerationKeys | None,
) -> Iterator[pa.Table]:
    if tables and job.purpose.rewrites:
        return from_rows.planned(job, tables, store)
    if tables and job.kind is SourceKind.VAULT:
        return from_vault.planned(job, tables, store)
    live = contents.live_subjects(tables, job.generation) if tables else TextSet()
    unkeyed = tables is not None and run_records.has_unkeyed(tables)
    # The newest keys that names of before could have been made with.
    newest = old_keys or keys
    key_before = newest.content_key() if unkeyed and newest else None
    batches: Iterable[pa.Table]
    if tables and job.renews is not None:
        wanted = contents.used_by_subject(tables, job.renews)
        renewed = Known(_identities(keys, job.renews), wanted, unkeyed)
        batches = from_live.batches(job, store, renewed, key_before, _labelled(job, keys))
    else:
        batches = listed(job, store, keys, key_before, own, census)
    if tables and job.purpose is Purpose.REPAIR:
        batches = from_live.of_people(batches, contents.lost_people(tables, job.generation).gone)
    if job.retry:
        batches = _again(batches, job, tables, live)
    used = contents.used_contents(tables, job.generation) if tables else TextSet()
    known = Known(_identities(keys, job.generation), used, unkeyed)
    return arrange(batches, live, known, job.shard_size)


def listed(
    job: TemplateJob,
    store: Store,
    keys: GenerationKeys | None,
    key_before: bytes | None = None,
    own: Sequence[str] = (),
    census: Census | None = None,
) -> Iterator[pa.Table]:
    """The inputs of a job's source, under the labels that they are stored under."""
    limit, kept_out = job.faces.max_bytes, [job.dest, *own]
    batches = sources.read(
        job.source, job.kind, store, limit, job.allow_roots, key_before, kept_out
    )
    return map(_labelled(job, keys), census.passing(batches) if census else batches)


def _labelled(job: TemplateJob, keys: GenerationKeys | None) -> from_live.Labelled:
    """What gives rows the labels that they are stored under."""
    if not job.pseudonymous or keys is None or keys.table is None:
        return lambda batch: batch
    return Pseudonyms(keys.table).hidden


def _identities(keys: GenerationKeys | None, generation: int) -> Identities:
    """How a generation's contents are named; without keys there is no template yet of any."""
    if keys is None or keys.table is None:
        return Identities(secrets.token_bytes(32))
    return Identities.of(keys, generation)


def _again(
    batches: Iterable[pa.Table], job: TemplateJob, tables: Tables | None, live: TextSet
) -> Iterator[pa.Table]:
    """Inputs that failed, of subjects without a live template."""
    reasons = () if job.retry == RETRY_ALL else job.retry
    failed = contents.failed_inputs(tables, reasons) if tables else TextSet()
    met = enrolled = 0
    for batch in batches:
        # Releases of before did not keep the names of rows' images.
        rows = [row_and_image(uri)[0] for uri in batch["uri"].to_pylist()]
        mask = failed.has(batch["uri"]) | failed.has(pa.array(rows, pa.large_string()))
        has_template = live.has(batch["subject_id"])
        met += int(mask.sum())
        enrolled += int((mask & has_template).sum())
        chosen = batch.filter(pa.array(mask & ~has_template))
        if len(chosen):
            yield chosen
    if enrolled:
        _log.warning("%d failed inputs are of people who have a template, and stay out", enrolled)
    if met < len(failed):
        _log.warning("%d failed inputs are no longer in %s", len(failed) - met, job.source)


def forecast(
    job: TemplateJob,
    tables: Tables | None,
    store: Store,
    keys: GenerationKeys | None,
    *,
    restart: bool = False,
    own: Sequence[str] = (),
) -> Forecast:
    """Say what `enrol` would do, writing nothing. own: as `draft` takes it."""
    unfinished = admit.admit(tables, job, restart=restart) if tables else None
    if restart:
        unfinished = None
    census = Census.of(job)
    if tables and unfinished:
        rows = plans.tables(_resume(job, unfinished, tables, store), store)
    else:
        rows = draft(job, tables, store, keys, census, own)
    seen = _Seen()
    for table in rows:
        seen.add(table)
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
