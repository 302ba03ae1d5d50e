"""Take inputs again: those of live templates, or all those of some subjects."""

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
    """The inputs of a job's sources that became the generation which the job renews.

    They are found by content, not by address, so sources may have moved meanwhile. Each subject is
    taken from the first source that has such an input. known: the contents of that generation, each
    with its owner. key_before: as in `sources.read`. labelled: gives rows the labels under which
    they are stored.
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
    """The inputs of a source that belong to some subjects, which are given by stored labels."""
    for batch in batches:
        chosen = batch.filter(pa.array(people.has(batch["subject_id"])))
        if len(chosen):
            yield chosen
