"""What a re-protection takes again: of each person, the inputs that the live template is of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.plan import sources
from pipelines.ports import Store, Tables
from pipelines.spec.template_job import SourceKind, TemplateJob
from pipelines.table import contents
from pipelines.table.text_set import GrowingTextSet, TextSet


def batches(
    job: TemplateJob, tables: Tables, store: Store, key: bytes, old_key: bytes
) -> Iterator[pa.Table]:
    """Those inputs of a job's sources that the generation which it renews was made from.

    Content tells them, not the address, so that sources may have moved meanwhile. Each person is
    taken from the first source that has one of them. key, old_key: of the identities of embeddings
    now and then.
    """
    assert job.renews is not None  # noqa: S101
    wanted = contents.used_by_subject(tables, job.renews)
    earlier = GrowingTextSet()
    for source in (job.source, *job.more_sources):
        kind = sources.detect(source, store) if job.more_sources else job.kind
        taken: list[pa.Array] = []
        for new, old in _read(job, source, kind, store, (key, old_key)):
            mask = np.asarray(pc.is_null(new["outcome"]))
            mask &= wanted.has(contents.owned(old["subject_id"], old["content"]))
            chosen = new.filter(pa.array(mask & ~earlier.has(new["subject_id"])))
            if len(chosen):
                taken.append(pc.unique(chosen["subject_id"]))
                yield chosen
        earlier.add(TextSet(taken))


def _read(
    job: TemplateJob, source: str, kind: SourceKind, store: Store, keys: tuple[bytes, bytes]
) -> Iterable[tuple[pa.Table, pa.Table]]:
    """A source's batches as they are planned, and as the renewed generation knew their contents."""
    limit = job.faces.max_bytes
    new, old = keys
    read = sources.read(source, kind, store, new, limit, job.allow_roots)
    if kind is not SourceKind.EMBEDDINGS or new == old:
        return ((batch, batch) for batch in read)
    return zip(read, sources.read(source, kind, store, old, limit), strict=True)
