"""From what a user asks for to a job that can run: sources, model, tables and keys, checked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from infra import models
from infra.faces import FaceAligner, FaceRecogniser
from infra.kek import LOCAL
from infra.keys import KeyFile, default_keys_path
from infra.lease import lease
from infra.ray_cluster import cluster, cluster_size
from infra.settings import Settings, StorageSettings
from infra.settings import load as load_settings
from infra.storage import is_s3, normalise
from ironmask.centring import Centring
from ironmask.errors import ParameterError, TableError, WrongKeyError
from ironmask.helper import DEFAULT_ENCODING
from ironmask.params import DEFAULT_PRESET, Params, preset
from pipelines import ledger, lookup, sources, wiring
from pipelines.enrol import Executor
from pipelines.face_settings import FaceSettings
from pipelines.job import DEFAULT_SHARD_SIZE, EnrolJob, SourceKind
from pipelines.lookup import Inventory, Verdict
from pipelines.ports import Store, Tables
from pipelines.run_local import LocalExecutor
from pipelines.wiring import Spec


@dataclass(frozen=True)
class Request:
    """An enrolment as a user asks for it: plain values, none of them secret."""

    source: str
    dest: str
    kind: str = "auto"
    model: str | None = None
    preset: str = DEFAULT_PRESET
    alpha: int | None = None
    tolerance: int | None = None
    encoding: str = DEFAULT_ENCODING
    centring: str = Centring.MEAN.value
    shard_size: int = DEFAULT_SHARD_SIZE
    plaintext_helpers: bool = False
    faces: FaceSettings = field(default_factory=FaceSettings)
    keys: str | None = None
    kek: str = LOCAL
    executor: str = "ray"
    workers: int | None = None
    ray_address: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A job whose source, model and parameters have been checked; nothing is written yet."""

    job: EnrolJob
    pack: models.ModelPack | None
    settings: Settings
    storage: StorageSettings
    store: Store


@dataclass(frozen=True)
class Opened:
    """A destination that this process holds: its tables, and what runs the stages."""

    job: EnrolJob
    tables: Tables
    store: Store
    executor: Executor


def prepare(request: Request) -> Prepared:
    """Check everything that can be checked without writing."""
    settings, storage = load_settings()
    store = wiring.open_store(storage)
    source, dest = normalise(request.source), normalise(request.dest)
    kind = _kind(request.kind, source, store)
    pack = _pack(request, settings, kind)
    if kind is SourceKind.EMBEDDINGS:
        n = sources.embedding_width(source, store)
    else:
        n = models.embedding_width(_required(pack))
    job = EnrolJob(
        source=source,
        dest=dest,
        kind=kind,
        model=pack.fingerprint if pack else f"declared:{request.model or 'unknown'}",
        params=_params(request, n),
        encoding=request.encoding,
        centring=_centring(request.centring),
        shard_size=request.shard_size,
        sealed=not request.plaintext_helpers,
        faces=request.faces,
    )
    return Prepared(job, pack, settings, storage, store)


def _kind(name: str, source: str, store: Store) -> SourceKind:
    found = sources.detect(source, store)
    if name == "auto":
        return found
    try:
        return SourceKind(name)
    except ValueError:
        known = ", ".join(["auto", *SourceKind])
        raise ParameterError(f"unknown kind of source {name!r}; the kinds are {known}") from None


def _pack(request: Request, settings: Settings, kind: SourceKind) -> models.ModelPack | None:
    """The pack of a model; stored embeddings may name one that is not on this machine."""
    name = request.model or settings.model
    if kind is not SourceKind.EMBEDDINGS:
        if name is None:
            raise ParameterError(
                "no model: name a pack or a folder with --model, or set IRONMASK_MODEL"
            )
        return models.find_pack(name)
    return models.find_pack(name) if name and os.path.isdir(name) else None


def _required(pack: models.ModelPack | None) -> models.ModelPack:
    if pack is None:
        raise ParameterError("images need a model: name one with --model")
    return pack


def _params(request: Request, n: int) -> Params:
    given = {"alpha": request.alpha, "tolerance": request.tolerance}
    changes = {name: value for name, value in given.items() if value is not None}
    return replace(preset(request.preset, n), **changes)


def _centring(name: str) -> Centring:
    try:
        return Centring(name)
    except ValueError:
        known = ", ".join(Centring)
        raise ParameterError(f"unknown centring {name!r}; the methods are {known}") from None


