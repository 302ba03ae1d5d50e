"""The folders of a source, one for each subject, as a file system or a bucket lists them."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import Final

import numpy as np

from ironmask.errors import SourceError
from pipelines.plan.reach import Reach
from pipelines.ports import Entry, Store

_LISTINGS: Final = 16


def subject_folders(source: str, store: Store, reach: Reach) -> Iterator[tuple[str, list[Entry]]]:
    """Folders directly under a source, in a fixed order, and the objects in each of them.

    Empty folders are among them in a file system; a bucket has none. A link that leads out of reach
    is its own only entry, or one of its folder's: nothing behind it is listed.
    """
    if "://" in source:
        return cut_by_folder(source, store.entries(source))
    return _listed(store.children(source), reach)


def cut_by_folder(source: str, entries: Iterator[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    """One listing, cut where the folder changes: a request for each folder takes far longer.

    Raises `SourceError`, at the end, where the server did not list a folder's keys together.
    """
    base = source.rstrip("/") + "/"
    seen = array("q")
    for folder, group in groupby(entries, lambda entry: _folder_of(entry.uri, base)):
        found = list(group)
        if folder == base:
            raise SourceError(f"{found[0].uri}: a part of its key is empty; rename the object")
        if folder:
            seen.append(hash(folder))
            yield folder, found
    if len(np.unique(seen)) < len(seen):
        raise SourceError(
            f"{source}: the server does not list a subject's keys together; give a manifest instead"
        )


def _folder_of(uri: str, base: str) -> str:
    """The folder directly under a base; empty for what is under none."""
    name, slash, _ = uri.removeprefix(base).partition("/")
    return base + name if slash else ""


def _listed(folders: Iterator[str], reach: Reach) -> Iterator[tuple[str, list[Entry]]]:
    """Folders and what is in them, in order; the next few are asked for meanwhile."""

    def entries(folder: str) -> list[Entry]:
        if not reach.holds(folder):
            return [Entry(folder, 0)]
        return list(reach.store.entries(folder, roots=reach.roots))

    with ThreadPoolExecutor(_LISTINGS) as pool:
        ahead: deque[tuple[str, Future[list[Entry]]]] = deque()
        for folder in folders:
            ahead.append((folder, pool.submit(entries, folder)))
            if len(ahead) > _LISTINGS:
                first, found = ahead.popleft()
                yield first, found.result()
        for first, found in ahead:
            yield first, found.result()
