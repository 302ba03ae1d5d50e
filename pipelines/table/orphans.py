"""Data files that no commit lists: how they are found and destroyed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from pipelines.ports import Store, Tables
from pipelines.table import layout
from pipelines.table.layout import ShardFile
from pipelines.table.schemas import TABLES

# In the order of their commits. The tables after templates belong to the same attempt.
DATA_TABLES: Final = ("templates", "vault", "inputs")
FOLLOWING: Final = DATA_TABLES[1:]


Attempt = tuple[str, int, str]


def attempt_of(file: ShardFile) -> Attempt:
    return file.run_id, file.shard, file.attempt


def uncommitted_inputs(tables: Tables) -> set[Attempt]:
    """Attempts whose templates are committed but whose inputs are not; from at most one wave."""
    waiting = {_begin(path) for path in tables.table("templates").files()}
    for path in tables.table("inputs").files():
        waiting.discard(_begin(path))
    # Any name does to read back an attempt.
    names = (layout.parse_shard_file(f"{begin}-{'0' * 64}.parquet") for begin in waiting)
    return {attempt_of(file) for file in names if file}


def _begin(path: str) -> str:
    """The part of a file's name that says its attempt, where it is of a shard."""
    return path.rpartition("/")[2].rpartition("-")[0]


def orphans(tables: Tables, store: Store) -> Iterator[str]:
    """Addresses of data files that no commit lists, also those that survive as older versions.

    A retried or killed task leaves such files. They must not stay: if two issues of one person
    survive anywhere, they can be broken together. Files that follow committed templates of an
    interrupted wave are not orphans: they wait for their commit.
    """
    waiting = uncommitted_inputs(tables)
    for name in TABLES:
        table = tables.table(name)
        listed = table.files()
        base = table.uri.rstrip("/") + "/"
        for uri in store.remains(table.uri):
            if not layout.is_ours(uri) or uri.removeprefix(base) in listed:
                continue
            file = layout.parse_shard_file(uri)
            if not (name in FOLLOWING and file and attempt_of(file) in waiting):
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
