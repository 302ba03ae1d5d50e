"""From what an operator asks for to a re-protection that can run: settings, sources, keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from infra import models
from infra.keys import KeyFile
from infra.lease import lease
from infra.settings import Settings, StorageSettings
from infra.settings import load as load_settings
from infra.storage import normalise
from ironmask.centring import Centring
from ironmask.errors import (
    BusyError,
    KeyNotFoundError,
    MismatchError,
    ParameterError,
    SourceError,
    WrongKeyError,
)
from ironmask.params import Params, preset
from pipelines import calibrate, erase, generations, layout, ledger, places, sources, start, wiring
from pipelines.calibrate import Judged
from pipelines.destination import Destination
from pipelines.generations import Generation, State
from pipelines.job import EnrolJob, Purpose, SourceKind
from pipelines.ledger import RunState
from pipelines.ports import GenerationKeys, Keyring, Store, Tables
from pipelines.reprotect import Held
from pipelines.seal import Seal
from pipelines.wiring import Spec


@dataclass(frozen=True)
class Request:
    """A re-protection as an operator asks for it; None: as the live generation was made.

    source: where its inputs are now, if they have moved. vault: take embeddings from the vault.
    max_lost: people who may lose their template since nothing is left to make a new one from.
    """

    dest: str
    purpose: str = Purpose.REPROTECT.value
    source: tuple[str, ...] = ()
    vault: bool = False
    vault_keys: str | None = None
    model: str | None = None
    preset: str | None = None
    alpha: int | None = None
    tolerance: int | None = None
    encoding: str | None = None
    centring: str | None = None
    shard_size: int | None = None
    filling: float | None = None
    calibration: str | None = None
    accepted_risk: str | None = None
    provider: str | None = None
    keys: str | None = None
    executor: str = "ray"
    workers: int | None = None
    embedders: int | None = None
    ray_address: str | None = None
    restart: bool = False
    max_lost: int = 0


@dataclass(frozen=True)
class Prepared:
    """A re-protection whose settings have been checked; nothing is written yet."""

    job: EnrolJob
    pack: models.ModelPack | None
    settings: Settings
    storage: StorageSettings
    store: Store
    tables: Tables
    judged: Judged


def prepare(request: Request) -> Prepared:
    """Check everything that can be checked without writing.

    Raises `ParameterError`, `SourceError`, `RiskError` and `TableError` for what cannot be done.
    """
    start.check_executor(request.executor)
    settings, storage = load_settings()
    tables = places.existing(request.dest, storage)
    store = wiring.open_store(storage)
    purpose = Purpose(request.purpose)
    file = KeyFile.open(places.keys_path(request.keys, settings, tables), tables.table_id)
    number, parent = _numbers(tables, purpose, file)
    if generations.live(tables) == number:
        job = ledger.jobs_of(tables, number)[-1]
        return Prepared(job, None, settings, storage, store, tables, Judged())
    base = replace(
        _base(tables, parent, request, store), generation=number, renews=parent, purpose=purpose
    )
    if purpose.rewrites:
        return Prepared(base, None, settings, storage, store, tables, Judged())
    pack = _pack(base, request, settings)
    job = _job(base, pack, request, keeps=bool(tables.table("vault").files()))
    job, judged = calibrate.judge(job, request.calibration, pack, store)
    return Prepared(job, pack, settings, storage, store, tables, judged)


def _numbers(tables: Tables, purpose: Purpose, file: KeyFile) -> tuple[int, int]:
    """The generation to write, or to finish, and the one that it replaces."""
    found = generations.read(tables)
    one = _begun(tables, found)
    if one is None:
        # Keys that were made for a generation that never began are not taken for this one.
        return max({*found, *file.generations()}) + 1, generations.live_of(found)
    if one.purpose != purpose:
        raise MismatchError(
            f"{tables.dest}: generation {one.number} was begun by `ironmask {one.purpose}`: finish "
            "that first with the same command"
        )
    assert one.parent is not None  # noqa: S101
    return one.number, one.parent


def _begun(tables: Tables, found: dict[int, Generation]) -> Generation | None:
    """The generation that is being prepared, or is live and has not reported yet."""
    for one in generations.in_state(found, State.PREPARING):
        return one
    for record in ledger.runs(tables):
        number = record.config.get("generation")
        is_ours = record.state == RunState.RUNNING and record.kind != Purpose.ENROL
        if is_ours and number in found:
            return found[number]
    return None


def _base(tables: Tables, parent: int, request: Request, store: Store) -> EnrolJob:
    """The live generation's job, with all the sources that it was made from."""
    newest = ledger.jobs_of(tables, parent)[-1]
    newest = replace(newest, retry=(), more_sources=(), vault=False)
    if request.vault and request.source:
        raise ParameterError("--vault takes embeddings from the vault: leave --source out")
    if request.vault and not tables.table("vault").files():
        raise ParameterError(
            f"{tables.dest} has an empty vault: only what was enrolled with --vault can be made "
            "anew from it"
        )
    if request.vault:
        return replace(newest, source=layout.join(tables.dest, "vault"), kind=SourceKind.VAULT)
    found = [(normalise(source), sources.detect(source, store)) for source in request.source]
    found = found or _made_from(tables, parent)
    if not Purpose(request.purpose).rewrites:
        _refuse_gone([source for source, _ in found], store)
    several = len(found) > 1 and any(kind is SourceKind.EMBEDDINGS for _, kind in found)
    if several and not Purpose(request.purpose).rewrites:
        raise ParameterError(
            f"{tables.dest} was made from {len(found)} sources, embeddings among them: name one "
            "file that holds all of them with --source"
        )
    (source, kind), *others = found
    return replace(newest, source=source, more_sources=tuple(o for o, _ in others), kind=kind)


