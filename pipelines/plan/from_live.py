"""What is taken again: the inputs that live templates are of, or all of some people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.plan import sources
from pipelines.plan.naming import Known
from pipelines.ports import Store
from pipelines.spec.template_job import TemplateJob
from pipelines.table.text_set import GrowingTextSet, TextSet

Labelled = Callable[[pa.Table], pa.Table]


def batches(
    job: TemplateJob, store: Store, known: Known, key_before: bytes | None, labelled: Labelled
) -> Iterator[pa.Table]:
    """Those inputs of a job's sources that the generation which it renews was made from.

    Content tells them, not the address, so that sources may have moved meanwhile. Each person is
    taken from the first source that has one of them. known: the contents of that generation, each
    with its owner. key_before: as `sources.read` takes it. labelled: gives rows the labels that
    they are stored under.
    """
    earlier = GrowingTextSet()
    for source in (job.source, *job.more_sources):
        kind = sources.detect(source, store) if job.more_sources else job.kind
        taken: list[pa.Array] = []
        for batch in sources.read(
            source, kind, store, job.faces.max_bytes, job.allow_roots, key_before, [job.dest]
        ):
            batch = labelled(batch)
            mask = np.asarray(pc.is_null(batch["outcome"])) & known.has(batch, by_owner=True)
            chosen = batch.filter(pa.array(mask & ~earlier.has(batch["subject_id"])))
            if len(chosen):
                taken.append(pc.unique(chosen["subject_id"]))
                yield chosen
        earlier.add(TextSet(taken))


def of_people(batches: Iterable[pa.Table], people: TextSet) -> Iterator[pa.Table]:
    """Those inputs of a source that are of some people. Its labels are the stored ones."""
    for batch in batches:
        chosen = batch.filter(pa.array(people.has(batch["subject_id"])))
        if len(chosen):
            yield chosen
