"""What the units of an audit work on, built in each process from plain values."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ironmask.errors import SourceError
from ironmask.filling import Filling
from ironmask.spectrum import Spectrum
from pipelines import layout, profile, wiring
from pipelines.auditing.job import Audit, Target
from pipelines.auditing.units import Surroundings
from pipelines.evaluation import faces
from pipelines.ports import GenerationKeys


@lru_cache(maxsize=1)
def surroundings(storage: tuple[tuple[str, Any], ...], audit: Audit) -> Surroundings:
    """What the units of an audit work on, once a process."""
    store = wiring.shared_store(storage)
    loaded = faces.load(audit.source, store, (), ())
    if store.version(audit.source) != audit.version:
        raise SourceError(f"{audit.source} was replaced since the audit began: begin again")
    labels = loaded.labels
    known = np.isin(labels.subjects, list(audit.sampled))
    unknown = np.flatnonzero(~known[labels.subject])
    if not len(unknown):
        raise SourceError(f"{audit.source} holds faces of the sampled people only: add others")

    def keys(target: int) -> GenerationKeys:
        some = audit.targets[target]
        return wiring.keys(Path(some.keys), some.table_id, some.generation)

    return Surroundings(
        audit=audit,
        faces=loaded,
        unknown=unknown,
        tables=[wiring.shared_tables(target.dest, storage) for target in audit.targets],
        keys=keys,
        space=Spectrum.of(loaded.vectors[unknown], loaded.vectors.shape[1]),
        fillings=[_filling(target, storage) for target in audit.targets],
    )


def _filling(target: Target, storage: tuple[tuple[str, Any], ...]) -> Filling | None:
    if not target.profile:
        return None
    store = wiring.shared_store(storage)
    address = layout.profile_file(target.dest, target.profile)
    return profile.filling(address, target.profile, target.filling, store)