def _refuse_gone(known: Sequence[str], store: Store) -> None:
    for source in known:
        if not store.exists(source):
            raise SourceError(
                f"{source} does not exist any more: name where its inputs are now with --source"
            )


def _made_from(tables: Tables, generation: int) -> list[tuple[str, SourceKind]]:
    """The sources of a generation's inputs, before they were in any vault."""
    found: list[tuple[str, SourceKind]] = []
    for job in ledger.jobs_of(tables, generation):
        if job.kind is SourceKind.VAULT and job.renews is not None:
            found += _made_from(tables, job.renews)
        else:
            found += [(source, job.kind) for source in (job.source, *job.more_sources)]
    return list(dict.fromkeys(found))


def _pack(base: EnrolJob, request: Request, settings: Settings) -> models.ModelPack | None:
    """The model's pack. Raises `ParameterError` for another model that nobody asked for."""
    name = request.model or settings.model
    if base.kind in (SourceKind.EMBEDDINGS, SourceKind.VAULT):
        if request.model:
            raise ParameterError(
                "stored embeddings are of the model that made them: leave --model out; those of "
                "another model need another table"
            )
        return None
    if name is None:
        raise ParameterError("no model: name a pack or a folder with --model")
    pack = models.find_pack(name)
    if pack.fingerprint != base.model and not request.model:
        raise ParameterError(
            f"{base.dest} was enrolled with model {base.model[:12]}, and {name} is another one: "
            "name it with --model to change over to it"
        )
    return pack


def _job(
    base: EnrolJob, pack: models.ModelPack | None, request: Request, *, keeps: bool
) -> EnrolJob:
    """The job with what is to be different from now on. keeps: the table has a vault."""
    faces = base.faces
    if request.provider:
        faces = replace(faces, provider=request.provider)  # type: ignore[arg-type]
    filling = base.filling if request.filling is None else request.filling
    return replace(
        base,
        model=pack.fingerprint if pack else base.model,
        params=_params(base.params, pack, request),
        encoding=request.encoding or base.encoding,
        centring=Centring.named(request.centring) if request.centring else base.centring,
        shard_size=request.shard_size or base.shard_size,
        faces=faces,
        filling=filling,
        profile=base.profile if filling else None,
        # What a vault has of the same model stays there as it is.
        vault=keeps and pack is not None and pack.fingerprint != base.model,
        accepted_risk=request.accepted_risk or base.accepted_risk,
    )


def _params(base: Params, pack: models.ModelPack | None, request: Request) -> Params:
    n = models.embedding_width(pack) if pack else base.n
    first = preset(request.preset, n) if request.preset else replace(base, n=n)
    given = {"alpha": request.alpha, "tolerance": request.tolerance}
    return replace(first, **{name: value for name, value in given.items() if value is not None})


