"""From what a user asks for to a job that can run: sources, model, tables and keys, checked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from infra.models import packs
from infra.settings import Settings, StorageSettings
from infra.settings import load as load_settings
from infra.store.addresses import allowed, is_inside, normalise, table_address
from ironmask.centring import Centring
from ironmask.errors import ModelNotFoundError, ParameterError
from ironmask.params import SQUARE_PRESET
from pipelines.plan import sources
from pipelines.ports import Store
from pipelines.preflight import calibrate, choice
from pipelines.preflight.agreement import DEFAULT_FMR, Bar, Known, settle
from pipelines.preflight.calibrate import Judged
from pipelines.preflight.choice import Offer
from pipelines.run import admit
from pipelines.setup import places, ports
from pipelines.setup.hold import Site
from pipelines.setup.models import at_hand, known_impostors
from pipelines.spec.addresses import without_secret
from pipelines.spec.faces import FaceSettings
from pipelines.spec.options import Goal, Inputs, Kept, KeyFiles, Risk, TemplateSettings
from pipelines.spec.parameters import chosen_params
from pipelines.spec.template_job import DECLARED, SourceKind, TemplateJob
from pipelines.spec.workplace import Workplace


# Flat, since its parts are what several requests share.
@dataclass(frozen=True)
class EnrolRequest:
    """An enrolment as a user asks for it: plain values, none of them secret.

    kek: address of the key-encryption key of a new table. restart: an unfinished run is closed as
    it stands, and what it left is planned afresh.
    """

    source: str
    dest: str
    model: str | None = None
    kek: str | None = None
    inputs: Inputs = field(default_factory=Inputs)
    settings: TemplateSettings = field(default_factory=TemplateSettings)
    goal: Goal = field(default_factory=Goal)
    kept: Kept = field(default_factory=Kept)
    faces: FaceSettings = field(default_factory=FaceSettings)
    key_files: KeyFiles = field(default_factory=KeyFiles)
    risk: Risk = field(default_factory=Risk)
    workplace: Workplace = field(default_factory=Workplace)
    restart: bool = False


@dataclass(frozen=True)
class CheckedEnrolment:
    """A job whose source, model and parameters have been checked; nothing is written yet.

    judged: what one stolen row would be worth, where that is known. bar: how alike the faces of one
    subject must be, unless nobody asks. offer: what the parameters were chosen from, where they
    were.
    """

    job: TemplateJob
    pack: packs.ModelPack | None
    settings: Settings
    storage: StorageSettings
    store: Store
    judged: Judged
    bar: Bar | None = None
    offer: Offer | None = None


def prepare(request: EnrolRequest) -> CheckedEnrolment:
    """Check everything that can be checked without writing."""
    settings, storage = load_settings()
    store = ports.open_store(storage)
    source, dest = normalise(request.source), table_address(request.dest)
    _check_places(source, dest, request, settings)
    kind = _kind(request.inputs.kind, source, store)
    pack = _pack(request, settings, kind)
    if kind is SourceKind.EMBEDDINGS:
        n = _stored_width(source, store, pack)
    else:
        n = packs.embedding_width(_required(pack))
    model = pack.fingerprint if pack else _declared(request, settings)
    site = Site(ports.open_tables(dest, storage), store, storage, settings)
    job = _job(request, source, kind, model, n, _present(request, site))
    given = request.risk.calibration
    calibration = normalise(given) if given else None
    job, offer = choice.settle(job, request.goal, request.settings, calibration, store)
    job, judged = calibrate.judge(job, calibration, at_hand(pack), store)
    fmr = request.settings.agreement
    known = Known(calibration, known_impostors(job.model, pack), judged)
    job, bar = settle(job, DEFAULT_FMR if fmr is None else fmr, known, store)
    return CheckedEnrolment(job, pack, settings, storage, store, judged, bar, offer)


def _present(request: EnrolRequest, site: Site) -> TemplateJob | None:
    """The job whose settings hold for what nobody chose, in a table that is there already."""
    tables = site.sealed(request.key_files.keys)
    return admit.binding(tables, restart=request.restart) if tables else None


def _job(
    request: EnrolRequest,
    source: str,
    kind: SourceKind,
    model: str,
    n: int,
    present: TemplateJob | None,
) -> TemplateJob:
    """The job that a request describes. source: normalised. n: width of embeddings."""
    settings, kept = request.settings, request.kept
    if kept.plaintext_helpers and request.goal.fmr is not None:
        # Until the rate has chosen: a wide code, as the default has it, is refused in the clear.
        settings = replace(settings, preset=settings.preset or SQUARE_PRESET)
    as_there = ("encoding", "centring", "filling")
    made = {name: getattr(present, name) for name in as_there} if present else {}
    made |= settings.given("encoding", "filling", "shard_size")
    if settings.centring:
        made["centring"] = Centring.named(settings.centring)
    return TemplateJob(
        source=source,
        dest=table_address(request.dest),
        kind=kind,
        model=model,
        params=chosen_params(settings, n, present.params if present else None),
        sealed=not kept.plaintext_helpers,
        faces=request.faces,
        retry=tuple(sorted(set(request.inputs.retry))),
        accepted_risk=request.risk.accepted_risk,
        vault=kept.vault,
        pseudonymous=kept.pseudonymous,
        allow_roots=allowed(request.inputs.allow_roots),
        **made,
    )


def _check_places(source: str, dest: str, request: EnrolRequest, settings: Settings) -> None:
    without_secret(settings.ray_address or "", "IRONMASK_RAY_ADDRESS")
    without_secret(request.model or settings.model or "", "--model")
    without_secret(request.kek or "", "--kek")
    if is_inside(source, dest) or is_inside(dest, source):
        raise ParameterError(
            f"SRC {source} and DEST {dest} lie in one another: the table's own files would be "
            "taken for inputs; keep them apart"
        )
    given = request.key_files.keys or settings.keys
    if given:
        places.check_outside(places.expanded(given), dest)


def _stored_width(source: str, store: Store, pack: packs.ModelPack | None) -> int:
    n = sources.embedding_width(source, store)
    if pack and packs.embedding_width(pack) != n:
        raise ParameterError(
            f"{source} holds embeddings of width {n}, {pack.name} makes "
            f"{packs.embedding_width(pack)}: name the model that made them, or leave --model out"
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


def _pack(request: EnrolRequest, settings: Settings, kind: SourceKind) -> packs.ModelPack | None:
    """The pack of a model; stored embeddings may name one that is not on this machine."""
    name = request.model or settings.model
    if kind is not SourceKind.EMBEDDINGS:
        if name is None:
            raise ParameterError(
                "no model: name a pack or a folder with --model, or set IRONMASK_MODEL"
            )
        return packs.find_pack(name)
    try:
        return packs.find_pack(name) if name else None
    except ModelNotFoundError:
        return None


def _declared(request: EnrolRequest, settings: Settings) -> str:
    return DECLARED + (request.model or settings.model or "unknown")


def _required(pack: packs.ModelPack | None) -> packs.ModelPack:
    if pack is None:
        raise ParameterError("images need a model: name one with --model")
    return pack
