"""The last stage: embeddings of whole subjects become encrypted rows in one Parquet file."""

from __future__ import annotations

import secrets
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from mmap import mmap
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ironmask import helper
from ironmask.arrays import F64
from ironmask.centring import centre
from ironmask.errors import ProtectionError, TemplateError
from ironmask.template import Protector, row_bytes
from pipelines.ports import F32, DataFile
from pipelines.shard import vault
from pipelines.shard.agreement import of_one_person
from pipelines.shard.context import (
    AlignedShard,
    Context,
    InputRow,
    ShardResult,
    Subject,
    clock,
    subjects_by_outcome,
)
from pipelines.shard.transit import Channel
from pipelines.spec.outcomes import Outcome, Reason
from pipelines.table import grouped_files, layout
from pipelines.table.data_files import described, named
from pipelines.table.row_cipher import encrypted_details, encrypted_helper, stated
from pipelines.table.schemas import INPUTS, TEMPLATES, as_parquet

# Small row groups make a look-up cheap: it reads the helpers of one group, not of the file.
ROW_GROUP: Final = 8
_IDS: Final = ["template_id", "subject_id"]
_NOISE: Final = ("helper", "digests", "details")
# Upper limits in bytes: of a row beside its helper and digests, with its part of the footer; of a
# character in its column and in the statistics; and of the schema. The system never provides
# unused pages of this memory.
_ROW_REST: Final = 16 << 10
_NAMES: Final = 64
_FILE_REST: Final = 1 << 20
_AREAS: Final[list[mmap]] = []


def protect_shard(
    context: Context, shard: int, prepared: AlignedShard, embeddings: F32
) -> ShardResult:
    """Centre, protect, encrypt and write one shard. embeddings: (k, n) for `prepared.indices`.

    Every call draws fresh randomness and writes under its own name. Its outcomes are handed over;
    it counts once they are committed.
    """
    timings = dict(prepared.timings)
    rows = prepared.rows
    subjects = of_one_person(context.job, _by_subject(context, prepared, embeddings))
    attempt = secrets.token_hex(8)
    files: dict[str, DataFile] = {}
    with _memory(context, subjects) as memory:
        with clock(timings, "protect"):
            sink = pa.FixedSizeBufferWriter(pa.py_buffer(memory))
            enrolled = _write_templates(sink, context, shard, subjects)
        with clock(timings, "write"):
            if enrolled:
                content = memory[: sink.tell()]
                found = publish(context, "templates", shard, attempt, content, enrolled)
                files["templates"] = found
    kept = _kept(context, subjects)
    with clock(timings, "write"):
        if kept:
            content, ids = as_parquet(vault.rows(context, kept)), _ids([row for row, _ in kept])
            files["vault"] = publish(context, "vault", shard, attempt, content, ids)
        settled = pa.Table.from_pylist([row.stored(context) for row in rows], INPUTS)
        sealed = Channel(context.keys, context.plan.run_id, shard).settled(settled)
    return ShardResult(
        shard=shard,
        files=files,
        outcomes=Counter((row.outcome, row.reason) for row in rows),
        enrolled=len(enrolled),
        timings=timings,
        subjects=subjects_by_outcome(rows),
        attempt=attempt,
        rows=sealed,
    )


def _by_subject(context: Context, prepared: AlignedShard, embeddings: F32) -> list[Subject]:
    """Usable embeddings of each subject, ordered by subject. The other rows are settled."""
    groups: dict[str, tuple[list[InputRow], list[F32]]] = {}
    norms = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    for place, vector, norm in zip(prepared.indices, embeddings, norms, strict=True):
        row = prepared.rows[place]
        if not np.isfinite(vector).all():
            row.settle(Outcome.FAILED, Reason.NOT_FINITE, "the embedding holds NaN or infinity")
        elif not vector.any():
            row.settle(Outcome.FAILED, Reason.ZERO_NORM, "the embedding is zero")
        elif norm < context.job.faces.min_norm:
            row.quality = float(norm)
            row.settle(Outcome.FAILED, Reason.LOW_QUALITY, "the embedding is too short to trust")
        else:
            row.quality = float(norm)
            members = groups.setdefault(row.subject_id, ([], []))
            members[0].append(row)
            members[1].append(vector)
    return [(name, rows, np.stack(found)) for name, (rows, found) in sorted(groups.items())]


def _kept(context: Context, subjects: list[Subject]) -> list[tuple[InputRow, F32]]:
    """The inputs that go to the vault, if there is one: those that became templates."""
    if context.vault_keys is None or not context.job.vault:
        return []
    pairs = (zip(rows, vectors, strict=True) for _, rows, vectors in subjects)
    return [pair for some in pairs for pair in some if pair[0].outcome == Outcome.USED.value]