@contextmanager
def opened(request: Request, prepared: Prepared) -> Iterator[Held]:
    """Hold the destination: its lease, its tables, the keys of both generations, and workers."""
    job, store, tables = prepared.job, prepared.store, prepared.tables
    with lease(job.dest, store) as check:
        path = places.keys_path(request.keys, prepared.settings, tables)
        file = KeyFile.open(path, tables.table_id)
        _refuse_change(tables, job, file)
        # What is refused must leave nothing behind.
        ledger.admit(tables, job, restart=request.restart)
        erase.refuse_half(tables.dest, store)
        tables.create()
        calibrate.keep(prepared.judged, job, store)
        keys, old_keys = _keys(file, tables, job)
        prepared.storage.export()
        kept = None
        if job.kind is SourceKind.VAULT or job.vault:
            kept = places.vault_keys(request.vault_keys, path, tables)
        spec = Spec(prepared.storage.public(), path, tables.table_id, prepared.pack, kept)
        # After the switch no shard is left to run.
        place = request if old_keys else replace(request, executor="local")
        with start.executor_of(place, prepared.settings, spec, job) as executor:
            seal = Seal(tables, store, old_keys or keys, wiring.seal_key_of(file))
            seal.begin()
            dest = Destination(tables, store, keys, check, seal, old_keys)
            calibrate.record(prepared.judged, dest)
            yield Held(job, dest, file, executor, request.restart, request.max_lost)


def _refuse_change(tables: Tables, job: EnrolJob, file: KeyFile) -> None:
    """Raise `BusyError` where another run has gone on since this one was prepared."""
    if _numbers(tables, job.purpose, file) != (job.generation, job.renews):
        raise BusyError(f"{tables.dest} was changed by another run just now: run it again")


def _keys(
    file: KeyFile, tables: Tables, job: EnrolJob
) -> tuple[GenerationKeys, GenerationKeys | None]:
    """The new generation's keys, made where it has none yet, and those of the one it replaces."""
    found = generations.read(tables)
    number, parent = job.generation, job.renews
    assert parent is not None  # noqa: S101
    if generations.live_of(found) == number:
        return _own(file, found, number), None
    old = _own(file, found, parent)
    if number not in file.generations():
        if number in found:
            raise KeyNotFoundError(
                f"{file.path} holds no keys of generation {number}, which was begun with "
                f"{found[number].key_id}: restore the file from a backup, or give the generation "
                "up with `ironmask reprotect --abandon`"
            )
        # Of a generation that never began: nothing was ever sealed with them.
        for stale in file.generations().keys() - found.keys():
            file.destroy_generation(stale)
        _make_keys(file, job, parent)
    return _own(file, found, number), old


def _make_keys(file: KeyFile, job: EnrolJob, parent: int) -> None:
    if job.purpose.rewrites:
        rekey = job.purpose is Purpose.REKEY
        file.succeed(job.generation, parent, rekey=rekey, rotate_mac=not rekey)
    else:
        file.add_generation(job.generation, sealed=job.sealed)


def _own(file: KeyFile, found: dict[int, Generation], number: int) -> GenerationKeys:
    keys = file.generation(number)
    if number in found and found[number].key_id != keys.key_id:
        raise WrongKeyError(
            f"{file.path} holds key {keys.key_id} for generation {number}, and the table names "
            f"{found[number].key_id}: name the right file with --keys"
        )
    return keys


@contextmanager
def opened_live(dest: str, keys: str | None) -> Iterator[tuple[Destination, Keyring]]:
    """Hold a destination without any work for shards: its lease, its live keys, its seal."""
    settings, storage = load_settings()
    tables = places.existing(dest, storage)
    store = wiring.open_store(storage)
    file = KeyFile.open(places.keys_path(keys, settings, tables), tables.table_id)
    with lease(tables.dest, store) as check:
        found = generations.read(tables)
        live = _own(file, found, generations.live_of(found))
        seal = Seal(tables, store, live, wiring.seal_key_of(file))
        seal.begin()
        yield Destination(tables, store, live, check, seal), file
