"""What a destination holds: its people, and the inputs that became templates or failed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ports import Tables
from pipelines.spec.outcomes import DISAGREEMENT, Outcome, Reason
from pipelines.table.identities import with_owner
from pipelines.table.run_records import runs, runs_of
from pipelines.table.text_set import TextSet


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
    """Which of some `inputs` a template was made from; those of erased people only count."""
    used = pc.equal(rows["outcome"], Outcome.USED.value)
    return pc.and_(used, pc.not_equal(rows["reason"], Reason.ERASED.value))


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
    order = {record.run_id: place for place, record in enumerate(runs(tables))}
    newest: dict[str, tuple[int, str, str]] = {}
    for batch in _outcomes(tables, failed=True):
        for row in batch.to_pylist():
            here = order.get(row["run_id"], -1), row["reason"], row["subject_id"]
            newest[row["uri"]] = max(here, newest.get(row["uri"], here))
    ever = TextSet([pa.array(list(newest), pa.string())])
    for batch in _outcomes(tables, failed=False):
        for row in batch.filter(pa.array(ever.has(batch["uri"]))).to_pylist():
            if order.get(row["run_id"], -1) > newest.get(row["uri"], (len(order),))[0]:
                del newest[row["uri"]]
    return {uri: Failure(subject, reason) for uri, (_, reason, subject) in newest.items()}


def failed_inputs(tables: Tables, reasons: Collection[str]) -> TextSet:
    """Addresses of those inputs that failed for one of some reasons, if any are given."""
    failed = newest_failures(tables).items()
    wanted = [uri for uri, failure in failed if not reasons or failure.reason in reasons]
    return TextSet([pa.array(wanted, pa.string())])


def _outcomes(tables: Tables, *, failed: bool) -> Iterator[pa.RecordBatch]:
    """Inputs that failed, or those that did not."""
    columns = ["uri", "subject_id", "run_id", "outcome", "reason"]
    for batch in tables.table("inputs").batches(columns):
        batch = batch.filter(pc.not_equal(batch["reason"], Reason.ERASED.value))
        ended = pc.equal(batch["outcome"], Outcome.FAILED.value)
        yield batch.filter(ended if failed else pc.invert(ended))
