"""The contents of a destination: its subjects, and the inputs that became templates or failed."""

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
from pipelines.table.data_files import together
from pipelines.table.identities import with_owner
from pipelines.table.run_records import runs, runs_of
from pipelines.table.text_set import Greatest, TextSet

_GONE: Final = pa.array([Reason.ERASED.value, Reason.LOST.value])


def live_subjects(tables: Tables, generation: int) -> TextSet:
    """Subjects with a template in a generation: at most one issue of each subject.

    It reads these columns only, from checked footers.
    """
    wanted = together(tables.table("templates").batches(["subject_id", "generation"]))
    return TextSet(
        rows["subject_id"].filter(pc.equal(rows["generation"], generation)) for rows in wanted
    )


def used_contents(tables: Tables, generation: int) -> TextSet:
    """Identities of the contents that became a generation's templates."""
    used = _used(tables, generation, ["identities"])
    return TextSet(pc.list_flatten(batch["identities"]) for batch in used)


def used_by_subject(tables: Tables, generation: int) -> TextSet:
    """The same, each with the subject of its template (`identities.with_owner`)."""
    return TextSet(map(_owned, _used(tables, generation, ["subject_id", "identities"])))


def _owned(used: pa.Table) -> pa.Array:
    contents = used["identities"].combine_chunks()
    owners = used["subject_id"].combine_chunks()
    return with_owner(owners.take(pc.list_parent_indices(contents)), pc.list_flatten(contents))


def used_inputs(tables: Tables, generation: int) -> int:
    """The number of inputs that became a generation's templates, without erased subjects."""
    return sum(len(batch) for batch in _used(tables, generation, []))


def _used(tables: Tables, generation: int, columns: list[str]) -> Iterator[pa.Table]:
    """Some columns of the inputs that became a generation's templates."""
    runs = runs_of(tables, generation)
    own = pa.array(runs, pa.string())
    names = ["outcome", "reason", "run_id", *columns]
    for batch in together(tables.table("inputs").batches(names, runs)):
        yield batch.filter(pc.and_(is_used(batch), pc.is_in(batch["run_id"], own)))


def is_used(rows: pa.RecordBatch | pa.Table) -> pa.Array | pa.ChunkedArray:
    """Which `inputs` became a template that still exists."""
    return pc.and_(_was_used(rows), pc.invert(pc.is_in(rows["reason"], _GONE)))


def is_counted(rows: pa.RecordBatch | pa.Table) -> pa.Array | pa.ChunkedArray:
    """Which `inputs` became a template that is gone: erased, or lost. These only count."""
    return pc.and_(_was_used(rows), pc.is_in(rows["reason"], _GONE))


def is_lost(rows: pa.RecordBatch | pa.Table) -> pa.Array | pa.ChunkedArray:
    """Which `inputs` became a template that was lost with its file."""
    return pc.and_(_was_used(rows), pc.equal(rows["reason"], Reason.LOST.value))


def _was_used(rows: pa.RecordBatch | pa.Table) -> pa.Array | pa.ChunkedArray:
    return pc.equal(rows["outcome"], Outcome.USED.value)


@dataclass(frozen=True)
class Lost:
    """Subjects of a generation whose template lay in a lost file.

    gone: those without a template now. again: the number of those enrolled again; whoever has the
    lost file holds another issue of them.
    """

    gone: TextSet
    again: int


def lost_people(tables: Tables, generation: int) -> Lost:
    """The subjects who lost a template since the generation was last made from inputs.

    Rows made from rows are no new issues, so losses before such a generation count too.
    """
    known = generations.read(tables)
    numbers = [generation]
    while (one := known.get(numbers[-1])) and one.purpose.rewrites and one.parent is not None:
        numbers.append(one.parent)
    names = [run for number in numbers for run in runs_of(tables, number)]
    own = pa.array(names, pa.string())
    columns = ["subject_id", "outcome", "reason", "run_id"]
    batches = together(tables.table("inputs").batches(columns, names))
    everybody = TextSet(
        batch.filter(pc.and_(is_lost(batch), pc.is_in(batch["run_id"], own)))["subject_id"]
        for batch in batches
    )
    if not len(everybody):
        return Lost(everybody, 0)
    gone = everybody.without(live_subjects(tables, generation))
    return Lost(gone, len(everybody) - len(gone))


def people_by_disagreement(rows: pa.Table) -> dict[str, int]:
    """The number of subjects whose `inputs` show several people, by the reason that says so."""
    found = {
        reason.value: len(
            rows["subject_id"].filter(pc.equal(rows["reason"], reason.value)).unique()
        )
        for reason in DISAGREEMENT
    }
    return {reason: people for reason, people in found.items() if people}


@dataclass(frozen=True, slots=True)
class Failure:
    """The subject of a failed input, and the reason."""

    subject: str
    reason: str


def newest_failures(tables: Tables) -> dict[str, Failure]:
    """The inputs whose newest outcome is a failure, by address."""
    return {
        row["uri"]: Failure(row["subject_id"], row["reason"])
        for batch in failures(tables, ["uri", "subject_id", "reason"])
        for row in batch.to_pylist()
    }


def failures(tables: Tables, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of the outcomes of inputs whose newest outcome is a failure.

    Takes 24 bytes of memory for each input that ever failed.
    """
    order = {record.run_id: place for place, record in enumerate(runs(tables))}

    def places(batch: pa.Table) -> NDArray[np.int64]:
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
    """Addresses of inputs that failed for one of some reasons, if any reasons are given."""
    failed = newest_failures(tables).items()
    wanted = [uri for uri, failure in failed if not reasons or failure.reason in reasons]
    return TextSet([pa.array(wanted, pa.string())])


def _outcomes(tables: Tables, columns: Sequence[str], *, failed: bool) -> Iterator[pa.Table]:
    """Some columns of the inputs that failed, or of those that did not."""
    wanted = list(dict.fromkeys([*columns, "outcome", "reason"]))
    for batch in together(tables.table("inputs").batches(wanted)):
        batch = batch.filter(pc.not_equal(batch["reason"], Reason.ERASED.value))
        ended = pc.equal(batch["outcome"], Outcome.FAILED.value)
        yield batch.filter(ended if failed else pc.invert(ended))
