"""Answers for many probes, as one Parquet file that appears whole."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from ironmask.errors import ParameterError
from pipelines.ports import Store
from pipelines.table.spool import spool
from pipelines.verification.probe import Verdict

COLUMNS: Final = pa.schema(
    [
        ("subject_id", pa.string()),
        ("uri", pa.string()),
        ("accepted", pa.bool_()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
"""accepted: null where there is no answer, and reason says why. No score is among them."""

_GROUP_ROWS: Final = 4096


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict, and whose template the probe was held against."""

    subject: str
    verdict: Verdict


@dataclass
class Answered:
    """How the probes of a manifest were answered. out: where the answers lie.

    reasons: how many have no answer, by reason.
    """

    out: str
    probes: int = 0
    accepted: int = 0
    rejected: int = 0
    unanswered: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def count(self, verdict: Verdict) -> None:
        """Add one answer."""
        self.probes += 1
        self.accepted += verdict.accepted is True
        self.rejected += verdict.accepted is False
        if verdict.accepted is None:
            self.unanswered += 1
            reason = str(verdict.reason)
            self.reasons[reason] = self.reasons.get(reason, 0) + 1


class Writer:
    """Takes answers one after another, and writes some thousand to a row group."""

    def __init__(self, parquet: pq.ParquetWriter, out: str) -> None:
        self._parquet = parquet
        self._waiting: list[Answer] = []
        self.done = Answered(out)

    def add(self, answers: Sequence[Answer]) -> None:
        """Add some answers."""
        for answer in answers:
            self.done.count(answer.verdict)
        self._waiting += answers
        if len(self._waiting) >= _GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            self._parquet.write_table(_table(self._waiting))
        self._waiting = []


def refuse_other_file(out: str, store: Store) -> None:
    """Raise `ParameterError` where something else than answers lies there already."""
    if not store.exists(out):
        return
    try:
        with store.open(out) as handle:
            known = pq.read_schema(handle).names == COLUMNS.names
    except pa.ArrowInvalid:
        known = False
    if not known:
        raise ParameterError(f"{out} is there already, and holds no answers: name another file")


@contextmanager
def writing(out: str, store: Store) -> Iterator[Writer]:
    """Write answers beside memory, and publish them at the end: a failure leaves what was there.

    Raises `StorageError` where the temporary file finds no room, or `out` cannot be written.
    """
    with spool() as file:
        with pq.ParquetWriter(file, COLUMNS, compression="zstd") as parquet:
            writer = Writer(parquet, out)
            yield writer
            writer.flush()
        file.flush()
        with (
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view,
            memoryview(view) as content,
        ):
            store.write(out, content)


def _table(answers: Sequence[Answer]) -> pa.Table:
    columns = [
        [answer.subject for answer in answers],
        [answer.verdict.probe for answer in answers],
        [answer.verdict.accepted for answer in answers],
        [str(answer.verdict.reason) for answer in answers],
        [answer.verdict.detail for answer in answers],
    ]
    return pa.table(columns, schema=COLUMNS)
