"""The vault: embeddings kept, encrypted, so that templates can be made anew without any image.

Off by default. Whoever has its keys and its files has everybody's embedding, and no re-protection
takes that back: keep its keys apart from those of the templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ironmask.errors import TamperedError
from pipelines.plan.sources import vector_identity
from pipelines.ports import F32
from pipelines.shard.context import AlignedShard, Context, InputRow, input_row, no_crops
from pipelines.table.data_files import read_data_file
from pipelines.table.row_cipher import framed
from pipelines.table.schemas import VAULT

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
                "embedding": keys.encrypt(vector.astype("<f4").tobytes(), bound),
                "key_id": keys.key_id,
                "shard": row.shard,
                "run_id": row.run_id,
            }
        )
    return pa.Table.from_pylist(made, VAULT)


def _bound(table_id: str, subject: str, uri: str, model: str) -> bytes:
    return framed([_DOMAIN, table_id, subject, uri, model])


def load(context: Context, shard: int) -> tuple[AlignedShard, F32]:
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
    return AlignedShard(rows, list(range(len(rows))), no_crops()), np.stack(vectors)


def _opened(context: Context, kept: dict[str, Any]) -> F32:
    keys, n = context.vault_keys, context.job.params.n
    assert keys is not None  # noqa: S101
    bound = _bound(context.table_id, kept["subject_id"], kept["uri"], kept["model"])
    try:
        plain = keys.decrypt(kept["embedding"], bound)
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
