"""The reach of a source: the folders that its inputs must lie in."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from pipelines.plan.tabular import TABULAR
from pipelines.ports import Store
from pipelines.spec.addresses import has_secret
from pipelines.spec.outcomes import Reason
from pipelines.spec.template_job import SourceKind, TemplateJob

Fault = tuple[Reason, str]

SECRET: Final[Fault] = (
    Reason.SECRET_IN_ADDRESS,
    "the address carries credentials, which are not kept: name the object without them",
)
OUTSIDE: Final[Fault] = (
    Reason.OUTSIDE_ROOTS,
    "it lies outside of the source's own folder: allow its folder with --allow-root",
)


OWN: Final[Fault] = (
    Reason.OWN_FILE,
    "it is a file of the table or of its keys, and never an input: keep these apart from inputs",
)
ELSEWHERE: Final[Fault] = (
    Reason.LINK_ELSEWHERE,
    "a link to what the source holds elsewhere, or to a folder above: it is read in its own place",
)


@dataclass(frozen=True)
class Reach:
    """Folders and prefixes, as the store resolves them.

    own: the destination and its keyset files. tree: the address of a source that is a folder; base:
    the same as the store resolves it.
    """

    roots: tuple[str, ...]
    store: Store
    own: tuple[str, ...] = ()
    tree: str = ""
    base: str = ""

    def fault(self, uri: str) -> Fault | None:
        """Why an address must not be read, as a reason and advice; None where it may be read."""
        return SECRET if has_secret(uri) else self.fault_of(uri, self.store.resolve(uri))

    def fault_of(self, uri: str, found: str) -> Fault | None:
        """The same for an address without secrets. found: the store's resolved address."""
        if not any(is_below(found, root) for root in self.roots):
            return OUTSIDE
        if any(is_below(found, place) for place in self.own):
            return OWN
        return ELSEWHERE if self.tree and self._is_elsewhere(uri, found) else None

    def own_place(self, uri: str) -> str:
        """The resolved address of a place in the tree, if no link leads there."""
        return self.base.rstrip("/") + uri.removeprefix(self.tree.rstrip("/"))

    def _is_elsewhere(self, uri: str, found: str) -> bool:
        """Tell whether a link leads to a place of the tree that is read anyway, or to one above.

        Places in hidden folders, and beside the subjects' folders, are not read otherwise.
        """
        if found == self.own_place(uri):
            return False
        if is_below(self.base, found):
            return True
        if not is_below(found, self.base):
            return False
        inner = found.removeprefix(self.base.rstrip("/"))
        if "/." in inner or not self.store.exists(found):
            return False
        return inner.count("/") > 1 or self.store.is_dir(found)


def is_below(place: str, root: str) -> bool:
    """Tell whether a resolved address is another one or lies below it."""
    return f"{place.rstrip('/')}/".startswith(f"{root.rstrip('/')}/")


def reach_of(
    source: str, kind: SourceKind, allowed: Sequence[str], store: Store, own: Sequence[str] = ()
) -> Reach:
    """The reach of a source: its own folder, or that of a manifest, and the allowed roots.

    own: the destination and its keyset files, which are never inputs.
    """
    is_tree = kind is not SourceKind.MANIFEST
    near = source if is_tree else posixpath.dirname(source)
    return _of([near, *allowed], store, own, source if is_tree else "")


@lru_cache(maxsize=4)
def of_job(job: TemplateJob, store: Store) -> Reach:
    """The joint reach of all sources of a job."""
    near = [
        place if _is_folder(place, store) else posixpath.dirname(place)
        for place in (job.source, *job.more_sources)
    ]
    return _of([*near, *job.allow_roots], store, [job.dest])


def _is_folder(source: str, store: Store) -> bool:
    return not source.lower().endswith(TABULAR) or store.is_dir(source)


def _of(places: Iterable[str], store: Store, own: Iterable[str], tree: str = "") -> Reach:
    roots, kept = (tuple(dict.fromkeys(map(store.resolve, some))) for some in (places, own))
    return Reach(roots, store, kept, tree, store.resolve(tree) if tree else "")
