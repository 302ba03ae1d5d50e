"""The stages of an enrolment as plain functions: prepare, embed, finish.

`prepare` and `embed` may run on other machines than `finish`; embeddings travel between them
sealed. Helpers never travel: `finish` makes, encrypts and writes them in one call.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import md5, sha256
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ironmask.errors import ImageError, SourceError
from ironmask.filling import Filling
from ironmask.template import row_bytes
from pipelines.job import EnrolJob, SourceKind
from pipelines.plan import Plan
from pipelines.ports import F32, U8, Aligner, DataFile, GenerationKeys, Recogniser, Store
from pipelines.records import Outcome, Reason

_CROP = (112, 112, 3)
_STORED = ["subject_id", "embedding"]
# A larger row group is decoded anew for each shard instead of being kept.
_GROUP_BYTES = 512 << 20
# A worker with its decoder, without and with both models loaded.
_STORED_BYTES = 300 << 20
_MODEL_BYTES = 700 << 20
# Rows, their pages and the file are in memory at the same time.
_COPIES = 3


@dataclass(slots=True)
class InputRow:
    """One row of `inputs` in the making."""

    uri: str
    subject_id: str
    shard: int
    run_id: str
    outcome: str = ""
    reason: str = ""
    detail: str = ""
    sha256: str | None = None
    identities: list[str] | None = None
    face_x1: float | None = None
    face_y1: float | None = None
    face_x2: float | None = None
    face_y2: float | None = None
    faces: int | None = None
    det_score: float | None = None
    sharpness: float | None = None
    quality: float | None = None

    def settle(self, outcome: Outcome, reason: str = Reason.NONE, detail: str = "") -> None:
        self.outcome, self.reason, self.detail = outcome.value, Reason(reason).value, detail


@dataclass(frozen=True, slots=True)
class Prepared:
    """A shard's inputs after detection: crops[i] belongs to rows[places[i]].

    crops: (k, 112, 112, 3) uint8 BGR.
    """

    rows: list[InputRow]
    places: list[int]
    crops: U8 = field(repr=False)
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """What every stage of one run shares inside one process."""

    job: EnrolJob
    plan: Plan
    table_id: str
    store: Store = field(repr=False)
    keys: GenerationKeys = field(repr=False)
    filling: Filling | None = None
    old_keys: GenerationKeys | None = field(default=None, repr=False)
    vault_keys: GenerationKeys | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What leaves a finished shard: names, counts and times, nothing about any face."""

    shard: int
    files: dict[str, DataFile]
    outcomes: Counter[tuple[str, str]]
    enrolled: int
    timings: dict[str, float]


