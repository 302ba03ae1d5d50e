"""The folders of a source, one for each subject, as a file system or a bucket lists them."""

from __future__ import annotations

import posixpath
from array import array
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from operator import itemgetter
from typing import Final

import numpy as np

from ironmask.errors import SourceError
from pipelines.plan.reach import ELSEWHERE, Fault, Reach, is_below
from pipelines.ports import Entry, Store
from pipelines.spec.outcomes import Reason

Found = tuple[Entry, Fault | None]
"""An object, and the reason why it must not be read, if there is one."""
Folder = tuple[str, list[Found]]

UNLISTED: Final[Fault] = (
    Reason.UNREADABLE,
    "what the folder holds cannot be listed: access denied",
)
_LISTINGS: Final = 16


def subject_folders(source: str, store: Store, reach: Reach) -> Iterator[Folder]:
    """Folders directly under a source, in a fixed order, with the objects in each of them.

    A file system also has empty folders; a bucket has none. Each real place is read once. A link
    may lead out of reach, or to a place that is read anyway: then the link itself is an entry, or
    the only entry of its folder, and nothing behind it is listed.
    """
    if "://" in source:
        for folder, entries in cut_by_folder(source, store.entries(source)):
            yield folder, [(entry, None) for entry in entries]
    else:
        yield from _listed(source, reach)


def cut_by_folder(source: str, entries: Iterator[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    """One listing, cut where the folder changes. A request for each folder takes far longer.

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
    """The folder directly under a base; empty for an address outside such folders."""
    name, slash, _ = uri.removeprefix(base).partition("/")
    return base + name if slash else ""


def _listed(source: str, reach: Reach) -> Iterator[Folder]:
    """Folders and their entries, in order. The next few are requested meanwhile."""
    folders = list(reach.store.children(source))
    faults, targets = _links(folders, reach)

    def found(folder: str) -> list[Found]:
        if folder in faults:
            return [(Entry(folder, 0, is_link=True), faults[folder])]
        return list(_expanded(folder, reach, [targets[folder]] if folder in targets else []))

    with ThreadPoolExecutor(_LISTINGS) as pool:
        ahead: deque[tuple[str, Future[list[Found]]]] = deque()
        for folder in folders:
            ahead.append((folder, pool.submit(found, folder)))
            if len(ahead) > _LISTINGS:
                first, entries = ahead.popleft()
                yield first, entries.result()
        for first, entries in ahead:
            yield first, entries.result()


def _links(folders: list[str], reach: Reach) -> tuple[dict[str, Fault], dict[str, str]]:
    """Faults of subjects' folders that are links: out of reach, or to a place that is read anyway.

    Also returns where the other links lead.
    """
    faults: dict[str, Fault] = {}
    targets: dict[str, str] = {}
    for folder in folders:
        target = reach.store.resolve(folder)
        if fault := reach.fault_of(folder, target):
            faults[folder] = fault
        elif target == reach.own_place(folder):
            continue
        elif posixpath.basename(folder).startswith("."):
            faults[folder] = ELSEWHERE
        else:
            targets[folder] = target
    # In this order, places below a place come right after it.
    pairs = sorted((f"{target}/", folder) for folder, target in targets.items())
    groups = [
        (target, [folder for _, folder in group]) for target, group in groupby(pairs, itemgetter(0))
    ]
    for (target, sharing), (following, _) in zip(groups, [*groups[1:], ("", [])], strict=False):
        others = sharing if following.startswith(target) else sharing[1:]
        faults.update(dict.fromkeys(others, ELSEWHERE))
    return faults, targets


def _expanded(folder: str, reach: Reach, seen: list[str]) -> Iterator[Found]:
    """The entries of a folder, also behind its links to folders. seen: places read already."""
    for entry in reach.store.items(folder):
        name = posixpath.basename(entry.uri)
        if not entry.is_link or name.startswith(".") or not reach.store.is_dir(entry.uri):
            yield entry, (UNLISTED if entry.unlisted else None)
            continue
        target = reach.store.resolve(entry.uri)
        twice = any(is_below(target, place) or is_below(place, target) for place in seen)
        if fault := reach.fault(entry.uri) or (ELSEWHERE if twice else None):
            yield entry, fault
        else:
            seen.append(target)
            yield from _expanded(entry.uri, reach, seen)
