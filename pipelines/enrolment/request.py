"""From what a user asks for to a job that can run: sources, model, tables and keys, checked."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from infra.models import packs
from infra.settings import Settings, StorageSettings
from infra.settings import load as load_settings
from infra.store.addresses import allowed, is_inside, normalise, table_address
from ironmask.centring import Centring
from ironmask.errors import ModelNotFoundError, ParameterError
from ironmask.helper import DEFAULT_ENCODING
from ironmask.params import DEFAULT_PRESET, Params, preset
from pipelines.plan import sources
from pipelines.ports import Store
from pipelines.preflight import calibrate
from pipelines.preflight.agreement import DEFAULT_FMR, Bar, Known, settle
from pipelines.preflight.calibrate import Judged
from pipelines.setup import places, ports
from pipelines.setup.models import at_hand, known_impostors
from pipelines.spec.addresses import without_secret
from pipelines.spec.faces import FaceSettings
from pipelines.spec.template_job import DECLARED, DEFAULT_SHARD_SIZE, SourceKind, TemplateJob
from pipelines.spec.workplace import Workplace, check_executor


@dataclass(frozen=True)
class EnrolRequest:
    """An enrolment as a user asks for it: plain values, none of them secret.

    allow_roots: folders and prefixes that inputs may lie in, beside that of the source. agreement:
    the false match rate that sets how alike the faces of one subject must be; 0 for no such test.
    """

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
    pseudonymous: bool = False
    faces: FaceSettings = field(default_factory=FaceSettings)
    keys: str | None = None
    kek: str | None = None
    executor: str = "ray"
    restart: bool = False
    retry: tuple[str, ...] = ()
    workers: int | None = None
    embedders: int | None = None
    ray_address: str | None = None
    allow_roots: tuple[str, ...] = ()
    agreement: float = DEFAULT_FMR

    @property
    def workplace(self) -> Workplace:
        """Where the work is done."""
        return Workplace(self.executor, self.workers, self.embedders, self.ray_address)


@dataclass(frozen=True)
class CheckedEnrolment:
    """A job whose source, model and parameters have been checked; nothing is written yet.

    judged: what one stolen row would be worth, where that is known. bar: how alike the faces of one
    subject must be, unless nobody asks.
    """

    job: TemplateJob
    pack: packs.ModelPack | None
    settings: Settings
    storage: StorageSettings
    store: Store
    judged: Judged
    bar: Bar | None = None


def prepare(request: EnrolRequest) -> CheckedEnrolment:
    """Check everything that can be checked without writing."""
    settings, storage = load_settings()
    store = ports.open_store(storage)
    source, dest = normalise(request.source), table_address(request.dest)
    _check_places(source, dest, request, settings)
    kind = _kind(request.kind, source, store)
    pack = _pack(request, settings, kind)
    if kind is SourceKind.EMBEDDINGS:
        n = _stored_width(source, store, pack)
    else:
        n = packs.embedding_width(_required(pack))
    job = TemplateJob(
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
        pseudonymous=request.pseudonymous,
        allow_roots=allowed(request.allow_roots),
    )
    calibration = normalise(request.calibration) if request.calibration else None
    job, judged = calibrate.judge(job, calibration, at_hand(pack), store)
    known = Known(calibration, known_impostors(job.model, pack), judged)
    job, bar = settle(job, request.agreement, known, store)
    return CheckedEnrolment(job, pack, settings, storage, store, judged, bar)


def _check_places(source: str, dest: str, request: EnrolRequest, settings: Settings) -> None:
    check_executor(request.executor)
    without_secret(request.ray_address or settings.ray_address or "", "--ray-address")
    without_secret(request.model or settings.model or "", "--model")
    without_secret(request.kek or "", "--kek")
    if is_inside(source, dest) or is_inside(dest, source):
        raise ParameterError(
            f"SRC {source} and DEST {dest} lie in one another: the table's own files would be "
            "taken for inputs; keep them apart"
        )
    given = request.keys or settings.keys
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


def _params(request: EnrolRequest, n: int) -> Params:
    given = {"alpha": request.alpha, "tolerance": request.tolerance}
    changes = {name: value for name, value in given.items() if value is not None}
    return replace(preset(request.preset, n), **changes)