def verify(
    dest: str, subject: str, images: Sequence[str], model: str | None, keys: str | None
) -> list[Verdict]:
    """Verify probe images against a subject's template."""
    settings, storage = load_settings()
    store = wiring.open_store(storage)
    tables = _existing(dest, storage)
    row = lookup.find_row(tables, subject)
    table_id = tables.table_id
    opened_keys = wiring.keys(keys_path(keys, settings, tables), table_id, row["generation"])
    if opened_keys.key_id != row["key_id"]:
        raise WrongKeyError(
            f"the keys at hand are {opened_keys.key_id}; subject {subject!r} was sealed under "
            f"{row['key_id']}"
        )
    name = model or settings.model
    if name is None:
        raise ParameterError("no model: name the one that enrolled with --model")
    pack = models.find_pack(name)
    faces = FaceSettings(**_enrolled_faces(tables, row["run_id"]))
    probes = [(image, store.read(normalise(image), faces.max_bytes)) for image in images]
    return lookup.verify_images(
        table_id,
        row,
        probes,
        pack.fingerprint,
        FaceAligner(pack, faces),
        FaceRecogniser(pack, faces),
        opened_keys,
    )


def _enrolled_faces(tables: Tables, run_id: str) -> dict[str, Any]:
    """The face settings of the run that made a row, for this machine's CPU."""
    for record in ledger.runs(tables):
        if record.run_id == run_id:
            stored = dict(record.config["job"]["faces"])
            stored["det_sizes"] = tuple(stored["det_sizes"])
            return {**stored, "provider": "cpu"}
    return {}


def inspect(dest: str) -> Inventory:
    """Count what a destination holds."""
    _, storage = load_settings()
    return lookup.inventory(_existing(dest, storage))


def _existing(dest: str, storage: StorageSettings) -> Tables:
    tables = wiring.open_tables(normalise(dest), storage)
    if not tables.exist():
        raise TableError(f"{tables.dest} holds no table: enrol into it first")
    return tables


@contextmanager
def opened(request: Request, prepared: Prepared) -> Iterator[Opened]:
    """Hold the destination: its lease, its tables, its keys and a place to work."""
    job, store = prepared.job, prepared.store
    tables = wiring.open_tables(job.dest, prepared.storage)
    if tables.exist():
        ledger.check_shapes(tables, job)
    with lease(job.dest, store):
        tables.create()
        keys = keys_path(request.keys, prepared.settings, tables)
        _ensure_keys(keys, tables, job, request.kek)
        spec = Spec(prepared.storage.public(), keys, tables.table_id, prepared.pack)
        with _executor(request, prepared.settings, spec, job) as executor:
            yield Opened(job, tables, store, executor)


def keys_path(given: str | None, settings: Settings, tables: Tables) -> Path:
    """Where a table's keys lie; never inside the table's own folder."""
    table_id = tables.table_id
    path = Path(given).expanduser() if given else settings.keys or default_keys_path(table_id)
    path = path.absolute()
    if not is_s3(tables.dest) and path.is_relative_to(tables.dest):
        raise ParameterError(
            f"the keyset file {path} would lie inside the table {tables.dest}: whoever copies the "
            "table would have its keys; keep it elsewhere"
        )
    return path


def _ensure_keys(path: Path, tables: Tables, job: EnrolJob, kek: str) -> None:
    """Make the keys of a table that has no row yet; open and prove those of any other."""
    if not path.exists() and not ledger.runs(tables):
        KeyFile.create(path, tables.table_id, kek)
    file = KeyFile.open(path, tables.table_id)
    if job.generation not in file.generations():
        file.add_generation(job.generation)
    file.generation(job.generation)


@contextmanager
def _executor(
    request: Request, settings: Settings, spec: Spec, job: EnrolJob
) -> Iterator[Executor]:
    if request.executor == "local":
        yield LocalExecutor(spec)
        return
    if request.executor != "ray":
        raise ParameterError(f"unknown executor {request.executor!r}; it is ray or local")
    address = request.ray_address or settings.ray_address
    with cluster(address, request.workers or os.cpu_count() or 1):
        from pipelines.run_ray import RayExecutor

        cpus, gpus = cluster_size()
        on_gpu = gpus if job.faces.provider != "cpu" else 0
        yield RayExecutor(spec, workers=request.workers or cpus, gpus=on_gpu)
