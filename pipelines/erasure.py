"""What an erasure leaves on purpose, a pseudonym and a record, and a search for anything else."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from pipelines import layout, ledger
from pipelines.evidence import Evidence
from pipelines.ports import Store, Tables
from pipelines.records import TABLES

PURPOSE: Final = "erase"
_HEX: Final = 32


def name_of(key: bytes, subject: str) -> str:
    """A person's pseudonym: the same as long as contents are keyed with the same key."""
    mac = hmac.digest(key, b"ironmask pseudonym\0" + subject.encode(), sha256).hex()
    return layout.PSEUDONYM + mac[:_HEX]


def prove(tables: Tables, store: Store, subject: str, key: bytes) -> Evidence:
    """Look for what an erased person must not have left, in rows, logs, plans and private files.

    key: of the live generation's contents. The seal is the caller's to check.
    """
    pseudonym = name_of(key, subject)
    record = {
        f"erasure {entry.run_id}": f"{entry.counts.get('files')} files written again"
        for entry in ledger.records(tables)
        if entry.kind == PURPOSE and entry.config.get("pseudonym") == pseudonym
    }
    name = subject.encode()
    folders = [layout.join(tables.table(one).uri, "_delta_log") for one in TABLES]
    folders.append(layout.join(tables.dest, layout.PRIVATE))
    naming = [uri for folder in folders for uri in _naming(store, folder, name)]
    facts = [
        (f"no row of {table} is of the subject", not _has_rows(tables, table, subject))
        for table in ("templates", "inputs", "vault")
    ]
    facts.append(("no entry of a log, plan or private file names the subject", not naming))
    facts.append((f"an erasure is recorded, as {pseudonym}", bool(record)))
    return Evidence(tables.dest, "a subject", record).found(facts)


def _has_rows(tables: Tables, table: str, subject: str) -> bool:
    mine = pads.field("subject_id") == subject
    return len(tables.table(table).rows(["subject_id"], mine)) > 0


def _naming(store: Store, folder: str, name: bytes) -> Iterator[str]:
    """Files below a folder that hold a name, in their bytes or in their Parquet values."""
    for entry in store.entries(folder):
        content = store.read(entry.uri)
        if entry.uri.endswith(".parquet"):
            values = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
            content += repr(values.to_pylist()).encode()
        if name in content:
            yield entry.uri
