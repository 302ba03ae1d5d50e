"""From what an operator asks for to a re-protection that can run: settings, sources, keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from infra.keys.key_file import KeyFile
from infra.models import packs
from infra.settings import Settings, StorageSettings
from infra.settings import load as load_settings
from infra.store.addresses import allowed, normalise
from infra.store.lease import lease, refuse_held
from ironmask.centring import Centring
from ironmask.errors import BusyError, KeyNotFoundError, MismatchError, ParameterError, SourceError
from ironmask.params import Params, preset
from pipelines.plan import sources
from pipelines.ports import GenerationKeys, Store, StoredTables, Tables
from pipelines.preflight import calibrate
from pipelines.preflight.agreement import DEFAULT_FMR, Known, settle
from pipelines.preflight.calibrate import Judged
from pipelines.reprotection.job import HeldReprotection
from pipelines.run import admit
from pipelines.setup import places, ports
from pipelines.setup.hold_live import own_keys
from pipelines.setup.models import at_hand, known_impostors
from pipelines.setup.worker import WorkerSpec
from pipelines.setup.workplace import ShardExecutor, tried_engine
from pipelines.spec.template_job import Purpose, SourceKind, TemplateJob
from pipelines.spec.workplace import Workplace, check_executor
from pipelines.table import erasing, generations, layout, run_records
from pipelines.table.generations import Generation, State
from pipelines.table.held import Destination
from pipelines.table.run_records import RunState


@dataclass(frozen=True)
class ReprotectRequest:
    """A re-protection as an operator asks for it; None: as the live generation was made.

    source: where its inputs are now, if they have moved. vault: take embeddings from the vault.
    max_lost: people who may lose their template since nothing is left to make a new one from.
    allow_roots: where inputs may lie, beside what the enrolments allowed. agreement: the false
    match rate that sets how alike the faces of one subject must be, 0 for no such test; by default
    the bar stays. refuse_disagreement: other faces are left out; they are counted in any case.
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
    allow_roots: tuple[str, ...] = ()
    agreement: float | None = None
    refuse_disagreement: bool = False

    @property
    def workplace(self) -> Workplace:
        """Where the work is done."""
        return Workplace(self.executor, self.workers, self.embedders, self.ray_address)


@dataclass(frozen=True)
class CheckedReprotection:
    """A re-protection whose settings have been checked; nothing is written yet."""

    job: TemplateJob
    pack: packs.ModelPack | None
    settings: Settings
    storage: StorageSettings
    store: Store
    tables: StoredTables
    judged: Judged


def prepare(request: ReprotectRequest) -> CheckedReprotection:
    """Check everything that can be checked without writing.

    Raises `ParameterError`, `SourceError`, `RiskError` and `TableError` for what cannot be done.
    """
    check_executor(request.executor)
    settings, storage = load_settings()
    stored = places.existing(request.dest, storage)
    store = ports.open_store(storage)
    purpose = Purpose(request.purpose)
    file = KeyFile.open(places.keys_path(request.keys, settings, stored), stored.table_id)
    tables = ports.sealed(stored, store, file, goes_on=True)
    number, parent = _numbers(tables, purpose, file)
    if generations.live(tables) == number:
        job = run_records.jobs_of(tables, number)[-1]
        return CheckedReprotection(job, None, settings, storage, store, stored, Judged())
    base = replace(
        _base(tables, parent, request, store), generation=number, renews=parent, purpose=purpose
    )
    if purpose.rewrites:
        return CheckedReprotection(base, None, settings, storage, store, stored, Judged())
    pack = _pack(base, request, settings)
    job = _job(base, pack, request, keeps=bool(tables.table("vault").files()))
    calibration = normalise(request.calibration) if request.calibration else None
    job, judged = calibrate.judge(job, calibration, at_hand(pack), store)
    fmr = request.agreement
    if fmr is not None or job.agreement is None or job.model != base.model:
        fmr = DEFAULT_FMR if fmr is None else fmr
        known = Known(calibration, known_impostors(job.model, pack), judged)
        job, _ = settle(job, fmr, known, store)
    job = admit.as_begun(tables, job, restart=request.restart)
    return CheckedReprotection(job, pack, settings, storage, store, stored, judged)


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
    for record in run_records.runs(tables):
        number = record.config.get("generation")
        is_ours = record.state == RunState.RUNNING and Purpose(record.kind).renews
        if is_ours and number in found:
            return found[number]
    return None


def _base(tables: Tables, parent: int, request: ReprotectRequest, store: Store) -> TemplateJob:
    """The live generation's job, with all the sources that it was made from."""
    newest = run_records.jobs_of(tables, parent)[-1]
    roots = allowed([*_allowed_before(tables, parent), *request.allow_roots])
    newest = replace(newest, retry=(), more_sources=(), vault=False, allow_roots=roots)
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


