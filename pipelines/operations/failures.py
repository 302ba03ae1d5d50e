"""List the failed inputs of a destination: those whose newest outcome is a failure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from infra.keys.key_file import KeyFile
from infra.settings import load as load_settings
from ironmask.errors import ParameterError, TableError
from pipelines.ports import TableKeys, Tables
from pipelines.setup import ports
from pipelines.setup.places import existing, keys_path
from pipelines.spec.outcomes import FAILURES
from pipelines.table import contents, pseudonyms, run_records
from pipelines.table.details import decrypted
from pipelines.table.log_seal_file import NOT_CHECKED

_COLUMNS: Final = ["subject_id", "uri", "reason", "detail", "details", "run_id"]
SEALED: Final = "checked against the seal"
NO_KEYS: Final = "no keys, so no details: name the keyset file with --keys"
PSEUDONYMS: Final = "no keys, so no details, and pseudonyms: name the keyset file with --keys"


@dataclass(frozen=True, slots=True)
class FailedInput:
    """One failed input. detail: its fault; empty without keys."""

    subject: str
    address: str
    reason: str
    detail: str
    run_id: str


@dataclass(frozen=True)
class Failures:
    """The failed inputs of a destination. inputs: can be read once, one part at a time.

    seal: how far the seal was checked. note: what is not shown and why, or empty.
    """

    dest: str
    seal: str
    note: str
    inputs: Iterator[FailedInput] = field(repr=False)


def failures(
    dest: str, keys: str | None, *, reasons: tuple[str, ...] = (), run_id: str | None = None
) -> Failures:
    """Find the failed inputs of a destination. With its keys, labels and details are readable.

    reasons, run_id: only failures for one of these reasons, and of that run. Without `keys` it
    looks for the keyset file in the usual place. Raises `ParameterError` for an unknown reason,
    `TableError` for an unknown run.
    """
    if unknown := sorted(set(reasons) - set(FAILURES)):
        raise ParameterError(
            f"no input fails for {', '.join(unknown)}; the reasons are "
            f"{', '.join(sorted(FAILURES))}"
        )
    settings, storage = load_settings()
    stored = existing(dest, storage)
    path = keys_path(keys, settings, stored)
    tables: Tables = stored
    table_keys, seal = None, NOT_CHECKED
    if keys or settings.keys or path.exists():
        file = KeyFile.open(path, stored.table_id)
        tables = ports.sealed(stored, ports.open_store(storage), file)
        table_keys, seal = file.table(), SEALED
    known = [record.run_id for record in run_records.runs(tables)]
    if run_id is not None and run_id not in known:
        raise TableError(
            f"{tables.dest} has no run {run_id}; its runs are {', '.join(known) or 'none'}"
        )
    note = ""
    if seal == NOT_CHECKED:
        note = PSEUDONYMS if pseudonyms.are_kept(tables) else NO_KEYS
    found = _inputs(tables, table_keys, reasons, run_id)
    # Read the first row before anything is reported: damage is then known.
    first = list(islice(found, 1))
    return Failures(tables.dest, seal, note, chain(first, found))


def _inputs(
    tables: Tables, keys: TableKeys | None, reasons: tuple[str, ...], run_id: str | None
) -> Iterator[FailedInput]:
    for batch in contents.failures(tables, _COLUMNS):
        if reasons:
            batch = batch.filter(pc.is_in(batch["reason"], pa.array(reasons)))
        if run_id is not None:
            batch = batch.filter(pc.equal(batch["run_id"], run_id))
        for row in batch.to_pylist():
            yield _input(tables.table_id, row, keys)


def _input(table_id: str, row: dict[str, Any], keys: TableKeys | None) -> FailedInput:
    """A failed input from a row of `inputs`. Its encrypted parts need keys."""
    facts = decrypted(table_id, row, keys) if keys else {"detail": row["detail"]}
    return FailedInput(
        subject=str(facts.get("subject", row["subject_id"])),
        address=str(facts.get("address", row["uri"])),
        reason=row["reason"],
        detail=str(facts.get("detail", "")),
        run_id=row["run_id"],
    )
