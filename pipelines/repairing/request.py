"""From what an operator asks for to a repair that can run: the live settings, a source, keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from infra.keys.key_file import KeyFile
from infra.models import packs
from infra.settings import Settings, StorageSettings
from infra.settings import load as load_settings
from infra.store.addresses import allowed, is_inside, normalise
from ironmask.errors import ModelNotFoundError, ParameterError
from pipelines.plan import sources
from pipelines.ports import GenerationKeys, Store, StoredTables, Tables
from pipelines.run import admit
from pipelines.run.course import Watch
from pipelines.run.template_run import TemplateRun
from pipelines.setup import places, ports
from pipelines.setup.hold import Crew, OpenKeys, Site, hold_to_work, live_keys, own_keys
from pipelines.spec.options import KeyFiles
from pipelines.spec.parameters import as_wide
from pipelines.spec.template_job import DECLARED, Purpose, SourceKind, TemplateJob
from pipelines.spec.workplace import Workplace
from pipelines.table import erasing, generations, run_records


@dataclass(frozen=True)
class RepairRequest:
    """A repair as an operator asks for it; everything else is as the live generation was made.

    source: what the people were enrolled from, or other inputs of theirs. model: what made its
    embeddings, or is to make them: that of the table. allow_roots: as of an enrolment, beside what
    the enrolments allowed.
    """

    dest: str
    source: str
    model: str | None = None
    provider: str | None = None
    allow_roots: tuple[str, ...] = ()
    key_files: KeyFiles = field(default_factory=KeyFiles)
    workplace: Workplace = field(default_factory=Workplace)
    restart: bool = False


@dataclass(frozen=True)
class CheckedRepair:
    """A repair whose source, model and table have been checked; nothing is written yet.

    stored: its tables. tables: the same as far as the seal vouches for them. keys: of the live
    generation.
    """

    job: TemplateJob
    pack: packs.ModelPack | None
    settings: Settings
    storage: StorageSettings
    store: Store
    stored: StoredTables
    tables: Tables
    keys: GenerationKeys = field(repr=False)


def prepare(request: RepairRequest) -> CheckedRepair:
    """Check everything that can be checked without writing.

    Raises `ParameterError`, `SourceError`, `MismatchError` and `TableError` for what cannot be
    done, `BusyError` where an erasure has to be finished first.
    """
    settings, storage = load_settings()
    stored = places.existing(request.dest, storage)
    store = ports.open_store(storage)
    source = normalise(request.source)
    if is_inside(source, stored.dest) or is_inside(stored.dest, source):
        raise ParameterError(f"SRC {source} and the table {stored.dest} lie in one another")
    file = KeyFile.open(places.keys_path(request.key_files.keys, settings, stored), stored.table_id)
    tables = ports.sealed(stored, store, file)
    erasing.refuse_unfinished_erasure(tables.dest, store)
    found = generations.read(tables)
    live = generations.live_of(found)
    kind = sources.detect(source, store)
    base = _base(tables, live, request)
    model, pack = _model(base, kind, request, settings, tables)
    width = _width(source, kind, store, pack)
    job = replace(base, source=source, kind=kind, model=model, params=as_wide(base.params, width))
    admit.admit(tables, job, restart=request.restart)
    keys = own_keys(file, found, live)
    return CheckedRepair(job, pack, settings, storage, store, stored, tables, keys)


def _base(tables: Tables, live: int, request: RepairRequest) -> TemplateJob:
    """The live generation's settings."""
    jobs = run_records.jobs_of(tables, live)
    newest = jobs[-1]
    faces = newest.faces
    if request.provider:
        faces = replace(faces, provider=request.provider)  # type: ignore[arg-type]
    return replace(
        newest,
        purpose=Purpose.REPAIR,
        generation=live,
        renews=None,
        retry=(),
        more_sources=(),
        faces=faces,
        vault=any(job.vault for job in run_records.jobs(tables)),
        allow_roots=allowed([*(r for job in jobs for r in job.allow_roots), *request.allow_roots]),
    )


def _model(
    base: TemplateJob,
    kind: SourceKind,
    request: RepairRequest,
    settings: Settings,
    tables: Tables,
) -> tuple[str, packs.ModelPack | None]:
    """What the source's embeddings are of, and its pack; stored ones need none at hand."""
    name = request.model or settings.model
    if kind is not SourceKind.EMBEDDINGS:
        if name is None:
            raise ParameterError("no model: name a pack or a folder with --model")
        pack = packs.find_pack(name)
        return pack.fingerprint, pack
    if name is None and base.model.startswith(DECLARED):
        return base.model, None
    if name is None:
        raise ParameterError(
            f"{tables.dest} was enrolled with model {base.model[:12]}: name the model that made "
            "the embeddings with --model"
        )
    try:
        pack = packs.find_pack(name)
    except ModelNotFoundError:
        return DECLARED + name, None
    return run_records.declared_model(tables, pack.name) or pack.fingerprint, pack


def _width(source: str, kind: SourceKind, store: Store, pack: packs.ModelPack | None) -> int:
    if kind is SourceKind.EMBEDDINGS:
        return sources.embedding_width(source, store)
    assert pack is not None  # noqa: S101
    return packs.embedding_width(pack)


@contextmanager
def opened(
    request: RepairRequest, prepared: CheckedRepair, watch: Watch | None = None
) -> Iterator[TemplateRun]:
    """Hold the destination: its lease, its live keys, its seal, and a place to work."""
    job, tables = prepared.job, prepared.stored
    site = Site(tables, prepared.store, prepared.storage, prepared.settings)
    path = site.keys_path(request.key_files.keys)
    own = str(path), str(places.vault_keys_path(request.key_files.vault_keys, path))
    crew = Crew(request.workplace, prepared.pack, job)

    def keys() -> OpenKeys:
        found = live_keys(site, KeyFile.open(path, tables.table_id))
        if not job.vault:
            return found
        given = request.key_files.vault_keys
        return replace(found, vault=places.vault_keys(given, path, prepared.tables))

    with hold_to_work(site, crew, keys, own=lambda: own) as held:
        yield TemplateRun(job, held.dest, held.executor, watch or Watch(), request.restart)
