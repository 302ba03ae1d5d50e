"""What a run is to do: the rows of a plan, from wherever a job's inputs are listed."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import pyarrow as pa

from ironmask.errors import NothingToDoError, SourceError
from pipelines.plan import from_live, from_rows, from_vault, sources
from pipelines.plan.arrange import arrange
from pipelines.plan.census import Census
from pipelines.plan.naming import Known
from pipelines.plan.windows import WINDOW_BYTES, starts_of
from pipelines.ports import GenerationKeys, Store, Tables
from pipelines.spec.addresses import row_and_image
from pipelines.spec.template_job import RETRY_ALL, Purpose, SourceKind, TemplateJob
from pipelines.table import contents, run_records
from pipelines.table.identities import Identities
from pipelines.table.pseudonyms import Pseudonyms
from pipelines.table.text_set import TextSet

_log = logging.getLogger("ironmask.enrol")


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
    return arrange(batches, live, known, job.shard_size, _windows(job, store))


def _windows(job: TemplateJob, store: Store) -> Sequence[int]:
    """The parts of a source that are planned one after the other, where a worker reads parts."""
    if job.kind is not SourceKind.EMBEDDINGS:
        return ()
    return starts_of(job.source, store, WINDOW_BYTES)


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
