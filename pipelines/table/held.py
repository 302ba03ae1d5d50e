"""A destination that this process holds against other runs."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

import pyarrow as pa

from pipelines.ports import DataFile, GenerationKeys, Store, Tables
from pipelines.table import layout
from pipelines.table.log_entries import Commit
from pipelines.table.log_seal import LogSeal
from pipelines.table.schemas import as_parquet


@dataclass(frozen=True)
class Destination:
    """Its tables, store and keys, the hold on it, and the seal over its logs.

    tables: all that the seal vouches for, with this process's own commits. old_keys: of the
    generation that is being replaced, if one is. check: raises `BusyError` once another run has
    taken over; called before each commit and before anything is destroyed. own: paths of its
    keyset files, which are never inputs.
    """

    tables: Tables
    store: Store
    keys: GenerationKeys = field(repr=False)
    check: Callable[[], None] = field(repr=False)
    log_seal: LogSeal = field(repr=False)
    old_keys: GenerationKeys | None = field(default=None, repr=False)
    own: tuple[str, ...] = ()

    def commit(self, *commits: Commit) -> None:
        """Change tables, one after the other. No table is ever changed in another way.

        Raises `BusyError` where another run has taken over, `TableError` where somebody else has
        added to a log.
        """
        self.check()
        self.log_seal.commit(*commits)

    def sequence(self, name: str, application: str) -> int:
        """The last sequence number committed to a table under an application's name, or 0."""
        return self.log_seal.sequence(name, application)

    def append(self, name: str, rows: pa.Table, once: str = "") -> None:
        """Add a few rows to a table as one commit. once: a name; under it, only the first time."""
        if once and self.sequence(name, once):
            return
        content = as_parquet(rows)
        digest = sha256(content).hexdigest()
        attempt = secrets.token_hex(8)
        path = layout.rows_file(attempt, digest)
        self.store.write(layout.join(self.tables.table(name).uri, path), content)
        file = DataFile(path, len(content), len(rows), digest, {}, {}, {})
        self.commit(Commit(name, [file], once or f"rows/{attempt}", 1))