@contextmanager
def _memory(context: Context, subjects: list[Subject]) -> Iterator[memoryview]:
    """Page-aligned memory for the file of these subjects' templates.

    It is used again and again: fresh pages cost more than filling them.
    """
    job = context.job
    row = row_bytes(job.params, job.encoding)
    names = sum(len(name) + sum(len(one.uri) for one in rows) for name, rows, _ in subjects)
    size = len(subjects) * (row + _ROW_REST) + _NAMES * names + _FILE_REST
    area = _AREAS.pop() if _AREAS else mmap(-1, size)
    if len(area) < size:
        area = mmap(-1, size)
    try:
        yield memoryview(area)
    finally:
        _AREAS.append(area)


def _write_templates(
    sink: pa.NativeFile,
    context: Context,
    shard: int,
    subjects: list[Subject],
) -> list[dict[str, str]]:
    """Protect subjects, one row group at a time, into a Parquet file. Returns the ids in it."""
    job = context.job
    with Protector(job.params, job.encoding, context.filling) as protector:
        groups = (
            _protect(context, shard, subjects[start : start + ROW_GROUP], protector)
            for start in range(0, len(subjects), ROW_GROUP)
        )
        return write_rows(sink, groups)


def write_rows(sink: pa.NativeFile, groups: Iterable[list[dict[str, Any]]]) -> list[dict[str, str]]:
    """Write rows of `templates`, one row group at a time, as a Parquet file. Returns their ids."""
    schema = TEMPLATES.remove(TEMPLATES.get_field_index("generation"))
    ids: list[dict[str, str]] = []
    with grouped_files.writer(
        sink,
        schema,
        compression={name: "none" if name in _NOISE else "snappy" for name in schema.names},
        use_dictionary=False,
        write_statistics=_IDS,
        sorting_columns=[pq.SortingColumn(schema.get_field_index("subject_id"))],
    ) as writer:
        for group in groups:
            if group:
                writer.write(pa.Table.from_pylist(group, schema))
                ids += [{name: row[name] for name in _IDS} for row in group]
    return ids


def _protect(
    context: Context,
    shard: int,
    subjects: list[Subject],
    protector: Protector,
) -> list[dict[str, Any]]:
    """Protect the templates of a few subjects, and settle the outcomes of their inputs."""
    out = []
    for subject, rows, vectors in subjects:
        try:
            template = centre(vectors, context.job.params.n, context.job.centring)
            out.append(_seal(context, shard, subject, rows, template, protector))
        except TemplateError as error:
            _settle_all(rows, Outcome.FAILED, error.reason, str(error))
        except ProtectionError as error:
            _settle_all(rows, Outcome.FAILED, Reason.PROTECT_FAILED, str(error))
        else:
            for row in rows:
                row.settle(Outcome.USED, row.reason)
    return out


def _settle_all(rows: list[InputRow], outcome: Outcome, reason: str, detail: str) -> None:
    for row in rows:
        row.settle(outcome, reason, detail)


def _seal(
    context: Context,
    shard: int,
    subject: str,
    inputs: list[InputRow],
    template: F64,
    protector: Protector,
) -> dict[str, Any]:
    job = context.job
    template_id = str(uuid.uuid4())
    row_key = context.keys.row_key(template_id)
    protected = protector.protect(template, row_key)
    row = {
        "template_id": template_id,
        "subject_id": subject,
        "generation": job.generation,
        **stated(job.params),
        "encoding": helper.encoding(job.encoding).tag,
        "digests": protected.digests,
        "sealed": job.sealed,
        "key_id": context.keys.key_id,
        "model": job.model,
        "centring": str(job.centring),
        "filling": job.filling,
        "images_used": len(inputs),
        "source_uris": [row.uri for row in inputs],
        "shard": shard,
        "run_id": context.plan.run_id,
        "enrolled_at": datetime.now(UTC),
    }
    facts = {"quality": float(np.mean([row.quality for row in inputs]))}
    row["details"] = encrypted_details(context.table_id, row, facts, context.keys)
    row["helper"] = encrypted_helper(context.table_id, row, protected.helper, context.keys)
    return row


def _ids(rows: list[InputRow]) -> list[dict[str, str]]:
    return [{"subject_id": row.subject_id, "uri": row.uri} for row in rows]


def publish(
    context: Context,
    table: str,
    shard: int,
    attempt: str,
    content: memoryview,
    ids: Sequence[dict[str, str]],
) -> DataFile:
    """Write a shard's data file. It waits for its commit. ids: those of its rows."""
    partition = {"generation": str(context.job.generation)} if table == "templates" else {}
    file = named(layout.ShardFile(context.plan.run_id, shard, attempt, ""), content)
    path = layout.in_partition(partition, file.name)
    context.store.write(layout.join(context.job.dest, table, path), content)
    columns = {name: [row[name] for row in ids] for name in ids[0]}
    return described(path, len(content), columns, partition)
