"""Rows made from rows: new data keys and a shuffle, or one more MAC key, for a whole generation.

One file of the old generation becomes one of the new. No template, embedding or codeword is
needed or seen: helpers are opened and sealed again, digests are tagged again.
"""

from __future__ import annotations

import secrets
from collections import Counter
from typing import Any

import pyarrow as pa

from ironmask import digest
from ironmask.errors import ProtectionError
from ironmask.params import Params
from pipelines.ports import DataFile
from pipelines.shard.context import Context, ShardResult, clock
from pipelines.shard.protect import ROW_GROUP, publish, write_rows
from pipelines.spec.outcomes import Outcome
from pipelines.table import contents
from pipelines.table.data_files import read_data_file
from pipelines.table.row_cipher import encrypted_helper, open_row
from pipelines.table.schemas import INPUTS, as_parquet


def rewrite(context: Context, shard: int) -> ShardResult:
    """Write one file of the old generation anew. What it wrote counts once it is committed.

    Raises `TamperedError` where a file or a row of it is not what was written.
    """
    timings: dict[str, float] = {}
    first = context.plan.shard(shard, context.store)[0]
    with clock(timings, "read"):
        old, inputs = (
            read_data_file(context.job.dest, context.store, table, first[column])
            for table, column in (("templates", "detail"), ("inputs", "content"))
        )
    attempt = secrets.token_hex(8)
    sink = pa.BufferOutputStream()
    with clock(timings, "rewrite"):
        parts = old.to_batches(max_chunksize=ROW_GROUP)
        ids = write_rows(sink, ([_anew(context, shard, r) for r in p.to_pylist()] for p in parts))
    with clock(timings, "write"):
        content = memoryview(sink.getvalue())
        used = inputs.filter(contents.is_used(inputs))
        files = {
            "templates": publish(context, "templates", shard, attempt, content, ids),
            "inputs": _publish_inputs(context, shard, attempt, used),
        }
    outcomes = Counter({(Outcome.USED.value, ""): len(used)})
    return ShardResult(shard, files, outcomes, len(ids), timings)


def _anew(context: Context, shard: int, old: dict[str, Any]) -> dict[str, Any]:
    """A row under the new generation's keys; it is opened again before it counts."""
    assert context.old_keys is not None  # noqa: S101
    keys, table_id = context.keys, context.table_id
    opened = open_row(table_id, {**old, "generation": context.job.renews}, context.old_keys)
    row = {
        **old,
        "generation": context.job.generation,
        "digests": _digests(old, opened.digests, opened.params, context),
        "key_id": keys.key_id,
        "shard": shard,
        "run_id": context.plan.run_id,
    }
    row["helper"] = encrypted_helper(table_id, row, opened.helper, keys)
    if open_row(table_id, row, keys).helper != opened.helper:
        raise ProtectionError(f"template {row['template_id']} does not open again as it was")
    return row


def _digests(old: dict[str, Any], digests: bytes, params: Params, context: Context) -> bytes:
    """The row's digests under the layers that the new keys have more than the old ones."""
    assert context.old_keys is not None  # noqa: S101
    before, now = (k.row_key(old["template_id"]) for k in (context.old_keys, context.keys))
    if not now.startswith(before):
        raise ProtectionError(
            f"the keys of generation {context.job.generation} do not go on from those of "
            f"{context.job.renews}: no digest can be made anew under them"
        )
    for layer in digest.layers(now)[len(digest.layers(before)) :]:
        digests = digest.relayered(digests, params, layer)
    return digests


def _publish_inputs(context: Context, shard: int, attempt: str, used: pa.Table) -> DataFile:
    rows = [{**row, "shard": shard, "run_id": context.plan.run_id} for row in used.to_pylist()]
    content = as_parquet(pa.Table.from_pylist(rows, INPUTS))
    ids = [{name: row[name] for name in ("subject_id", "uri")} for row in rows]
    return publish(context, "inputs", shard, attempt, content, ids)
