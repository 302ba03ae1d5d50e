"""Data files that no commit lists: how they are found and destroyed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from typing import Final

from ironmask.errors import TableError, TamperedError
from pipelines.ports import Store, Tables
from pipelines.table import layout, waves
from pipelines.table.layout import Attempt
from pipelines.table.schemas import TABLES

# In the order of their commits. The tables after templates belong to the same attempts.
DATA_TABLES: Final = ("templates", "vault", "inputs")
FOLLOWING: Final = DATA_TABLES[1:]


def uncommitted_inputs(tables: Tables, store: Store) -> set[Attempt]:
    """Attempts whose templates are committed but whose inputs are not; from at most one wave.

    A file of inputs that cannot tell its attempts counts for none.
    """
    waiting = committed_templates(tables)
    for _, own in waves.listed(tables, store, wrong=lambda *_: None):
        waiting.difference_update(own)
    return waiting


def committed_templates(tables: Tables, runs: Collection[str] | None = None) -> set[Attempt]:
    """Attempts whose templates are committed, of some runs or of all."""
    paths = tables.table("templates").files()
    named = (layout.parse_shard_file(path) for path in paths if layout.is_of(path, runs))
    return {layout.attempt_of(file) for file in named if file}


class _Waiting:
    """Tells of unlisted files whether they follow committed templates of an interrupted wave.

    It is found out at the first question: there are few such files.
    """

    def __init__(self, tables: Tables, store: Store) -> None:
        self._tables, self._store = tables, store

    @cached_property
    def _attempts(self) -> set[Attempt]:
        return uncommitted_inputs(self._tables, self._store)

    def has(self, uri: str) -> bool:
        if layout.run_of(uri) is None or not self._attempts:
            return False
        try:
            own = waves.attempts_in(self._store, uri)
        except (TableError, TamperedError):
            # It may be the one that is waited for: whoever completes the wave says so.
            return layout.run_of(uri) in {run_id for run_id, *_ in self._attempts}
        return not self._attempts.isdisjoint(own)


def orphans(tables: Tables, store: Store) -> Iterator[str]:
    """Addresses of data files that no commit lists, also those that survive as older versions.

    A retried or killed task leaves such files. They must not stay: if two issues of one person
    survive anywhere, they can be broken together. Files that follow committed templates of an
    interrupted wave are not orphans: they wait for their commit.
    """
    waiting = _Waiting(tables, store)
    for name in TABLES:
        table = tables.table(name)
        listed = table.files()
        base = table.uri.rstrip("/") + "/"
        for uri in store.remains(table.uri):
            if not layout.is_ours(uri) or uri.removeprefix(base) in listed:
                continue
            if not (name in FOLLOWING and waiting.has(uri)):
                yield uri
    private = store.remains(layout.join(tables.dest, layout.PRIVATE))
    yield from (uri for uri in private if layout.is_partial(uri))


def destroy_orphans(tables: Tables, store: Store, check: Callable[[], None]) -> int:
    """Destroy every data file that no commit lists. Returns how many there were.

    check: raises `BusyError` where this process no longer holds the destination.
    """
    check()
    found = list(orphans(tables, store))
    store.delete(found)
    for name in TABLES:
        store.abort_uploads(tables.table(name).uri)
    store.abort_uploads(layout.join(tables.dest, layout.PRIVATE))
    return len(found)
