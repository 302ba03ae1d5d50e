"""From what a user asks for to a job that can run: sources, model, tables and keys, checked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from infra import models
from infra.faces import FaceAligner, FaceRecogniser
from infra.kek import LOCAL
from infra.keys import KeyFile
from infra.lease import lease
from infra.ray_cluster import cluster, cluster_size
from infra.settings import Settings, StorageSettings
from infra.settings import load as load_settings
from infra.storage import is_inside, is_text, normalise, table_address
from ironmask.centring import Centring
from ironmask.errors import (
    MismatchError,
    ModelNotFoundError,
    ParameterError,
    WrongKeyError,
)
from ironmask.helper import DEFAULT_ENCODING
from ironmask.params import DEFAULT_PRESET, Params, preset
from pipelines import calibrate, erase, generations, ledger, lookup, places, sources, wiring
from pipelines.calibrate import Judged
from pipelines.destination import Destination
from pipelines.enrol import Executor
from pipelines.face_settings import FaceSettings
from pipelines.job import DECLARED, DEFAULT_SHARD_SIZE, EnrolJob, SourceKind
from pipelines.lookup import Inventory, Verdict
from pipelines.ports import GenerationKeys, Store, Tables
from pipelines.run_local import LocalExecutor
from pipelines.seal import Seal
from pipelines.wiring import Spec

_EXECUTORS: Final = ("ray", "local")


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
    filling: float = 0.0
    vault: bool = False
    vault_keys: str | None = None
    calibration: str | None = None
    accepted_risk: str | None = None
    faces: FaceSettings = field(default_factory=FaceSettings)
    keys: str | None = None
    kek: str | None = None
    executor: str = "ray"
    restart: bool = False
    retry: tuple[str, ...] = ()
    workers: int | None = None
    embedders: int | None = None
    ray_address: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A job whose source, model and parameters have been checked; nothing is written yet.

    judged: what one stolen row would be worth, where that is known.
    """

    job: EnrolJob
    pack: models.ModelPack | None
    settings: Settings
    storage: StorageSettings
    store: Store
    judged: Judged


@dataclass(frozen=True)
class Opened:
    """A destination that this process holds, and what runs the stages."""

    job: EnrolJob
    dest: Destination
    executor: Executor


def prepare(request: Request) -> Prepared:
    """Check everything that can be checked without writing."""
    settings, storage = load_settings()
    store = wiring.open_store(storage)
    source, dest = normalise(request.source), table_address(request.dest)
    _check_places(source, dest, request, settings)
    kind = _kind(request.kind, source, store)
    pack = _pack(request, settings, kind)
    if kind is SourceKind.EMBEDDINGS:
        n = _stored_width(source, store, pack)
    else:
        n = models.embedding_width(_required(pack))
    job = EnrolJob(
        source=source,
        dest=dest,
        kind=kind,
        model=pack.fingerprint if pack else _declared(request, settings),
        params=_params(request, n),
        encoding=request.encoding,
        centring=Centring.named(request.centring),
        shard_size=request.shard_size,
        sealed=not request.plaintext_helpers,
        faces=request.faces,
        retry=tuple(sorted(set(request.retry))),
        accepted_risk=request.accepted_risk,
        filling=request.filling,
        vault=request.vault,
    )
    job, judged = calibrate.judge(job, request.calibration, pack, store)
    return Prepared(job, pack, settings, storage, store, judged)


def _check_places(source: str, dest: str, request: Request, settings: Settings) -> None:
    check_executor(request.executor)
    if is_inside(source, dest) or is_inside(dest, source):
        raise ParameterError(
            f"SRC {source} and DEST {dest} lie in one another: the table's own files would be "
            "taken for inputs; keep them apart"
        )
    given = request.keys or settings.keys
    if given:
        places.check_outside(places.expanded(given), dest)


def check_executor(name: str) -> None:
    """Raise `ParameterError` for one that is not known."""
    if name not in _EXECUTORS:
        raise ParameterError(f"unknown executor {name!r}; it is ray or local")


def _stored_width(source: str, store: Store, pack: models.ModelPack | None) -> int:
    n = sources.embedding_width(source, store)
    if pack and models.embedding_width(pack) != n:
        raise ParameterError(
            f"{source} holds embeddings of width {n}, {pack.name} makes "
            f"{models.embedding_width(pack)}: name the model that made them, or leave --model out"
        )
    return n


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
    try:
        return models.find_pack(name) if name else None
    except ModelNotFoundError:
        return None


def _declared(request: Request, settings: Settings) -> str:
    return DECLARED + (request.model or settings.model or "unknown")


def _required(pack: models.ModelPack | None) -> models.ModelPack:
    if pack is None:
        raise ParameterError("images need a model: name one with --model")
    return pack


def _params(request: Request, n: int) -> Params:
    given = {"alpha": request.alpha, "tolerance": request.tolerance}
    changes = {name: value for name, value in given.items() if value is not None}
    return replace(preset(request.preset, n), **changes)


