"""How far a source may reach: the folders that its inputs must lie in."""

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


@dataclass(frozen=True)
class Reach:
    """Folders and prefixes, as the store resolves them."""

    roots: tuple[str, ...]
    store: Store

    def holds(self, uri: str) -> bool:
        """Tell whether what is read for an address lies below one of the roots."""
        found = f"{self.store.resolve(uri)}/"
        return any(found.startswith(f"{root.rstrip('/')}/") for root in self.roots)

    def fault(self, uri: str) -> Fault | None:
        """Why an address must not be read, as a reason and what to do; None where it may."""
        if has_secret(uri):
            return SECRET
        return None if self.holds(uri) else OUTSIDE


def reach_of(source: str, kind: SourceKind, allowed: Sequence[str], store: Store) -> Reach:
    """What a source may reach: its own folder, or that of a manifest, and what is allowed."""
    own = posixpath.dirname(source) if kind is SourceKind.MANIFEST else source
    return _of([own, *allowed], store)


@lru_cache(maxsize=4)
def of_job(job: TemplateJob, store: Store) -> Reach:
    """What the sources of a job may reach, all of them together."""
    own = [
        place if _is_folder(place, store) else posixpath.dirname(place)
        for place in (job.source, *job.more_sources)
    ]
    return _of([*own, *job.allow_roots], store)


def _is_folder(source: str, store: Store) -> bool:
    return not source.lower().endswith(TABULAR) or store.is_dir(source)


def _of(places: Iterable[str], store: Store) -> Reach:
    return Reach(tuple(dict.fromkeys(store.resolve(place) for place in places)), store)
