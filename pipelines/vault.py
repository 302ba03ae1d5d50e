"""The vault: embeddings kept, encrypted, so that templates can be made anew without any image.

Off by default. Whoever has its keys and its files has everybody's embedding, and no re-protection
takes that back: keep its keys apart from those of the templates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ironmask.errors import TableError, TamperedError
from pipelines import layout, ledger
from pipelines.data_files import columns_of, read_data_file
from pipelines.job import EnrolJob
from pipelines.known import Grown, Known
from pipelines.plan_build import rows_of_file
from pipelines.ports import F32, Store, Tables
from pipelines.records import VAULT
from pipelines.sealing import framed
from pipelines.sources import vector_identity
from pipelines.stages import Context, InputRow, Prepared, input_row, no_crops

_DOMAIN = "ironmask vault v1"
_OF_EMBEDDINGS = "vec:"


def rows(context: Context, inputs: Sequence[tuple[InputRow, F32]]) -> pa.Table:
    """Rows of `vault` for inputs and their embeddings, (n,) float32 each, sealed."""
    keys, job = context.vault_keys, context.job
    assert keys is not None  # noqa: S101
    made = []
    for row, vector in inputs:
        bound = _bound(context.table_id, row.subject_id, row.uri, job.model)
        made.append(
            {
                "subject_id": row.subject_id,
                "uri": row.uri,
                "identities": row.identities,
                "model": job.model,
                "embedding": keys.seal(vector.astype("<f4").tobytes(), bound),
                "key_id": keys.key_id,
                "shard": row.shard,
                "run_id": row.run_id,
            }
        )
    return pa.Table.from_pylist(made, VAULT)


def _bound(table_id: str, subject: str, uri: str, model: str) -> bytes:
    return framed([_DOMAIN, table_id, subject, uri, model])


def planned(job: EnrolJob, tables: Tables, store: Store) -> Iterator[pa.Table]:
    """The embeddings of a generation's people, a shard for each file of the vault.

    Of these rows `detail` is the file, relative to its table. A person is taken from one file only,
    and not at all who has a template in the new generation already. Raises `TableError` where the
    vault holds nothing of the job's model.
    """
    assert job.renews is not None  # noqa: S101
    wanted = ledger.live_subjects(tables, job.renews)
    taken = Grown()
    taken.add(ledger.live_subjects(tables, job.generation))
    number = found = 0
    columns = ["subject_id", "uri", "model"]
    newest = _newest_first(tables)
    for path, rows in columns_of(tables.dest, store, "vault", newest, columns):
        own = rows.filter(pc.equal(rows["model"], job.model))
        found += len(own)
        mask = wanted.has(own["subject_id"]) & ~taken.has(own["subject_id"])
        chosen = own.filter(pa.array(mask))
        if len(chosen):
            taken.add(Known([chosen["subject_id"]]))
            yield rows_of_file(chosen, number, path)
            number += 1
    if not found:
        raise TableError(
            f"{tables.dest}: its vault holds no embedding of model {job.model[:12]}: only what was "
            "enrolled with --vault can be made anew from it"
        )


def _newest_first(tables: Tables) -> list[str]:
    order = {record.run_id: place for place, record in enumerate(ledger.runs(tables))}

    def age(path: str) -> tuple[int, str]:
        file = layout.parse_shard_file(path)
        return -order.get(file.run_id if file else "", -1), path

    return sorted(tables.table("vault").files(), key=age)


def load(context: Context, shard: int) -> tuple[Prepared, F32]:
    """Open one shard's embeddings: the rows, and the (k, n) float32 for them.

    Raises `TamperedError` where one is not what was sealed.
    """
    planned_rows = context.plan.shard(shard, context.store)
    path = planned_rows[0]["detail"]
    stored = read_data_file(context.job.dest, context.store, "vault", path).to_pylist()
    by_input = {(row["subject_id"], row["uri"]): row for row in stored}
    rows: list[InputRow] = []
    vectors: list[F32] = []
    for item in planned_rows:
        row, kept = input_row(context, item), by_input[item["subject_id"], item["uri"]]
        vector = _opened(context, kept)
        row.identities = _identities(context, kept, vector)
        rows.append(row)
        vectors.append(vector)
    return Prepared(rows, list(range(len(rows))), no_crops()), np.stack(vectors)


def _opened(context: Context, kept: dict[str, Any]) -> F32:
    keys, n = context.vault_keys, context.job.params.n
    assert keys is not None  # noqa: S101
    bound = _bound(context.table_id, kept["subject_id"], kept["uri"], kept["model"])
    try:
        plain = keys.open(kept["embedding"], bound)
    except TamperedError:
        raise TamperedError(
            f"an embedding in the vault of {context.job.dest} does not authenticate: its row was "
            "changed, or it was sealed under another key; restore the vault from a backup"
        ) from None
    vector: F32 = np.frombuffer(plain, "<f4").astype(np.float32)
    if vector.shape != (n,):
        raise TamperedError(f"an embedding in the vault has {len(vector)} values, not {n}")
    return vector


def _identities(context: Context, kept: dict[str, Any], vector: F32) -> list[str] | None:
    """What the content is known by from now on; of an embedding, under the new keys."""
    known = kept["identities"]
    if not known or not str(known[0]).startswith(_OF_EMBEDDINGS):
        return list(known) if known else None
    found = vector_identity(vector, context.keys.content_key())
    return [found] if found else None
