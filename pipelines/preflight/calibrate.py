"""Judge an enrolment before it begins: find embeddings for that, and keep the model's profile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from itertools import chain, islice
from typing import Final

import numpy as np
import pyarrow as pa

from ironmask.arrays import U8
from ironmask.errors import ImageError, ParameterError, TableError
from pipelines.plan import sources
from pipelines.ports import Aligner, Recogniser, Store
from pipelines.preflight.judge import Preflight, assess, check
from pipelines.preflight.profile import (
    LEAST_A_DIRECTION,
    Calibration,
    Photos,
    Profile,
    calibrated,
    sample,
)
from pipelines.spec.faces import FaceSettings
from pipelines.spec.template_job import DECLARED, SourceKind, TemplateJob, digest
from pipelines.table import layout
from pipelines.table.held import Destination
from pipelines.table.schemas import METRICS

# The most photos of a source that are embedded here.
_MOST_PHOTOS: Final = 20_000


@dataclass(frozen=True)
class Judged:
    """preflight: the worth of one stolen row, where embeddings can tell. profile: the stored
    profile of the model's embeddings, where there are enough of them.
    """

    preflight: Preflight | None = None
    profile: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Model:
    """A model at hand: its pack's name, and a function that loads its detector and recogniser."""

    name: str
    load: Callable[[FaceSettings], tuple[Aligner, Recogniser]]


def judge(
    job: TemplateJob, given: str | None, model: Model | None, store: Store
) -> tuple[TemplateJob, Judged]:
    """The job with the profile for its filling, and the worth of a stolen row of it.

    given: full address of a Parquet of embeddings of the job's model, if one was named.

    Raises `RiskError` where a stolen row is worth too much, `ParameterError` for a filling without
    embeddings that show its directions.
    """
    name = model.name if model else job.model.removeprefix(DECLARED)
    known = kept_profile(job, name, store) if job.filling else None
    if known:
        # This was decided when the model's first template was made.
        check(job, None, name)
        return _filled(job, Judged(profile=known))
    found = calibrated_by(job, given, model, store)
    judged = assess(found, job.params, job.encoding, job.filling, name) if found else None
    check(job, judged, name)
    whole = found.profile.to_bytes() if found and found.profile.is_enough else None
    if not job.filling:
        return job, Judged(judged, whole)
    if whole is None:
        raise ParameterError(
            "filling needs to know which directions the model leaves empty: name a Parquet of "
            f"{LEAST_A_DIRECTION * job.params.n:,} people or more with --calibration"
        )
    return _filled(job, Judged(judged, whole))


def kept_profile(job: TemplateJob, name: str, store: Store) -> bytes | None:
    """The table's profile of a model. Raises `TableError` for one that was changed."""
    for entry in store.entries(layout.join(job.dest, layout.PRIVATE), recursive=False):
        digest = layout.profile_digest(entry.uri)
        if digest is None:
            continue
        content = store.read(entry.uri)
        if sha256(content).hexdigest() != digest:
            raise TableError(f"{entry.uri} is not the profile that it was: restore it")
        if Profile.from_bytes(content, entry.uri).model in (job.model, DECLARED + name):
            return content
    return None


def _filled(job: TemplateJob, judged: Judged) -> tuple[TemplateJob, Judged]:
    assert judged.profile is not None  # noqa: S101
    return replace(job, profile=sha256(judged.profile).hexdigest()), judged


def keep(judged: Judged, job: TemplateJob, store: Store) -> None:
    """Store the profile of the model with the table, unless the table has one."""
    name = job.model.removeprefix(DECLARED)
    if judged.profile and not kept_profile(job, name, store):
        digest = sha256(judged.profile).hexdigest()
        store.write(layout.profile_file(job.dest, digest), judged.profile)


def write_forecast(judged: Judged, dest: Destination) -> None:
    """Write the forecast into `metrics`, once for each model."""
    found = judged.preflight
    if found:
        once = f"preflight-{digest(found.profile.model)[:12]}"
        rows = [{**row, "at": datetime.now(UTC)} for row in found.metrics(once)]
        dest.append("metrics", pa.Table.from_pylist(rows, METRICS), once)


def calibrated_by(
    job: TemplateJob, given: str | None, model: Model | None, store: Store
) -> Calibration | None:
    """Embeddings of the job's model: of a given file, of the source itself, or of some of its
    photos where that matters. None where there are none, or too few to tell anything.

    Raises `SourceError` for a file that holds none, `ParameterError` for one of another width.
    """
    stored = job.source if job.kind is SourceKind.EMBEDDINGS else None
    address = given or stored
    if address:
        photos = sample(address, store)
    elif model and (job.filling or not job.sealed):
        address, photos = job.source, _embedded(job, model, store)
    else:
        return None
    width = photos.vectors.shape[1]
    if width != job.params.n:
        raise ParameterError(
            f"{address} holds embeddings of width {width}, the model's are "
            f"{job.params.n}: calibrate with embeddings of the same model"
        )
    if not given and len(np.unique(photos.people)) < job.params.n:
        return None
    return calibrated(job.model, address, photos, job.centring)


def _embedded(job: TemplateJob, model: Model, store: Store) -> Photos:
    """Embeddings of the source's first subjects, enough for a profile, made in this process."""
    aligner, recogniser = model.load(job.faces)
    limit = job.faces.max_bytes
    batches = sources.read(job.source, job.kind, store, limit, job.allow_roots, own=[job.dest])
    rows = chain.from_iterable(batch.to_pylist() for batch in batches)
    wanted = list(islice((row for row in rows if not row["outcome"]), _MOST_PHOTOS))
    needed = (LEAST_A_DIRECTION + 1) * job.params.n
    crops: list[U8] = []
    people: list[str] = []
    contents = store.read_many([row["uri"] for row in wanted], job.faces.max_bytes)
    seen: set[str] = set()
    for row, content in zip(wanted, contents, strict=True):
        if row["subject_id"] not in seen and len(seen) == needed:
            break
        if not isinstance(content, OSError):
            with suppress(ImageError):
                crops.append(aligner.align(content).crop)
                people.append(row["subject_id"])
                seen.add(row["subject_id"])
    parts = [recogniser.embed(np.stack(crops[i : i + 32])) for i in range(0, len(crops), 32)]
    none = np.empty((0, job.params.n), dtype=np.float32)
    return Photos(np.concatenate(parts) if parts else none, np.array(people, dtype=str))