def verify(
    dest: str, subject: str, images: Sequence[str], model: str | None, keys: str | None
) -> list[Verdict]:
    """Verify probe images against a subject's template."""
    settings, storage = load_settings()
    store = wiring.open_store(storage)
    if not is_text(subject):
        raise ParameterError(f"{subject!r} is no subject's id: it is not UTF-8")
    tables = places.existing(dest, storage)
    table_id = tables.table_id
    opener = partial(wiring.keys, places.keys_path(keys, settings, tables), table_id)
    row, opened_keys = lookup.open_live(tables, subject, opener)
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
        (pack.fingerprint, pack.name),
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
    return lookup.inventory(places.existing(dest, storage))


@contextmanager
def opened(request: Request, prepared: Prepared) -> Iterator[Opened]:
    """Hold the destination: its lease, its tables, its keys and a place to work."""
    tables = wiring.open_tables(prepared.job.dest, prepared.storage)
    known = tables if tables.exist() else None
    job, store = settled_job(prepared, known), prepared.store
    if known:
        # A refusal must not wait for keys and workers.
        ledger.admit(known, job, restart=request.restart)
    with lease(job.dest, store) as check:
        erase.refuse_half(job.dest, store)
        tables.create()
        calibrate.keep(prepared.judged, job, store)
        path = places.keys_path(request.keys, prepared.settings, tables)
        keys = _ensure_keys(path, tables, job, request.kek)
        prepared.storage.export()
        kept = (
            places.vault_keys(request.vault_keys, path, tables, request.kek) if job.vault else None
        )
        spec = Spec(prepared.storage.public(), path, tables.table_id, prepared.pack, kept)
        with executor_of(request, prepared.settings, spec, job) as executor:
            seal = Seal(tables, store, keys)
            seal.begin()
            dest = Destination(tables, store, keys, check, seal)
            generations.begin(dest)
            calibrate.record(prepared.judged, dest)
            yield Opened(job, dest, executor)


def settled_job(prepared: Prepared, tables: Tables | None) -> EnrolJob:
    """The job for the live generation, its model as the table knows it: perhaps by name only."""
    job, pack = prepared.job, prepared.pack
    if tables is None:
        return job
    job = replace(job, generation=generations.live(tables))
    if pack is None or job.kind is not SourceKind.EMBEDDINGS:
        return job
    return replace(job, model=ledger.declared_model(tables, pack.name) or job.model)


def existing_keys(request: Request, prepared: Prepared, tables: Tables) -> GenerationKeys | None:
    """The live keys of a table that is there already; None where it has no run yet."""
    path = places.keys_path(request.keys, prepared.settings, tables)
    if not ledger.runs(tables):
        return None
    return wiring.keys(path, tables.table_id, generations.live(tables))


def _ensure_keys(path: Path, tables: Tables, job: EnrolJob, kek: str | None) -> GenerationKeys:
    """Make the keys of a generation that has no run yet; open and prove those of any other."""
    runs = ledger.runs(tables)
    known = {r.config["key_id"] for r in runs if r.config["generation"] == job.generation}
    if not path.exists() and not runs:
        KeyFile.create(path, tables.table_id, kek or LOCAL)
    file = KeyFile.open(path, tables.table_id)
    if kek not in (None, file.kek_uri):
        raise ParameterError(f"{path} is wrapped by {file.kek_uri}, not by {kek}: leave --kek out")
    if job.generation not in file.generations() and not known:
        file.add_generation(job.generation, sealed=job.sealed)
    keys = file.generation(job.generation)
    if known and keys.key_id not in known:
        raise WrongKeyError(
            f"{path} holds key {keys.key_id}; {tables.dest} was enrolled under "
            f"{' and '.join(sorted(known))}: name the right file with --keys"
        )
    if keys.sealed != job.sealed:
        raise MismatchError(
            f"the keys in {path} are for {'sealed' if keys.sealed else 'plaintext'} helpers: "
            f"{'leave out' if keys.sealed else 'add'} --plaintext-helpers"
        )
    return keys


class Workplace(Protocol):
    """Where a user wants the work done."""

    @property
    def executor(self) -> str: ...

    @property
    def workers(self) -> int | None: ...

    @property
    def embedders(self) -> int | None: ...

    @property
    def ray_address(self) -> str | None: ...


@contextmanager
def executor_of(
    request: Workplace, settings: Settings, spec: Spec, job: EnrolJob
) -> Iterator[Executor]:
    """What runs a job's shards: this process, or a Ray cluster that is held meanwhile."""
    if request.executor == "local":
        yield LocalExecutor(spec)
        return
    address = request.ray_address or settings.ray_address
    with cluster(address, request.workers or os.cpu_count() or 1) as check:
        from pipelines.run_ray import RayExecutor

        size = cluster_size()
        # Without a GPU the workers themselves find that the provider is not active, and say so.
        gpus = size.gpus if job.faces.provider != "cpu" else 0
        yield RayExecutor(
            spec,
            # A cluster that scales from nothing has no CPU yet.
            workers=request.workers or max(1, size.cpus),
            embedders=gpus if request.embedders is None else request.embedders,
            on_gpu=gpus > 0,
            memory=size.memory,
            check=check,
        )
