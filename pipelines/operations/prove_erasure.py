"""Search for traces of an erased subject beside the pseudonym and the record that are kept."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from typing import Final

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from pipelines.ports import GenerationKeys, Store, Tables
from pipelines.spec.template_job import TemplateJob
from pipelines.table import layout, run_records
from pipelines.table.evidence import Evidence
from pipelines.table.pseudonyms import stored_subject
from pipelines.table.schemas import TABLES

PURPOSE: Final = "erase"
_HEX: Final = 32
# In this field, Delta logs have numbers of generations as texts.
_PARTITION: Final = "partitionValues"


def names_of(keys: GenerationKeys, subject: str) -> list[str]:
    """A subject's pseudonyms: by the table's keys, and as older tables made them.

    The first stays the same as long as the table lives. The second stays the same as long as rows
    are made from rows.
    """
    before = [] if keys.table is None else [keys.table.pseudonym_key()]
    macs = [
        hmac.digest(key, b"ironmask pseudonym\0" + subject.encode(), sha256).hex()
        for key in (*before, keys.content_key())
    ]
    return [layout.PSEUDONYM + mac[:_HEX] for mac in macs]


def prove(tables: Tables, store: Store, subject: str, keys: GenerationKeys) -> Evidence:
    """Look for traces that an erased subject must not leave: in rows, logs, plans, private files.

    keys: of the live generation. If older software made the erasure, its record cannot be found
    after the next re-protection. The caller checks the seal.
    """
    names = names_of(keys, subject)
    record = {
        f"erasure {entry.run_id}": (
            f"{entry.counts['templates']} templates, as {entry.config['pseudonym']}"
        )
        for entry in run_records.records(tables)
        if entry.kind == PURPOSE and entry.config.get("pseudonym") in names
    }
    folders = [layout.join(tables.table(one).uri, "_delta_log") for one in TABLES]
    folders.append(layout.join(tables.dest, layout.PRIVATE))
    stored = stored_subject(tables, keys.table, subject)
    naming_texts = _Names(subject, stored, run_records.jobs(tables))
    naming = [uri for folder in folders for uri in _naming(store, folder, naming_texts)]
    facts = [
        (f"no row of {table} is of the subject", not _has_rows(tables, table, stored))
        for table in ("templates", "inputs", "vault")
    ]
    facts.append(("no entry of a log, plan or private file names the subject", not naming))
    known = record or {"erasure": "none is recorded under the present keys"}
    return Evidence(tables.dest, "a subject", known).found(facts)


def _has_rows(tables: Tables, table: str, subject: str) -> bool:
    mine = pads.field("subject_id") == subject
    return len(tables.table(table).rows(["subject_id"], mine, [subject])) > 0


class _Names:
    """Finds texts that name a subject: its id, and addresses in a folder of that name."""

    def __init__(self, subject: str, stored: str, jobs: Iterable[TemplateJob]) -> None:
        """stored: the subject's stored name: the id, or a pseudonym."""
        self._subjects = {subject, stored}
        sources = {s for job in jobs for s in (job.source, *job.more_sources)}
        self._folders = tuple(layout.join(source, subject) + "/" for source in sources)

    def are_in(self, value: object) -> bool:
        """Whether any text in a value, at any depth, names the subject."""
        if isinstance(value, str):
            return self._names(value)
        if isinstance(value, dict):
            parts = (pair for pair in value.items() if pair[0] != _PARTITION)
            return any(self.are_in(one) for pair in parts for one in pair)
        return isinstance(value, list | tuple) and any(map(self.are_in, value))

    def _names(self, text: str) -> bool:
        if text[:1] in ("{", "["):
            with suppress(ValueError):
                return self.are_in(json.loads(text))
        # The detail of a duplicate ends with the address of another input.
        return text in self._subjects or any(folder in text for folder in self._folders)


def _naming(store: Store, folder: str, names: _Names) -> Iterator[str]:
    """Files below a folder that name a subject."""
    for entry in store.entries(folder):
        content = store.read(entry.uri)
        found: list[object]
        if entry.uri.endswith(".parquet"):
            parquet = pq.ParquetFile(pa.BufferReader(content))
            found = parquet.read(use_threads=False).to_pylist()
        else:
            found = list(content.decode("utf-8", "replace").splitlines())
        if names.are_in(found):
            yield entry.uri
