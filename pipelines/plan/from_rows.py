"""A plan from a generation's own files: one shard for each of them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pyarrow as pa

from ironmask.errors import TableError
from pipelines.plan.arrange import rows_of_file
from pipelines.ports import Store, Tables
from pipelines.spec.template_job import Purpose, TemplateJob
from pipelines.table import contents, layout, waves
from pipelines.table.data_files import columns_of


def planned(job: TemplateJob, tables: Tables, store: Store) -> Iterator[pa.Table]:
    """The used inputs of the generation that a job renews, one shard for each of its files.

    In these rows `detail` is the file of templates and `content` the file of inputs, both relative
    to their tables. Files whose subjects already have a row in the new generation are left out.
    """
    assert job.renews is not None  # noqa: S101
    done = contents.live_subjects(tables, job.generation)
    number = 0
    columns = ["subject_id", "uri", "outcome", "reason", "shard"]
    order = list(_pairs(tables, store, job.renews))
    if job.purpose is Purpose.REKEY:
        # Otherwise a shard's number would tell which old shard it was.
        secrets.SystemRandom().shuffle(order)
    paths = (inputs for _, inputs, _ in order)
    shards = (shard for *_, shard in order)
    picked = columns_of(tables.dest, store, "inputs", paths, columns, shards)
    for (templates, inputs, _), (_, found) in zip(order, picked, strict=True):
        rows = found.filter(contents.is_used(found))
        if not done.has(rows["subject_id"][:1]).any():
            yield rows_of_file(rows, number, templates, inputs)
            number += 1


def _pairs(tables: Tables, store: Store, generation: int) -> Iterator[tuple[str, str, int]]:
    """Files of a generation's templates, each with its shard's file of inputs, and the shard."""
    inputs = waves.by_attempt(tables, store)
    for path in sorted(tables.table("templates").files()):
        file = layout.parse_shard_file(path)
        if file is None or layout.generation_of(path) != generation:
            continue
        if (key := layout.attempt_of(file)) not in inputs:
            raise TableError(f"templates/{path} is listed, and its inputs are not: run a check")
        yield path, inputs[key], file.shard
