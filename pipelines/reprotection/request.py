"""From what an operator asks for to a re-protection that can run: settings, sources, keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from infra.keys.key_file import KeyFile
from infra.models import packs
from infra.settings import Settings, StorageSettings
from infra.settings import load as load_settings
from infra.store.addresses import allowed, normalise
from ironmask.centring import Centring
from ironmask.errors import MismatchError, ParameterError, SourceError
from pipelines.plan import sources
from pipelines.ports import Store, StoredTables, Tables
from pipelines.preflight import calibrate, choice
from pipelines.preflight.agreement import DEFAULT_FMR, Known, settle
from pipelines.preflight.calibrate import Judged
from pipelines.preflight.choice import Offer
from pipelines.run import admit
from pipelines.setup import places, ports
from pipelines.setup.models import at_hand, known_impostors
from pipelines.spec.options import Goal, KeyFiles, Risk, TemplateSettings
from pipelines.spec.parameters import chosen_params
from pipelines.spec.template_job import Purpose, SourceKind, TemplateJob
from pipelines.spec.workplace import Workplace
from pipelines.table import generations, layout, run_records
from pipelines.table.generations import Generation, State
from pipelines.table.run_records import RunState


@dataclass(frozen=True)
class Origin:
    """Where the inputs of new templates come from; by default from where the live ones came.

    source: where they are now, if they have moved. vault: embeddings of the vault. allow_roots:
    where inputs may lie, beside what the enrolments allowed.
    """

    source: tuple[str, ...] = ()
    vault: bool = False
    allow_roots: tuple[str, ...] = ()


@dataclass(frozen=True)
class Losses:
    """What a re-protection may lose. max_lost: people who may lose their template, since nothing is
    left to make a new one from. refuse_disagreement: other faces are left out; they are counted in
    any case.
    """

    max_lost: int = 0
    refuse_disagreement: bool = False


@dataclass(frozen=True)
class ReprotectRequest:
    """A re-protection as an operator asks for it. purpose: a `Purpose` that renews."""

    dest: str
    purpose: str = Purpose.REPROTECT.value
    model: str | None = None
    provider: str | None = None
    origin: Origin = field(default_factory=Origin)
    settings: TemplateSettings = field(default_factory=TemplateSettings)
    goal: Goal = field(default_factory=Goal)
    losses: Losses = field(default_factory=Losses)
    key_files: KeyFiles = field(default_factory=KeyFiles)
    risk: Risk = field(default_factory=Risk)
    workplace: Workplace = field(default_factory=Workplace)
    restart: bool = False


@dataclass(frozen=True)
class CheckedReprotection:
    """A re-protection whose settings have been checked; nothing is written yet. offer: what the
    parameters were chosen from, where they were.
    """

    job: TemplateJob
    pack: packs.ModelPack | None
    settings: Settings
    storage: StorageSettings
    store: Store
    tables: StoredTables
    judged: Judged
    offer: Offer | None = None


def prepare(request: ReprotectRequest) -> CheckedReprotection:
    """Check everything that can be checked without writing.

    Raises `ParameterError`, `SourceError`, `RiskError` and `TableError` for what cannot be done.
    """
    settings, storage = load_settings()
    stored = places.existing(request.dest, storage)
    store = ports.open_store(storage)
    purpose = Purpose(request.purpose)
    file = KeyFile.open(places.keys_path(request.key_files.keys, settings, stored), stored.table_id)
    tables = ports.sealed(stored, store, file, goes_on=True)
    number, parent = numbers(tables, purpose, file)
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
    given = request.risk.calibration
    calibration = normalise(given) if given else None
    job, offer = choice.settle(job, request.goal, request.settings, calibration, store)
    job, judged = calibrate.judge(job, calibration, at_hand(pack), store)
    fmr = request.settings.agreement
    if fmr is not None or job.agreement is None or job.model != base.model:
        fmr = DEFAULT_FMR if fmr is None else fmr
        known = Known(calibration, known_impostors(job.model, pack), judged)
        job, _ = settle(job, fmr, known, store)
    job = admit.as_begun(tables, job, restart=request.restart)
    return CheckedReprotection(job, pack, settings, storage, store, stored, judged, offer)


def numbers(tables: Tables, purpose: Purpose, file: KeyFile) -> tuple[int, int]:
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
    roots = allowed([*_allowed_before(tables, parent), *request.origin.allow_roots])
    newest = replace(newest, retry=(), more_sources=(), vault=False, allow_roots=roots)
    if request.origin.vault and request.origin.source:
        raise ParameterError("--vault takes embeddings from the vault: leave --source out")
    if request.origin.vault and not tables.table("vault").files():
        raise ParameterError(
            f"{tables.dest} has an empty vault: only what was enrolled with --vault can be made "
            "anew from it"
        )
    if request.origin.vault:
        return replace(newest, source=layout.join(tables.dest, "vault"), kind=SourceKind.VAULT)
    found = [(normalise(source), sources.detect(source, store)) for source in request.origin.source]
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
    chosen = request.settings
    n = packs.embedding_width(pack) if pack else base.params.n
    filling = base.filling if chosen.filling is None else chosen.filling
    return replace(
        base,
        model=pack.fingerprint if pack else base.model,
        params=chosen_params(chosen, n, base.params),
        centring=Centring.named(chosen.centring) if chosen.centring else base.centring,
        faces=faces,
        filling=filling,
        profile=base.profile if filling else None,
        # What a vault has of the same model stays there as it is.
        vault=keeps and pack is not None and pack.fingerprint != base.model,
        accepted_risk=request.risk.accepted_risk or base.accepted_risk,
        keeps_other_faces=not request.losses.refuse_disagreement,
        **chosen.given("encoding", "shard_size"),
    )
