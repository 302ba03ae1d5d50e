"""The vault: encrypted embeddings, kept so that templates can be made again without images.

It is off by default. Whoever has its keys and files has the embeddings of all subjects, and no
re-protection can change that. Keep its keys apart from those of the templates.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ironmask.errors import TamperedError
from pipelines.ports import F32
from pipelines.shard.context import AlignedShard, Context, InputRow, input_row, no_crops
from pipelines.table.data_files import read_data_file
from pipelines.table.details import padded
from pipelines.table.identities import is_file, of_vector
from pipelines.table.row_cipher import framed
from pipelines.table.schemas import VAULT

_DOMAIN = "ironmask vault v1"


def rows(context: Context, inputs: Sequence[tuple[InputRow, F32]]) -> pa.Table:
    """Rows of `vault` for inputs and their embeddings, (n,) float32 each, encrypted."""
    keys, job = context.vault_keys, context.job
    assert keys is not None  # noqa: S101
    made = []
    for row, vector in inputs:
        bound = _bound(context.table_id, row.subject_id, row.uri, job.model)
        made.append(
            {
                "subject_id": row.subject_id,
                "uri": row.uri,
                "model": job.model,
                "embedding": keys.encrypt(_payload(row, vector), bound),
                "key_id": keys.key_id,
                "shard": row.shard,
                "run_id": row.run_id,
            }
        )
    return pa.Table.from_pylist(made, VAULT)


def _payload(row: InputRow, vector: F32) -> bytes:
    """An embedding, followed by the names of its content and its labels."""
    told = {"contents": row.contents, "labels": row.labels}
    return vector.astype("<f4").tobytes() + padded(json.dumps(told).encode())


def _bound(table_id: str, subject: str, uri: str, model: str) -> bytes:
    return framed([_DOMAIN, table_id, subject, uri, model])


def load(context: Context, shard: int) -> tuple[AlignedShard, F32]:
    """Open one shard's embeddings: the rows, and the (k, n) float32 for them.

    Raises `TamperedError` where one was changed.
    """
    planned_rows = context.plan.shard(shard, context.store)
    path = planned_rows[0]["detail"]
    stored = read_data_file(context.job.dest, context.store, "vault", path).to_pylist()
    by_input = {(row["subject_id"], row["uri"]): row for row in stored}
    rows: list[InputRow] = []
    vectors: list[F32] = []
    for item in planned_rows:
        row, kept = input_row(context, item), by_input[item["subject_id"], item["uri"]]
        vector, told = _opened(context, kept)
        row.contents = _contents(kept, told, vector)
        row.labels = _labels(told)
        rows.append(row)
        vectors.append(vector)
    return AlignedShard(rows, list(range(len(rows))), no_crops()), np.stack(vectors)


def _opened(context: Context, kept: dict[str, Any]) -> tuple[F32, dict[str, Any]]:
    """An embedding, and the facts that follow it."""
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
    size = n * np.dtype("<f4").itemsize
    if len(plain) < size:
        raise TamperedError(f"an embedding in the vault has {len(plain) // 4} values, not {n}")
    vector: F32 = np.frombuffer(plain[:size], "<f4").astype(np.float32)
    return vector, dict(json.loads(plain[size:] or b"{}"))


def _labels(told: dict[str, Any]) -> tuple[str, str] | None:
    """Subject id and address, where the row has pseudonyms for them."""
    if not told.get("labels"):
        return None
    subject, address = map(str, told["labels"])
    return subject, address


def _contents(kept: dict[str, Any], told: dict[str, Any], vector: F32) -> list[str]:
    """The names of a content. Older rows have those of files in the clear."""
    if told:
        return [str(name) for name in told["contents"]]
    files = [name for name in kept["identities"] or [] if is_file(name)]
    own = of_vector(vector)
    return files or ([own] if own else [])
