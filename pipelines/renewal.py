"""What a re-protection takes again: of each person, the inputs that the live template is of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from ironmask.errors import CountError, SourceError, TableError
from pipelines import layout, ledger, sources
from pipelines.job import EnrolJob, SourceKind
from pipelines.known import Grown, Known
from pipelines.ports import GenerationKeys, Store, Table, Tables
from pipelines.sealing import open_row

_NAMED: Final = 5
_OPENED: Final = 16


def batches(
    job: EnrolJob, tables: Tables, store: Store, key: bytes, old_key: bytes
) -> Iterator[pa.Table]:
    """Those inputs of a job's sources that the generation which it renews was made from.

    Content tells them, not the address, so that sources may have moved meanwhile. Each person is
    taken from the first source that has one of them. key, old_key: of the identities of embeddings
    now and then.
    """
    assert job.renews is not None  # noqa: S101
    wanted = ledger.used_by_subject(tables, job.renews)
    earlier = Grown()
    for source in (job.source, *job.more_sources):
        kind = sources.detect(source, store) if job.more_sources else job.kind
        taken: list[pa.Array] = []
        for new, old in _read(job, source, kind, store, (key, old_key)):
            mask = np.asarray(pc.is_null(new["outcome"]))
            mask &= wanted.has(ledger.owned(old["subject_id"], old["content"]))
            chosen = new.filter(pa.array(mask & ~earlier.has(new["subject_id"])))
            if len(chosen):
                taken.append(pc.unique(chosen["subject_id"]))
                yield chosen
        earlier.add(Known(taken))


def _read(
    job: EnrolJob, source: str, kind: SourceKind, store: Store, keys: tuple[bytes, bytes]
) -> Iterable[tuple[pa.Table, pa.Table]]:
    """A source's batches as they are planned, and as the renewed generation knew their contents."""
    limit = job.faces.max_bytes
    new, old = keys
    read = sources.read(source, kind, store, new, limit)
    if kind is not SourceKind.EMBEDDINGS or new == old:
        return ((batch, batch) for batch in read)
    return zip(read, sources.read(source, kind, store, old, limit), strict=True)


@dataclass(frozen=True)
class Lost:
    """People of a generation whom the next one has no template of. some: a few of their ids."""

    count: int
    some: tuple[str, ...]


def lost(tables: Tables, old: int, new: int) -> Lost:
    """Who would lose their template if a generation took another one's place.

    Raises `CountError` where the new one has two templates of a person.
    """
    count = issued = 0
    some: list[str] = []
    renewed = ledger.live_subjects(tables, new)
    for batch in tables.table("templates").batches(["subject_id", "generation"]):
        issued += int(pc.sum(pc.equal(batch["generation"], new)).as_py() or 0)
        before = batch["subject_id"].filter(pc.equal(batch["generation"], old))
        missing = before.filter(pa.array(~renewed.has(before)))
        count += len(missing)
        some += missing[: _NAMED - len(some)].to_pylist()
    if issued != len(renewed):
        raise CountError(
            f"{tables.dest}: generation {new} holds {issued:,} templates of {len(renewed):,} "
            "people: it must not become live; give it up with --abandon"
        )
    return Lost(count, tuple(some))


def refuse_losses(tables: Tables, job: EnrolJob, allowed: int) -> Lost:
    """Raise `SourceError` where more people would lose their template than an operator allows."""
    assert job.renews is not None  # noqa: S101
    found = lost(tables, job.renews, job.generation)
    if found.count > allowed:
        names = ", ".join(map(repr, found.some))
        raise SourceError(
            f"{tables.dest}: {found.count:,} people of generation {job.renews} have no template in "
            f"generation {job.generation} ({names}{', ...' if found.count > _NAMED else ''}); "
            f"generation {job.renews} stays live. Bring back what they were enrolled from and add "
            f"--restart, or let them go with --max-lost {found.count}"
        )
    return found


def open_some(tables: Tables, generation: int, keys: GenerationKeys) -> None:
    """Open rows from all over a generation with its keys, before anything depends on it.

    Raises `TamperedError` where one does not open, `TableError` where there is none.
    """
    templates = tables.table("templates")
    where = pads.field("generation") == generation
    subjects = list(_some_subjects(templates, generation))
    if not subjects:
        raise TableError(
            f"{tables.dest}: generation {generation} holds no template and cannot become live"
        )
    for subject in subjects:
        for row in templates.rows(where=where & (pads.field("subject_id") == subject)).to_pylist():
            open_row(tables.table_id, row, keys)


def _some_subjects(templates: Table, generation: int) -> Iterator[str]:
    """A few subjects, from all over a generation."""
    total = sum(
        rows
        for path, rows in templates.counts().items()
        if layout.generation_of(path) == generation
    )
    places = np.linspace(0, total - 1, _OPENED if total else 0)
    wanted = [int(place) for place in np.unique(places.astype(np.int64))]
    start = 0
    for batch in templates.batches(["subject_id", "generation"]):
        own = batch["subject_id"].filter(pc.equal(batch["generation"], generation))
        here = [place - start for place in wanted if start <= place < start + len(own)]
        yield from own.take(pa.array(here, pa.int64())).to_pylist()
        start += len(own)