def _allowed_before(tables: Tables, generation: int) -> list[str]:
    """The roots that the runs of a generation were allowed."""
    jobs = run_records.jobs_of(tables, generation)
    return [root for job in jobs for root in job.allow_roots]


def _refuse_gone(known: Sequence[str], store: Store) -> None:
    for source in known:
        if not store.exists(source):
            raise SourceError(
                f"{source} does not exist any more: name where its inputs are now with --source"
            )


def _made_from(tables: Tables, generation: int) -> list[tuple[str, SourceKind]]:
    """The sources of a generation's inputs, before they were in any vault."""
    found: list[tuple[str, SourceKind]] = []
    for job in run_records.jobs_of(tables, generation):
        if job.kind is SourceKind.VAULT and job.renews is not None:
            found += _made_from(tables, job.renews)
        else:
            found += [(source, job.kind) for source in (job.source, *job.more_sources)]
    return list(dict.fromkeys(found))


def _pack(
    base: TemplateJob, request: ReprotectRequest, settings: Settings
) -> packs.ModelPack | None:
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
    pack = packs.find_pack(name)
    if pack.fingerprint != base.model and not request.model:
        raise ParameterError(
            f"{base.dest} was enrolled with model {base.model[:12]}, and {name} is another one: "
            "name it with --model to change over to it"
        )
    return pack


def _job(
    base: TemplateJob, pack: packs.ModelPack | None, request: ReprotectRequest, *, keeps: bool
) -> TemplateJob:
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
        keeps_other_faces=not request.refuse_disagreement,
    )


def _params(base: Params, pack: packs.ModelPack | None, request: ReprotectRequest) -> Params:
    n = packs.embedding_width(pack) if pack else base.n
    first = preset(request.preset, n) if request.preset else replace(base, n=n)
    given = {"alpha": request.alpha, "tolerance": request.tolerance}
    return replace(first, **{name: value for name, value in given.items() if value is not None})


@contextmanager
def opened(request: ReprotectRequest, prepared: CheckedReprotection) -> Iterator[HeldReprotection]:
    """Hold the destination: its lease, its tables, the keys of both generations, and workers.

    What can be known before anything is written is refused before.
    """
    job, store, stored = prepared.job, prepared.store, prepared.tables
    path = places.keys_path(request.keys, prepared.settings, stored)
    file = KeyFile.open(path, stored.table_id)
    tables = ports.sealed(stored, store, file, goes_on=True)
    admit.admit(tables, job, restart=request.restart)
    refuse_held(job.dest, store)
    prepared.storage.export()
    # After the switch no shard is left to run.
    place = Workplace("local") if generations.live(tables) == job.generation else request.workplace
    with (
        tried_engine(place, prepared.settings, prepared.pack, job.faces) as found,
        lease(job.dest, store) as check,
    ):
        tables = ports.sealed(stored, store, file, goes_on=True)
        _refuse_change(tables, job, file)
        # Somebody else may have come first.
        admit.admit(tables, job, restart=request.restart)
        erasing.refuse_unfinished_erasure(tables.dest, store)
        stored.create()
        calibrate.keep(prepared.judged, job, store)
        file.add_table()
        keys, old_keys = _keys(file, tables, job)
        kept = None
        if job.kind is SourceKind.VAULT or job.vault:
            kept = places.vault_keys(request.vault_keys, path, tables)
        spec = WorkerSpec(prepared.storage.public(), path, tables.table_id, prepared.pack, kept)
        seal = ports.log_seal(stored, store, old_keys or keys, file)
        dest = Destination(seal.tables, store, keys, check, seal, old_keys)
        calibrate.write_forecast(prepared.judged, dest)
        yield HeldReprotection(
            job, dest, file, ShardExecutor(found, spec), request.restart, request.max_lost
        )


def _refuse_change(tables: Tables, job: TemplateJob, file: KeyFile) -> None:
    """Raise `BusyError` where another run has gone on since this one was prepared."""
    if _numbers(tables, job.purpose, file) != (job.generation, job.renews):
        raise BusyError(f"{tables.dest} was changed by another run just now: run it again")


def _keys(
    file: KeyFile, tables: Tables, job: TemplateJob
) -> tuple[GenerationKeys, GenerationKeys | None]:
    """The new generation's keys, made where it has none yet, and those of the one it replaces."""
    found = generations.read(tables)
    number, parent = job.generation, job.renews
    assert parent is not None  # noqa: S101
    if generations.live_of(found) == number:
        return own_keys(file, found, number), None
    old = own_keys(file, found, parent)
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
    return own_keys(file, found, number), old


def _make_keys(file: KeyFile, job: TemplateJob, parent: int) -> None:
    if job.purpose.rewrites:
        rekey = job.purpose is Purpose.REKEY
        file.succeed(job.generation, parent, rekey=rekey, rotate_mac=True)
    else:
        file.add_generation(job.generation, sealed=job.sealed)
