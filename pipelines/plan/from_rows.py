"""A plan from a generation's own files: one shard for each of them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pyarrow as pa

from ironmask.errors import TableError
from pipelines.plan.arrange import rows_of_file
from pipelines.ports import Store, Tables
from pipelines.spec.template_job import Purpose, TemplateJob
from pipelines.table import contents, layout
from pipelines.table.data_files import columns_of


def planned(job: TemplateJob, tables: Tables, store: Store) -> Iterator[pa.Table]:
    """The used inputs of the generation that a job renews, one shard for each of its files.

    In these rows `detail` is the file of templates and `content` the file of inputs, both relative
    to their tables. Files whose subjects already have a row in the new generation are left out.
    """
    assert job.renews is not None  # noqa: S101
    done = contents.live_subjects(tables, job.generation)
    number = 0
    templates_of = {inputs: templates for templates, inputs in _pairs(tables, job.renews)}
    columns = ["subject_id", "uri", "outcome", "reason"]
    order = list(templates_of)
    if job.purpose is Purpose.REKEY:
        # Otherwise a shard's number would tell which old shard it was.
        secrets.SystemRandom().shuffle(order)
    for inputs, found in columns_of(tables.dest, store, "inputs", order, columns):
        templates, rows = templates_of[inputs], found.filter(contents.is_used(found))
        if not done.has(rows["subject_id"][:1]).any():
            yield rows_of_file(rows, number, templates, inputs)
            number += 1


def _pairs(tables: Tables, generation: int) -> Iterator[tuple[str, str]]:
    """Files of a generation's templates, each with the file of the same shard's inputs."""
    named = ((layout.parse_shard_file(path), path) for path in tables.table("inputs").files())
    inputs = {(f.run_id, f.shard, f.attempt): path for f, path in named if f}
    for path in sorted(tables.table("templates").files()):
        file = layout.parse_shard_file(path)
        if file is None or layout.generation_of(path) != generation:
            continue
        if (key := (file.run_id, file.shard, file.attempt)) not in inputs:
            raise TableError(f"templates/{path} is listed, and its inputs are not: run a check")
        yield path, inputs[key]
