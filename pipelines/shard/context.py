"""The data that the stages of one shard share and pass on: unfinished rows, crops, the result.

Stages are plain functions. Photos may be prepared and embedded on other machines than the one that
protects them; embeddings travel encrypted. Helpers never travel: `protect_shard` makes, encrypts
and writes them in one call.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ironmask.filling import Filling
from ironmask.template import row_bytes
from pipelines.plan.plans import Plan
from pipelines.ports import F32, U8, DataFile, GenerationKeys, Store
from pipelines.spec.outcomes import Outcome, Reason
from pipelines.spec.template_job import SourceKind, TemplateJob
from pipelines.table.details import encrypted, table_keys
from pipelines.table.identities import Identities
from pipelines.table.pseudonyms import ADDRESS, Pseudonyms

_CROP = (112, 112, 3)
_PLAIN = ("uri", "subject_id", "outcome", "reason", "shard", "run_id")
# Bytes of a worker with its decoder: without models, and with both models loaded.
_STORED_BYTES = 300 << 20
_MODEL_BYTES = 700 << 20
# Rows, their pages and the file are in memory at the same time.
_COPIES = 3


@dataclass(slots=True)
class InputRow:
    """One unfinished row of `inputs`.

    contents: names of its content (`table.identities`). face: box, score, sharpness, number of
    faces. labels: subject id and address, where the row has pseudonyms for them.
    """

    uri: str
    subject_id: str
    shard: int
    run_id: str
    outcome: str = ""
    reason: str = ""
    detail: str = ""
    contents: list[str] = field(default_factory=list)
    face: dict[str, Any] = field(default_factory=dict)
    quality: float | None = None
    labels: tuple[str, str] | None = None

    @property
    def address(self) -> str:
        """The input's address."""
        return self.labels[1] if self.labels else self.uri

    @property
    def subject(self) -> str:
        """The input's subject, as the source names it."""
        return self.labels[0] if self.labels else self.subject_id

    def settle(self, outcome: Outcome, reason: str = Reason.NONE, detail: str = "") -> None:
        self.outcome, self.reason, self.detail = outcome.value, Reason(reason).value, detail

    def stored(self, context: Context) -> dict[str, Any]:
        """The row as it is stored: facts about the input encrypted, its identities keyed."""
        keys = table_keys(context.keys)
        row = {name: getattr(self, name) for name in _PLAIN}
        facts = {
            "detail": self.detail,
            "contents": self.contents,
            "quality": self.quality,
            **self.face,
            **(dict(zip(("subject", "address"), self.labels, strict=True)) if self.labels else {}),
        }
        named = Identities.of(context.keys, context.job.generation).all_named(self.contents)
        details = encrypted(context.table_id, row, facts, keys)
        return {**row, "detail": "", "identities": named or None, "details": details}


# A subject, its inputs that count, and their (m, n) embeddings.
Subject = tuple[str, list[InputRow], F32]


@dataclass(frozen=True, slots=True)
class AlignedShard:
    """A shard's inputs after detection: crops[i] belongs to rows[indices[i]].

    crops: (k, 112, 112, 3) uint8 BGR.
    """

    rows: list[InputRow]
    indices: list[int]
    crops: U8 = field(repr=False)
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """The objects that all stages of one run share in one process."""

    job: TemplateJob
    plan: Plan
    table_id: str
    store: Store = field(repr=False)
    keys: GenerationKeys = field(repr=False)
    filling: Filling | None = None
    old_keys: GenerationKeys | None = field(default=None, repr=False)
    vault_keys: GenerationKeys | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ShardResult:
    """The result of a finished shard: names, counts and times, but nothing about any face.

    outcomes, subjects: inputs and subjects by outcome and reason. node: the machine's own name.
    attempt: 16 hex digits, new for each writing. rows: the shard's `inputs`, encrypted on their way
    to whoever writes those of many shards as one file.
    """

    shard: int
    files: dict[str, DataFile]
    outcomes: Counter[tuple[str, str]]
    enrolled: int
    timings: dict[str, float]
    subjects: Counter[tuple[str, str]] = field(default_factory=Counter)
    node: str = field(default_factory=platform.node)
    attempt: str = ""
    rows: bytes = field(default=b"", repr=False)


@contextmanager
def clock(timings: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds of a block to timings[name]."""
    start = time.perf_counter()
    try:
        yield
    finally:
        timings[name] = timings.get(name, 0.0) + time.perf_counter() - start


def subjects_by_outcome(rows: Iterable[InputRow]) -> Counter[tuple[str, str]]:
    """Subjects by outcome and reason: used where one of their inputs was, else as most of those of
    the outcome that says most: failed, then duplicate, then skipped.
    """
    found: dict[str, Counter[tuple[str, str]]] = {}
    for row in rows:
        if row.subject_id:
            found.setdefault(row.subject_id, Counter())[row.outcome, row.reason] += 1
    order = {outcome.value: place for place, outcome in enumerate(Outcome)}
    return Counter(
        min(seen, key=lambda one: (order[one[0]], -seen[one], one)) for seen in found.values()
    )


def input_row(context: Context, item: dict[str, Any]) -> InputRow:
    """The row of a planned input. If it needs no work, it has its outcome."""
    row = InputRow(item["uri"], item["subject_id"], item["shard"], context.plan.run_id)
    if item.get(ADDRESS):
        subject, address, detail = Pseudonyms(table_keys(context.keys)).shown(
            row.uri, item[ADDRESS]
        )
        row.labels = subject, address
        item = {**item, "detail": item["detail"] or detail}
    if item["outcome"]:
        row.settle(Outcome(item["outcome"]), item["reason"], item["detail"])
    return row


def no_crops() -> U8:
    """The crops of inputs that are no images."""
    return np.empty((0, *_CROP), dtype=np.uint8)


def is_stored(job: TemplateJob) -> bool:
    """Tell whether the source holds embeddings, so that no model is needed."""
    return job.kind in (SourceKind.EMBEDDINGS, SourceKind.VAULT)


def bytes_in_memory(job: TemplateJob) -> int:
    """About how many bytes a process takes that does one shard of a job."""
    models = _STORED_BYTES if is_stored(job) else _MODEL_BYTES
    return models + _COPIES * job.shard_size * row_bytes(job.params, job.encoding)
