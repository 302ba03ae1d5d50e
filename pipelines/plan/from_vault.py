"""A plan from the vault: one shard for each of its files."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from ironmask.errors import TableError
from pipelines.plan.arrange import rows_of_file
from pipelines.ports import Store, Tables
from pipelines.spec.template_job import TemplateJob
from pipelines.table import contents, layout, run_records
from pipelines.table.data_files import columns_of
from pipelines.table.text_set import GrowingTextSet, TextSet


def planned(job: TemplateJob, tables: Tables, store: Store) -> Iterator[pa.Table]:
    """The embeddings of a generation's subjects, one shard for each file of the vault.

    In these rows `detail` is the file, relative to its table. A subject is taken from one file
    only. Subjects with a template in the new generation are left out. Raises `TableError` where the
    vault holds nothing of the job's model.
    """
    assert job.renews is not None  # noqa: S101
    wanted = contents.live_subjects(tables, job.renews)
    taken = GrowingTextSet()
    taken.add(contents.live_subjects(tables, job.generation))
    number = found = 0
    columns = ["subject_id", "uri", "model"]
    newest = _newest_first(tables)
    for path, rows in columns_of(tables.dest, store, "vault", newest, columns):
        own = rows.filter(pc.equal(rows["model"], job.model))
        found += len(own)
        mask = wanted.has(own["subject_id"]) & ~taken.has(own["subject_id"])
        chosen = own.filter(pa.array(mask))
        if len(chosen):
            taken.add(TextSet([chosen["subject_id"]]))
            yield rows_of_file(chosen, number, path)
            number += 1
    if not found:
        raise TableError(
            f"{tables.dest}: its vault holds no embedding of model {job.model[:12]}: only what was "
            "enrolled with --vault can be made anew from it"
        )


def _newest_first(tables: Tables) -> list[str]:
    order = {record.run_id: place for place, record in enumerate(run_records.runs(tables))}

    def age(path: str) -> tuple[int, str]:
        file = layout.parse_shard_file(path)
        return -order.get(file.run_id if file else "", -1), path

    return sorted(tables.table("vault").files(), key=age)
