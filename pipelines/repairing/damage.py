"""What of a table's data is lost: files that sealed logs list and that are not what was written.

A digest in a file's name says what was written, the sealed log lists the names. Nothing else is
asked, and what lies beside the listed files tells nothing.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ironmask.errors import TableError
from pipelines.ports import Store, Tables
from pipelines.table import contents, layout, waves
from pipelines.table.data_files import is_intact
from pipelines.table.grouped_files import CheckedParts, Footer, footer_of
from pipelines.table.layout import Attempt
from pipelines.table.schemas import TABLES

# A transfer that went wrong is no loss.
_LOOKS: Final = 2


@dataclass(frozen=True)
class LostFile:
    """A data file of templates that is lost. path: in its table. inputs: the file with the outcomes
    of the same attempt.

    people: whose rows cannot be had any more. sound: the others, whose rows still are what was
    written; None where there are none.
    """

    path: str
    shard: int
    inputs: str
    people: frozenset[str]
    sound: pa.Table | None = field(repr=False)


@dataclass(frozen=True)
class Damage:
    """What is lost of a table, as paths in its tables. others: of tables that nothing can be made
    anew for, as addresses. embeddings: in the files of the vault.
    """

    templates: list[str] = field(default_factory=list)
    vault: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    embeddings: int = 0

    def __bool__(self) -> bool:
        return bool(self.templates or self.vault or self.others)


def find(tables: Tables, store: Store) -> Damage:
    """Read every file that the logs list. Raises `StorageError` where one cannot be asked for."""
    lost = {name: _lost(tables, store, name) for name in TABLES}
    counts = tables.table("vault").counts()
    return Damage(
        templates=lost["templates"],
        vault=lost["vault"],
        others=[
            layout.join(tables.table(name).uri, path)
            for name in TABLES
            if name not in ("templates", "vault")
            for path in lost[name]
        ],
        embeddings=sum(counts[path] for path in lost["vault"]),
    )


def _lost(tables: Tables, store: Store, name: str) -> list[str]:
    table = tables.table(name)
    paths = sorted(table.files())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(partial(_is_lost, store, table.uri), paths)
        return [path for path, is_lost in zip(paths, found, strict=True) if is_lost]


def _is_lost(store: Store, base: str, path: str) -> bool:
    return not any(is_intact(path, _read(store, base, path)) for _ in range(_LOOKS))


def _read(store: Store, base: str, path: str) -> bytes:
    try:
        return store.read(layout.join(base, path))
    except FileNotFoundError:
        return b""


def examined(tables: Tables, store: Store, path: str, inputs: dict[Attempt, str]) -> LostFile:
    """Whose rows a lost file of templates had, and which of them are still sound.

    Its footer tells, where that is what was written; else the inputs that its attempt used. Raises
    `TableError` where neither can tell.
    """
    table = tables.table("templates")
    rows, file = table.counts()[path], layout.parse_shard_file(path)
    own = inputs.get(layout.attempt_of(file)) if file else None
    if file is None or own is None:
        raise _unknown(tables, path, rows)
    content = _read(store, table.uri, path)
    footer = _checked(content, file.sha256) if file.groups else None
    if footer is None:
        used = _used(tables, path, waves.outcomes_of(tables.dest, store, own, [file.shard]))
        return LostFile(path, file.shard, own, used, None)
    view = memoryview(content)
    wrong = [sha256(view[a:b]).hexdigest() != digest for a, b, digest in footer.groups]
    people = {
        owner
        for owners, is_wrong in zip(footer.owners, wrong, strict=True)
        if is_wrong
        for owner in owners
    }
    return LostFile(path, file.shard, own, frozenset(people), _sound(content, footer, wrong))


def _checked(content: bytes, digest: str) -> Footer | None:
    """The footer of a file, where it is what was written."""
    try:
        footer = footer_of(content)
    except ValueError:
        return None
    return footer if footer and footer.digest == digest else None


def _sound(content: bytes, footer: Footer, wrong: list[bool]) -> pa.Table | None:
    """The rows of the row groups that are what was written."""
    numbers = [number for number, is_wrong in enumerate(wrong) if not is_wrong]
    if not numbers:
        return None
    parts = CheckedParts(footer.start + len(footer.content))
    parts.add(footer.start, footer.content)
    for start, end, _ in (footer.groups[number] for number in numbers):
        parts.add(start, content[start:end])
    parquet = pq.ParquetFile(pa.PythonFile(parts, mode="r"))
    return parquet.read_row_groups(numbers, use_threads=False)


def _used(tables: Tables, path: str, outcomes: pa.Table) -> frozenset[str]:
    """The people whose inputs the attempt of a file of templates used: so many as it has rows.
    outcomes: of its inputs.

    Where a repair was broken off, some or all of them count as lost already; of earlier ones, who
    were lost before are no part of the file.
    """
    used = _people(outcomes, contents.is_used(outcomes))
    both = used | _people(outcomes, contents.is_lost(outcomes))
    rows = tables.table("templates").counts()[path]
    for people in (used, both):
        if len(people) == rows:
            return people
    raise _unknown(tables, path, rows)


def _people(outcomes: pa.Table, mask: pa.ChunkedArray) -> frozenset[str]:
    return frozenset(pc.unique(outcomes.filter(mask)["subject_id"]).to_pylist())


def _unknown(tables: Tables, path: str, rows: int) -> TableError:
    return TableError(
        f"{layout.join(tables.table('templates').uri, path)} is lost, and nothing that is sealed "
        f"says whose its {rows:,} templates were: restore it from a backup"
    )
