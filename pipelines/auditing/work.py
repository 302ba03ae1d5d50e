"""One unit of an audit in any process: its data, and how it runs."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ironmask.centring import by_person
from ironmask.errors import SourceError
from ironmask.filling import Filling
from ironmask.spectrum import Spectrum
from pipelines.auditing import units
from pipelines.auditing.frozen import Audit, Finding, Target
from pipelines.auditing.units import Surroundings
from pipelines.plan import labelled_faces
from pipelines.ports import GenerationKeys
from pipelines.preflight import profile
from pipelines.run.work import Work
from pipelines.setup import ports
from pipelines.table import layout
from pipelines.table.pseudonyms import stored_subjects

Storage = tuple[tuple[str, Any], ...]
"""`StorageSettings.public()`."""


def unit_work(storage: Storage, audit: Audit) -> Work:
    """An audit's units as units of work."""
    return Work(whole_unit, (storage, audit))


def whole_unit(storage: Storage, audit: Audit, number: int) -> Finding:
    """One unit of an audit, on one thread, so that times are those of one core."""
    with threadpool_limits(1):
        return units.run(surroundings(storage, audit), audit.units[number])


@lru_cache(maxsize=1)
def surroundings(storage: Storage, audit: Audit) -> Surroundings:
    """The data of an audit's units, made once in each process."""
    store = ports.shared_store(storage)
    loaded = labelled_faces.load(audit.source, store, (), ())
    if store.version(audit.source) != audit.version:
        raise SourceError(f"{audit.source} was replaced since the audit began: begin again")
    labels = loaded.labels
    tables = [
        ports.shared_tables(target.dest, storage, Path(target.keys), target.table_id)
        for target in audit.targets
    ]

    def keys(target: int) -> GenerationKeys:
        some = audit.targets[target]
        return ports.kept_keys(Path(some.keys), some.table_id, some.generation)

    known = np.zeros(len(labels.subjects), bool)
    for place, own in enumerate(tables):
        stored = stored_subjects(own, keys(place).table, labels.subjects)
        known |= np.isin(stored, list(audit.sampled))
    unknown = np.flatnonzero(~known[labels.subject])
    if not len(unknown):
        raise SourceError(f"{audit.source} holds faces of the sampled people only: add others")

    first = audit.targets[0]
    templates = by_person(
        loaded.vectors[unknown], labels.subject[unknown], first.centring, first.photos
    )
    return Surroundings(
        audit=audit,
        faces=loaded,
        unknown=unknown,
        tables=tables,
        keys=keys,
        templates=templates,
        space=Spectrum.of(templates, first.params.n),
        fillings=[_filling(target, storage) for target in audit.targets],
    )


def _filling(target: Target, storage: Storage) -> Filling | None:
    if not target.profile:
        return None
    store = ports.shared_store(storage)
    address = layout.profile_file(target.dest, target.profile)
    return profile.filling(address, target.profile, target.filling, store)
