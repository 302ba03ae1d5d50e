"""What a destination holds: its people, and the inputs that became templates or failed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.ports import Tables
from pipelines.spec.outcomes import DISAGREEMENT, Outcome, Reason
from pipelines.table import generations
from pipelines.table.identities import with_owner
from pipelines.table.run_records import runs, runs_of
from pipelines.table.text_set import Greatest, TextSet

_GONE: Final = pa.array([Reason.ERASED.value, Reason.LOST.value])


def live_subjects(tables: Tables, generation: int) -> TextSet:
    """Subjects with a template in a generation: at most one issue a person.

    These columns alone, which are read from checked footers.
    """
    wanted = tables.table("templates").batches(["subject_id", "generation"])
    return TextSet(
        batch["subject_id"].filter(pc.equal(batch["generation"], generation)) for batch in wanted
    )


def used_contents(tables: Tables, generation: int) -> TextSet:
    """Identities of the contents that a generation's templates were made from."""
    used = _used(tables, generation, ["identities"])
    return TextSet(pc.list_flatten(batch["identities"]) for batch in used)


def used_by_subject(tables: Tables, generation: int) -> TextSet:
    """The same, each with the person whose template it is of (`identities.with_owner`)."""
    return TextSet(map(_owned, _used(tables, generation, ["subject_id", "identities"])))


def _owned(used: pa.RecordBatch) -> pa.Array:
    places = pc.list_parent_indices(used["identities"])
    return with_owner(used["subject_id"].take(places), pc.list_flatten(used["identities"]))


def used_inputs(tables: Tables, generation: int) -> int:
    """How many inputs a generation's templates were made from, those of erased people left out."""
    return sum(len(batch) for batch in _used(tables, generation, []))


def _used(tables: Tables, generation: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of the inputs that a generation's templates were made from."""
    own = pa.array(runs_of(tables, generation), pa.string())
    for batch in tables.table("inputs").batches(["outcome", "reason", "run_id", *columns]):
        yield batch.filter(pc.and_(is_used(batch), pc.is_in(batch["run_id"], own)))


def is_used(rows: pa.RecordBatch | pa.Table) -> pa.Array | pa.ChunkedArray:
    """Which of some `inputs` a template was made from; where that is gone they only count."""
    return pc.and_(_was_used(rows), pc.invert(pc.is_in(rows["reason"], _GONE)))


def is_counted(rows: pa.RecordBatch | pa.Table) -> pa.Array | pa.ChunkedArray:
    """Which of some `inputs` a template was made from that is gone: erased, or lost."""
    return pc.and_(_was_used(rows), pc.is_in(rows["reason"], _GONE))


def is_lost(rows: pa.RecordBatch | pa.Table) -> pa.Array | pa.ChunkedArray:
    """Which of some `inputs` a template was made from that was lost with its file."""
    return pc.and_(_was_used(rows), pc.equal(rows["reason"], Reason.LOST.value))


def _was_used(rows: pa.RecordBatch | pa.Table) -> pa.Array | pa.ChunkedArray:
    return pc.equal(rows["outcome"], Outcome.USED.value)


@dataclass(frozen=True)
class Lost:
    """People of a generation whose template lay in a file that was lost.

    gone: those who have no template now. again: how many were enrolled again: whoever has the lost
    file holds another issue of theirs.
    """

    gone: TextSet
    again: int


def lost_people(tables: Tables, generation: int) -> Lost:
    """Who lost their template since the templates of a generation were made from inputs.

    Rows that were made from rows are no other issues, so what was lost before them counts.
    """
    known = generations.read(tables)
    numbers = [generation]
    while (one := known.get(numbers[-1])) and one.purpose.rewrites and one.parent is not None:
        numbers.append(one.parent)
    own = pa.array([run for number in numbers for run in runs_of(tables, number)], pa.string())
    columns = ["subject_id", "outcome", "reason", "run_id"]
    batches = tables.table("inputs").batches(columns)
    everybody = TextSet(
        batch.filter(pc.and_(is_lost(batch), pc.is_in(batch["run_id"], own)))["subject_id"]
        for batch in batches
    )
    if not len(everybody):
        return Lost(everybody, 0)
    gone = everybody.without(live_subjects(tables, generation))
    return Lost(gone, len(everybody) - len(gone))


def people_by_disagreement(rows: pa.Table) -> dict[str, int]:
    """How many people some `inputs` say are of several, by the reason that says so."""
    found = {
        reason.value: len(
            rows["subject_id"].filter(pc.equal(rows["reason"], reason.value)).unique()
        )
        for reason in DISAGREEMENT
    }
    return {reason: people for reason, people in found.items() if people}


@dataclass(frozen=True, slots=True)
class Failure:
    """Whose input failed, and why."""

    subject: str
    reason: str


def newest_failures(tables: Tables) -> dict[str, Failure]:
    """The inputs whose newest outcome is a failure, by address."""
    return {
        row["uri"]: Failure(row["subject_id"], row["reason"])
        for batch in failures(tables, ["uri", "subject_id", "reason"])
        for row in batch.to_pylist()
    }


def failures(tables: Tables, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of the outcomes of those inputs whose newest outcome is a failure.

    Takes 24 bytes for each input that ever failed.
    """
    order = {record.run_id: place for place, record in enumerate(runs(tables))}

    def places(batch: pa.RecordBatch) -> NDArray[np.int64]:
        found = (order.get(run_id, -1) for run_id in batch["run_id"].to_pylist())
        return np.fromiter(found, np.int64, len(batch))

    keys = ["uri", "run_id"]
    failed = _outcomes(tables, keys, failed=True)
    newest = Greatest((batch["uri"], places(batch)) for batch in failed)
    for batch in _outcomes(tables, keys, failed=False):
        newest.raise_to(batch["uri"], places(batch))
    for batch in _outcomes(tables, [*keys, *columns], failed=True):
        mask = newest.are(batch["uri"], places(batch))
        yield batch.filter(pa.array(mask)).select(list(columns))


def failed_inputs(tables: Tables, reasons: Collection[str]) -> TextSet:
    """Addresses of those inputs that failed for one of some reasons, if any are given."""
    failed = newest_failures(tables).items()
    wanted = [uri for uri, failure in failed if not reasons or failure.reason in reasons]
    return TextSet([pa.array(wanted, pa.string())])


def _outcomes(tables: Tables, columns: Sequence[str], *, failed: bool) -> Iterator[pa.RecordBatch]:
    """Some columns of the inputs that failed, or of those that did not."""
    wanted = list(dict.fromkeys([*columns, "outcome", "reason"]))
    for batch in tables.table("inputs").batches(wanted):
        batch = batch.filter(pc.not_equal(batch["reason"], Reason.ERASED.value))
        ended = pc.equal(batch["outcome"], Outcome.FAILED.value)
        yield batch.filter(ended if failed else pc.invert(ended))
