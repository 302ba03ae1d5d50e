"""What a user asks of an audit, and the audit that this describes: which rows, which attacks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from infra.settings import Settings, StorageSettings
from infra.settings import load as load_settings
from infra.store.addresses import is_inside, normalise
from ironmask.centring import Centring
from ironmask.errors import ParameterError, SourceError, TableError
from ironmask.params import Params
from ironmask.random import secure_generator
from pipelines.auditing.frozen import (
    Audit,
    Kind,
    Target,
    Unit,
    linkage_units,
    photo_units,
    renewal_units,
    row_units,
)
from pipelines.plan import labelled_faces
from pipelines.ports import Tables
from pipelines.setup import places, ports
from pipelines.setup.keys import refuse_other_keys
from pipelines.spec.workplace import Workplace
from pipelines.table import contents, read, run_records
from pipelines.table.schemas import PARAMS

_TRAITS: Final = [
    "generation", *PARAMS, "encoding", "sealed", "filling", "key_id", "centring"
]  # fmt: skip
_SEARCHES: Final = (Kind.ROW, Kind.WIDTH, Kind.ISSUES, Kind.LINK, Kind.RENEWAL, Kind.PHOTOS)
_LEAST_S: Final = 0.5
# Subjects of one table that are looked for in the others, for each that is wanted.
_ASKED: Final = 50


@dataclass(frozen=True)
class AuditRequest:
    """An audit as a user asks for it.

    tables: addresses; of each every generation is audited. keys: keyset files, one a table, in
    their order. source: Parquet of embeddings of the same model. seconds: in all, about. sample:
    rows of each generation.
    """

    tables: tuple[str, ...]
    source: str
    out: str
    keys: tuple[str, ...] = ()
    sample: int = 8
    pairs: int = 16
    seconds: float = 600.0
    workplace: Workplace = field(default_factory=Workplace)


@dataclass(frozen=True)
class CheckedAudit:
    """An audit whose tables, keys and source have been checked."""

    audit: Audit
    settings: Settings
    storage: StorageSettings
    out: str


def prepare(request: AuditRequest) -> CheckedAudit:
    """Check the request, open every key once, and draw the sample.

    Raises `ParameterError`, `SourceError`, `TableError` and `KeyStoreError` for what cannot be
    audited.
    """
    settings, storage = load_settings()
    storage.export()
    if not request.tables:
        raise ParameterError("no table to audit: name at least one")
    if request.keys and len(request.keys) != len(request.tables):
        raise ParameterError("name one keyset file with --keys for each table, or none")
    store, source = ports.shared_store(storage.public()), normalise(request.source)
    out = normalise(request.out)
    targets: list[Target] = []
    opened: list[Tables] = []
    for number, dest in enumerate(request.tables):
        stored = places.existing(dest, storage)
        if is_inside(out, stored.dest):
            raise ParameterError(f"OUT {out} lies inside the table {stored.dest}: keep them apart")
        given = request.keys[number] if request.keys else None
        path = places.keys_path(given, settings, stored)
        tables = ports.shared_tables(stored.dest, storage.public(), path, stored.table_id)
        for target in _targets(tables, str(path)):
            targets.append(target)
            opened.append(tables)
    loaded = labelled_faces.load(source, store, (), ())
    width = loaded.vectors.shape[1]
    for target, table in zip(targets, opened, strict=True):
        if target.params.n != width:
            raise SourceError(
                f"{source} holds embeddings of width {width}, those of {table.dest} are "
                f"{target.params.n} wide: audit with embeddings of the model that enrolled"
            )
    rng = secure_generator()
    chosen, sampled = _units(targets, opened, request, loaded, rng)
    audit = Audit(
        targets=tuple(targets),
        source=source,
        version=store.version(source),
        sampled=tuple(sorted(sampled)),
        seconds=_each(request, chosen),
        units=tuple(chosen),
    )
    return CheckedAudit(audit, settings, storage, out)


def _targets(tables: Tables, keys: str) -> Iterator[Target]:
    """The generations of a table."""
    counted = read.templates_by(tables, _TRAITS)
    if not counted:
        raise TableError(f"{tables.dest} holds no template: enrol into it first")
    known = {
        record.config.get("generation"): record.config.get("shapes", {}).get("profile")
        for record in run_records.runs(tables)
        if "shapes" in record.config
    }
    for traits, count in counted:
        own = ports.keys(Path(keys), tables.table_id, traits["generation"])
        refuse_other_keys(tables.dest, traits["key_id"], own)
        yield Target(
            dest=tables.dest,
            table_id=tables.table_id,
            generation=traits["generation"],
            keys=keys,
            params=Params.recorded(traits),
            encoding=traits["encoding"],
            sealed=traits["sealed"],
            filling=round(float(traits["filling"]), 6),
            profile=known.get(traits["generation"]),
            templates=count,
            centring=Centring(traits["centring"]),
            photos=_photos(tables, traits["generation"]),
            two_issues=contents.lost_people(tables, traits["generation"]).again,
        )


def _photos(tables: Tables, generation: int) -> int:
    """Photos of a template: the median of the first rows of a generation."""
    for batch in tables.table("templates").batches(["source_uris", "generation"]):
        own = batch.filter(pc.equal(batch["generation"], generation))
        if len(own):
            return max(1, int(np.median(pc.list_value_length(own["source_uris"]))))
    return 1


def _units(
    targets: Sequence[Target],
    tables: Sequence[Tables],
    request: AuditRequest,
    loaded: labelled_faces.Faces,
    rng: np.random.Generator,
) -> tuple[list[Unit], set[str]]:
    """The units of an audit, and the subjects that they attack."""
    chosen: list[Unit] = []
    sampled: set[str] = set()
    for place, (target, own) in enumerate(zip(targets, tables, strict=True)):
        subjects = _drawn(own, target, request.sample, rng)
        sampled.update(subjects)
        chosen += row_units(place, target.params, subjects)
    for subject, tables_of in _several(targets, tables, request.sample, rng):
        sampled.add(subject)
        chosen.append(Unit(Kind.ISSUES, rows=tuple((place, subject) for place in tables_of)))
    owners = loaded.labels.subject
    chosen += linkage_units(owners, request.pairs, rng)
    chosen += renewal_units(owners, rng)
    chosen += photo_units(owners, loaded.vectors)
    return chosen, sampled


def _drawn(tables: Tables, target: Target, count: int, rng: np.random.Generator) -> list[str]:
    """Some subjects of a generation, whose rows are never all in memory."""
    wanted = np.sort(rng.permutation(target.templates)[:count])
    found: list[str] = []
    start = 0
    for batch in tables.table("templates").batches(["subject_id", "generation"]):
        own = batch["subject_id"].filter(pc.equal(batch["generation"], target.generation))
        here = wanted[(wanted >= start) & (wanted < start + len(own))] - start
        found += own.take(pa.array(here)).to_pylist()
        start += len(own)
    return found


def _several(
    targets: Sequence[Target], tables: Sequence[Tables], count: int, rng: np.random.Generator
) -> Iterator[tuple[str, list[int]]]:
    """Some subjects with rows in several targets, and in which ones."""
    if len(targets) < 2:
        return
    smallest = min(range(len(targets)), key=lambda place: targets[place].templates)
    asked = _drawn(tables[smallest], targets[smallest], _ASKED * count, rng)
    having: dict[str, list[int]] = {subject: [] for subject in asked}
    for place, (target, own) in enumerate(zip(targets, tables, strict=True)):
        mine = pads.field("subject_id").isin(asked)
        where = (pads.field("generation") == target.generation) & mine
        rows = own.table("templates").rows(["subject_id"], where, asked)
        for subject in rows["subject_id"].to_pylist():
            having[subject].append(place)
    shared = [(subject, found) for subject, found in having.items() if len(found) > 1]
    yield from shared[:count]


def _each(request: AuditRequest, chosen: Sequence[Unit]) -> float:
    """Seconds for each search, so that all together take about what was asked for."""
    counts = Counter(unit.kind for unit in chosen)
    searches = sum(counts[kind] for kind in _SEARCHES)
    workers = request.workplace.workers or os.cpu_count() or 1
    return max(_LEAST_S, request.seconds * workers / max(searches, 1))
