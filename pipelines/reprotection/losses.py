"""Who would lose their template, and whether the new rows open, before a switch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from ironmask.errors import CountError, SourceError, TableError, TamperedError
from pipelines.ports import GenerationKeys, Table, Tables
from pipelines.spec.template_job import TemplateJob
from pipelines.table import contents, layout
from pipelines.table.data_files import together
from pipelines.table.row_cipher import open_row

_NAMED: Final = 5
_OPENED: Final = 16


@dataclass(frozen=True)
class Lost:
    """People of a generation whom the next one has no template of. some: a few of their ids."""

    count: int
    some: tuple[str, ...]


def lost(tables: Tables, old: int, new: int) -> Lost:
    """Who would lose their template if a generation took another one's place.

    The columns that it asks for are read from checked footers. Raises `CountError` where the new
    one has two templates of a person.
    """
    count = issued = 0
    some: list[str] = []
    renewed = contents.live_subjects(tables, new)
    for batch in together(tables.table("templates").batches(["subject_id", "generation"])):
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


def refuse_losses(tables: Tables, job: TemplateJob, allowed: int) -> Lost:
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

    Raises `TamperedError` where one does not open or is not there, `TableError` where there is
    none at all.
    """
    templates = tables.table("templates")
    where = pads.field("generation") == generation
    subjects = list(_some_subjects(templates, generation))
    if not subjects:
        raise TableError(
            f"{tables.dest}: generation {generation} holds no template and cannot become live"
        )
    for subject in subjects:
        own = where & (pads.field("subject_id") == subject)
        rows = templates.rows(where=own, people=[subject]).to_pylist()
        if not rows:
            raise TamperedError(
                f"{tables.dest}: generation {generation} says that it holds a template of "
                f"{subject!r}, and it has no such row: restore its files from a backup"
            )
        for row in rows:
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
