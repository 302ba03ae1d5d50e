"""Pseudonyms: keyed names in place of an operator's labels, which are subject ids and addresses.

A table that was enrolled with `--pseudonymous` stores an HMAC of each label. The labels themselves
are encrypted: in the plan, for those who read the inputs, and in each outcome's details.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

import pyarrow as pa

from ironmask.errors import KeyNotFoundError
from pipelines.ports import TableKeys, Tables
from pipelines.table import run_records
from pipelines.table.details import padded

_HEX: Final = 32
_PLAN: Final = "plan"
_KIND: Final = pa.large_string()
ADDRESS: Final = "address"
"""Column of a plan: subject id and address of an input, encrypted."""


@dataclass(frozen=True)
class Pseudonyms:
    """The pseudonyms of one table."""

    keys: TableKeys = field(repr=False)

    def subject(self, name: str) -> str:
        """The pseudonym of a subject."""
        return f"p-{self._mac('subject', name)}" if name else ""

    def address(self, uri: str) -> str:
        """The pseudonym of an input's address."""
        return f"a-{self._mac('address', uri)}"

    def _mac(self, kind: str, text: str) -> str:
        point = f"ironmask label\0{kind}\0{text}".encode()
        return hmac.digest(self.keys.pseudonym_key(), point, sha256).hex()[:_HEX]

    def hidden(self, batch: pa.Table) -> pa.Table:
        """Rows of a source with pseudonyms in place of their labels, which are encrypted."""
        told = (batch[name].to_pylist() for name in ("subject_id", "uri", "detail"))
        made = [self._hidden(*labels) for labels in zip(*told, strict=True)]
        names = ("subject_id", "uri", "detail", ADDRESS)
        columns = dict(zip(names, zip(*made, strict=True), strict=True))
        for name, values in columns.items():
            place = batch.schema.get_field_index(name)
            kind = batch.schema.field(place).type
            batch = batch.set_column(place, batch.schema.field(place), pa.array(values, kind))
        return batch

    def _hidden(self, subject: str, uri: str, detail: str) -> tuple[str, str, str, bytes]:
        stored = self.address(uri)
        plain = padded(json.dumps([subject, uri, detail]).encode())
        sealed = self.keys.cipher(_PLAN).encrypt(plain, stored.encode())
        return self.subject(subject), stored, "", sealed

    def shown(self, uri: str, sealed: bytes) -> tuple[str, str, str]:
        """Subject id, address and detail of a planned input, from its stored address and the
        encrypted labels. Raises `TamperedError` where they do not belong together.
        """
        found = json.loads(self.keys.cipher(_PLAN).decrypt(sealed, uri.encode()))
        subject, address, detail = map(str, found)
        return subject, address, detail


def are_kept(tables: Tables) -> bool:
    """Whether a destination holds pseudonyms rather than labels."""
    return any(job.pseudonymous for job in run_records.jobs(tables)[-1:])


def kept(tables: Tables, keys: TableKeys | None) -> Pseudonyms | None:
    """The pseudonyms of a destination; None where it holds the labels themselves.

    Raises `KeyNotFoundError` where their keys are not at hand.
    """
    if not are_kept(tables):
        return None
    if keys is None:
        raise KeyNotFoundError(
            f"{tables.dest} holds pseudonyms, and the keyset file has no keys of its table: "
            "restore it from a backup"
        )
    return Pseudonyms(keys)


def stored_subject(tables: Tables, keys: TableKeys | None, subject: str) -> str:
    """The stored name of a subject in a destination: the id itself, or its pseudonym.

    Raises as `kept` does.
    """
    found = kept(tables, keys)
    return found.subject(subject) if found else subject


def stored_subjects(tables: Tables, keys: TableKeys | None, subjects: Iterable[str]) -> list[str]:
    """The same for several subjects, in their order."""
    found = kept(tables, keys)
    return [found.subject(subject) if found else subject for subject in subjects]