@contextmanager
def clock(timings: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds a block takes to timings[name]."""
    start = time.perf_counter()
    try:
        yield
    finally:
        timings[name] = timings.get(name, 0.0) + time.perf_counter() - start


def prepare(context: Context, shard: int, aligner: Aligner) -> Prepared:
    """Read, decode, detect and align the inputs of one shard."""
    timings: dict[str, float] = {}
    planned = context.plan.shard(shard, context.store)
    rows = [input_row(context, item) for item in planned]
    todo = [place for place, row in enumerate(rows) if not row.outcome]
    limit = context.job.faces.max_bytes
    data = context.store.read_many([rows[place].uri for place in todo], limit)
    crops: list[U8] = []
    places: list[int] = []
    for place in todo:
        with clock(timings, "read"):
            content = next(data)
        with clock(timings, "detect"):
            crop = _align(rows[place], content, planned[place]["content"], aligner)
        if crop is not None:
            crops.append(crop)
            places.append(place)
    stacked = np.stack(crops) if crops else no_crops()
    return Prepared(rows, places, stacked, timings)


def input_row(context: Context, item: dict[str, Any]) -> InputRow:
    """A planned input's row; one that needs no work has its outcome."""
    row = InputRow(item["uri"], item["subject_id"], item["shard"], context.plan.run_id)
    if item["outcome"]:
        row.settle(Outcome(item["outcome"]), item["reason"], item["detail"])
    return row


def _align(
    row: InputRow, content: bytes | OSError, planned: str | None, aligner: Aligner
) -> U8 | None:
    """Record what one image shows; None where it cannot be used."""
    if isinstance(content, OSError):
        row.settle(Outcome.FAILED, getattr(content, "reason", Reason.UNREADABLE), str(content))
        return None
    row.sha256 = sha256(content).hexdigest()
    md5sum = md5(content, usedforsecurity=False).hexdigest()
    row.identities = [f"sha256:{row.sha256}", f"md5:{md5sum}"]
    # What could not be read when it was planned was never compared with the other inputs.
    if planned not in row.identities:
        row.settle(Outcome.FAILED, Reason.CHANGED_SINCE_PLAN, "the content differs from the plan's")
        return None
    try:
        face = aligner.align(content)
    except ImageError as error:
        row.settle(Outcome.FAILED, error.reason, str(error))
        return None
    row.face_x1, row.face_y1, row.face_x2, row.face_y2 = (float(edge) for edge in face.box)
    row.faces, row.det_score, row.sharpness = face.faces, face.score, face.sharpness
    return face.crop


def no_crops() -> U8:
    """The crops of inputs that are no images."""
    return np.empty((0, *_CROP), dtype=np.uint8)


def embed(prepared: Prepared, recogniser: Recogniser) -> F32:
    """Return the raw embeddings of a shard's crops, (k, n) float32."""
    if not len(prepared.crops):
        return np.empty((0, recogniser.n), dtype=np.float32)
    return recogniser.embed(prepared.crops)


def load_embeddings(context: Context, shard: int) -> tuple[Prepared, F32]:
    """Read one shard of stored embeddings: the rows, and the (k, n) float32 that can be used."""
    timings: dict[str, float] = {}
    planned = context.plan.shard(shard, context.store)
    rows = [input_row(context, item) for item in planned]
    todo = [place for place, row in enumerate(rows) if not row.outcome]
    with clock(timings, "read"):
        found = _take(context, [planned[place]["row"] for place in todo])
    n = context.job.params.n
    places, usable = [], []
    for place, (subject, vector) in zip(todo, found, strict=True):
        content = planned[place]["content"]
        rows[place].identities = [content] if content else None
        if subject != rows[place].subject_id:
            detail = "the row belongs to another subject now"
            rows[place].settle(Outcome.FAILED, Reason.CHANGED_SINCE_PLAN, detail)
            continue
        if vector is None or vector.shape != (n,):
            width = 0 if vector is None else len(vector)
            detail = f"{width} values where the table has {n}"
            rows[place].settle(Outcome.FAILED, Reason.WRONG_WIDTH, detail)
            continue
        places.append(place)
        usable.append(vector)
    stacked = np.stack(usable) if usable else np.empty((0, n), dtype=np.float32)
    return Prepared(rows, places, no_crops(), timings), stacked


def _take(context: Context, wanted: list[int]) -> list[tuple[str, F32 | None]]:
    """Subjects and embeddings at the given rows of the source, from the row groups that hold them.

    Raises `SourceError` where the file is not the one that was planned.
    """
    source, store, version = context.job.source, context.store, context.plan.source_version
    if store.version(source) != version:
        raise SourceError(
            f"{source} was replaced after the run was planned: its rows may belong to others now; "
            "put the planned file back, or add --restart to plan the rest afresh"
        )
    metadata = _metadata(source, store, version)
    found: dict[int, tuple[str, F32 | None]] = {}
    start = 0
    for group in range(metadata.num_row_groups):
        end = start + metadata.row_group(group).num_rows
        inside = [row for row in wanted if start <= row < end]
        if inside:
            small = metadata.row_group(group).total_byte_size <= _GROUP_BYTES
            read = _row_group if small else _row_group.__wrapped__
            rows = read(source, store, version, group)
            subjects = pc.cast(rows["subject_id"], pa.large_string())
            for row in inside:
                vector = _vector(rows["embedding"][row - start])
                found[row] = subjects[row - start].as_py(), vector
        start = end
    return [found[row] for row in wanted]


@lru_cache(maxsize=2)
def _metadata(source: str, store: Store, _version: str) -> pq.FileMetaData:
    with store.open(source) as handle:
        return pq.ParquetFile(handle).metadata


# Neighbouring shards lie in the same row group, which can only be decoded whole.
@lru_cache(maxsize=1)
def _row_group(source: str, store: Store, version: str, group: int) -> pa.Table:
    with store.open(source) as handle:
        parquet = pq.ParquetFile(handle, metadata=_metadata(source, store, version))
        return parquet.read_row_group(group, columns=_STORED)


def _vector(value: pa.ListScalar) -> F32 | None:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        return np.asarray(value.values, np.float32) if value.is_valid else None


def is_stored(job: EnrolJob) -> bool:
    """Tell whether the source holds embeddings, so that no model is needed."""
    return job.kind in (SourceKind.EMBEDDINGS, SourceKind.VAULT)


def bytes_in_memory(job: EnrolJob) -> int:
    """About what a process takes that does one shard of a job."""
    models = _STORED_BYTES if is_stored(job) else _MODEL_BYTES
    return models + _COPIES * job.shard_size * row_bytes(job.params, job.encoding)
