"""Make rows from rows for a new generation: new data keys, ids and a shuffle, or one more MAC key.

One file of the old generation becomes one of the new. Templates, embeddings and codewords are
neither needed nor seen: helpers are opened and encrypted again, digests are tagged again.
"""

from __future__ import annotations

import secrets
import uuid
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from ironmask import digest
from ironmask.errors import ProtectionError
from ironmask.template import ProtectedTemplate
from pipelines.shard.context import Context, ShardResult, clock
from pipelines.shard.protect import ROW_GROUP, publish, write_rows
from pipelines.shard.transit import Channel
from pipelines.spec.outcomes import Outcome
from pipelines.spec.template_job import Purpose
from pipelines.table import contents, layout, waves
from pipelines.table.data_files import read_data_file
from pipelines.table.details import decrypted, encrypted, table_keys
from pipelines.table.identities import Identities
from pipelines.table.row_cipher import (
    details_of,
    encrypted_details,
    encrypted_helper,
    open_row,
    row_key,
)
from pipelines.table.schemas import INPUTS


def rewrite(context: Context, shard: int) -> ShardResult:
    """Write one file of the old generation again. The new file counts once it is committed.

    Raises `TamperedError` where the file or one of its rows was changed.
    """
    timings: dict[str, float] = {}
    planned = context.plan.shard(shard, context.store)
    first, people = planned[0], len({row["subject_id"] for row in planned})
    with clock(timings, "read"):
        dest, store, path = context.job.dest, context.store, first["detail"]
        old = read_data_file(dest, store, "templates", path, people)
        file = layout.parse_shard_file(path)
        assert file is not None  # noqa: S101
        inputs = waves.outcomes_of(dest, store, first["content"], [file.shard])
    attempt = secrets.token_hex(8)
    sink = pa.BufferOutputStream()
    with clock(timings, "rewrite"):
        parts = old.to_batches(max_chunksize=ROW_GROUP)
        ids = write_rows(sink, ([_anew(context, shard, r) for r in p.to_pylist()] for p in parts))
    with clock(timings, "write"):
        content = memoryview(sink.getvalue())
        used = inputs.filter(contents.is_used(inputs))
        files = {"templates": publish(context, "templates", shard, attempt, content, ids)}
        sealed = _settled(context, shard, used)
    outcomes = Counter({(Outcome.USED.value, ""): len(used)})
    subjects = Counter({(Outcome.USED.value, ""): len(ids)})
    return ShardResult(
        shard, files, outcomes, len(ids), timings, subjects, attempt=attempt, rows=sealed
    )


def _anew(context: Context, shard: int, old: dict[str, Any]) -> dict[str, Any]:
    """A row under the new generation's keys. It is opened again before it counts."""
    assert context.old_keys is not None  # noqa: S101
    keys, table_id = context.keys, context.table_id
    old = {**old, "generation": context.job.renews}
    opened = open_row(table_id, old, context.old_keys)
    row = {
        **_renamed(old, context.job.purpose),
        "generation": context.job.generation,
        "key_id": keys.key_id,
        "shard": shard,
        "run_id": context.plan.run_id,
    }
    facts = _facts(context, old, row)
    row["details"] = encrypted_details(table_id, row, facts, keys)
    row["digests"] = _digests(old, row, opened, context)
    row["helper"] = encrypted_helper(table_id, row, opened.helper, keys)
    if open_row(table_id, row, keys).helper != opened.helper:
        raise ProtectionError(f"template {row['template_id']} does not open again as it was")
    return row


def _renamed(old: dict[str, Any], purpose: Purpose) -> dict[str, Any]:
    """A row for new data keys, without facts that would identify the old row.

    Its subject and the addresses of its inputs stay: they are the operator's labels.
    """
    if purpose is not Purpose.REKEY:
        return dict(old)
    return {**old, "template_id": str(uuid.uuid4()), "enrolled_at": datetime.now(UTC)}


def _facts(context: Context, old: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The encrypted facts of a row: those it had, and the ids that its layers were made under."""
    assert context.old_keys is not None  # noqa: S101
    told = details_of(context.table_id, old, context.old_keys)
    facts = {"quality": old.get("quality"), "enrolled_at": old["enrolled_at"].isoformat(), **told}
    if row["template_id"] == old["template_id"]:
        return facts
    earlier = told.get("earlier_ids", [])
    layers = len(digest.layers(context.old_keys.row_key(old["template_id"], earlier)))
    return {**facts, "earlier_ids": earlier + [old["template_id"]] * (layers - len(earlier))}


def _digests(
    old: dict[str, Any], row: dict[str, Any], opened: ProtectedTemplate, context: Context
) -> bytes:
    """The row's digests, under the additional layers of the new keys."""
    assert context.old_keys is not None  # noqa: S101
    digests, params, table_id = opened.digests, opened.params, context.table_id
    before = row_key(table_id, old, context.old_keys)
    now = row_key(table_id, row, context.keys)
    if not now.startswith(before):
        raise ProtectionError(
            f"the keys of generation {context.job.generation} do not go on from those of "
            f"{context.job.renews}: no digest can be made anew under them"
        )
    for layer in digest.layers(now)[len(digest.layers(before)) :]:
        digests = digest.relayered(digests, params, layer)
    return digests


def _outcome(context: Context, shard: int, old: dict[str, Any]) -> dict[str, Any]:
    """An outcome in the new generation: identities under its key, details bound to the new row."""
    keys = table_keys(context.keys)
    facts = decrypted(context.table_id, old, keys)
    row = {**old, "shard": shard, "run_id": context.plan.run_id, "detail": ""}
    named = Identities.of(context.keys, context.job.generation)
    row["identities"] = named.all_named(facts.get("contents", [])) or None
    row["details"] = encrypted(context.table_id, row, facts, keys)
    return row


def _settled(context: Context, shard: int, used: pa.Table) -> bytes:
    rows = [_outcome(context, shard, row) for row in used.to_pylist()]
    channel = Channel(context.keys, context.plan.run_id, shard)
    return channel.settled(pa.Table.from_pylist(rows, INPUTS))
