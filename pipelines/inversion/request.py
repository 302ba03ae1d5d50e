"""What a user asks of template inversion: an inverter that is fitted, inverters that are tested."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeVar
from uuid import uuid4

from infra.models import packs
from infra.models.packs import ModelPack
from infra.settings import Settings, StorageSettings
from infra.settings import load as load_settings
from infra.store.addresses import is_inside, normalise
from ironmask.errors import MismatchError, ParameterError, SourceError
from pipelines.inversion import people, photos
from pipelines.inversion.frozen import (
    INVERTER_FILE,
    Fit,
    Fitted,
    Inversion,
    Kind,
    Rows,
    differing,
)
from pipelines.inversion.inverters import refuse_without_torch
from pipelines.inversion.work import Spec
from pipelines.plan import lists
from pipelines.ports import Store
from pipelines.setup import places, ports
from pipelines.setup.keys import refuse_other_keys
from pipelines.spec.workplace import Workplace
from pipelines.table import generations, layout, read

T = TypeVar("T", Fit, Inversion)

# Drawn when a job begins; a resume takes what it finds.
_DRAWN = ("name", "people")


@dataclass(frozen=True)
class InvertFitRequest:
    """A fit as a user asks for it.

    faces: a folder or a zip file of `person/photo`. model: pack of the recogniser whose templates
    are inverted. exclude: a file with a name a line. For the others see `Fit`.
    """

    faces: str
    out: str
    inverter: str = Kind.LINEAR.value
    model: str | None = None
    most: int = 10_000
    images: int = 300_000
    cpu_seconds: float = 600.0
    seed: int = 0
    exclude: str | None = None
    device: str = "cpu"
    workplace: Workplace = field(default_factory=Workplace)


@dataclass(frozen=True)
class Recognisers:
    """model: pack of the one that templates are of; None: that of the fits, by its name.
    other_model: pack of a second one, which reconstructions are shown to as well.
    """

    model: str | None = None
    other_model: str | None = None


@dataclass(frozen=True)
class InvertEvaluateRequest:
    """An evaluation of inverters as a user asks for it.

    inverters: folders of fits. table: whose rows are inverted; its subjects are called as the
    people of the faces. keys: its keyset file. people: to test, at most. each: photos of a centred
    template, at most. contact_sheet: write a picture of some faces and their reconstructions.
    """

    faces: str
    out: str
    inverters: tuple[str, ...]
    recognisers: Recognisers = field(default_factory=Recognisers)
    table: str | None = None
    keys: str | None = None
    people: int = 200
    each: int = 5
    seed: int = 0
    exclude: str | None = None
    contact_sheet: bool = False
    workplace: Workplace = field(default_factory=Workplace)


@dataclass(frozen=True)
class Checked:
    """A fit or an evaluation that has been checked; nothing is written yet."""

    spec: Spec
    settings: Settings
    storage: StorageSettings

    @property
    def store(self) -> Store:
        """The store of all its addresses."""
        return ports.shared_store(self.spec.storage)


def prepare_fit(request: InvertFitRequest) -> Checked:
    """Check the request, and find the fit that it continues, if there is one.

    Raises `ParameterError`, `SourceError`, `ModelError` and `ProtocolError` for what cannot be
    fitted, `ProviderError` where PyTorch is needed and absent, `MismatchError` where the output
    folder holds another fit.
    """
    settings, storage = load_settings()
    storage.export()
    if request.inverter not in list(Kind):
        raise ParameterError(f"unknown inverter {request.inverter!r}; it is {', '.join(Kind)}")
    if min(request.most, request.images, request.cpu_seconds) < 1:
        raise ParameterError("photos, images and CPU-seconds are 1 or more")
    refuse_without_torch(Kind(request.inverter))
    store = ports.shared_store(storage.public())
    faces, out = _places(request.faces, request.out)
    pack = _pack(request.model or settings.model, "--model")
    listing = photos.listed(faces, store)
    fit = Fit(
        faces=faces, listing=listing.digest, excluded=_excluded(request.exclude, store),
        name=str(uuid4()), model=pack.name, fingerprint=pack.fingerprint,
        inverter=request.inverter, most=request.most, images=request.images,
        cpu_seconds=request.cpu_seconds, seed=request.seed, device=request.device, people=(),
    )  # fmt: skip
    chosen = dict.fromkeys(photo.person for photo in fit.photos(listing))
    fit = replace(fit, people=tuple(people.digest(person, fit.name) for person in chosen))
    if store.exists(layout.join(out, Fit.FILE)):
        fit = _continued(fit, Fit.read(out, store), out)
    return Checked(Spec(storage.public(), out, fit, (pack,)), settings, storage)


def prepare_evaluation(request: InvertEvaluateRequest) -> Checked:
    """Check the request, and find the evaluation that it continues, if there is one.

    Raises as `prepare_fit` does, and `MismatchError` for an inverter of another model, `TableError`
    and `KeyStoreError` where the table's rows cannot be read, `SourceError` where too few people
    are left whom no inverter has learnt from.
    """
    settings, storage = load_settings()
    storage.export()
    if request.people < people.LEAST_TESTED or request.each < 1:
        raise ParameterError(f"test {people.LEAST_TESTED} people or more, with a photo or more")
    store = ports.shared_store(storage.public())
    faces, out = _places(request.faces, request.out)
    inverters = _fitted(request.inverters, store)
    first = inverters[0].fit
    named = request.recognisers
    pack = _pack(named.model or first.model, "--model")
    other = _pack(named.other_model, "--other-model") if named.other_model else None
    for one in inverters:
        _refuse_other_model(one, pack)
    listing = photos.listed(faces, store)
    wanted = Inversion(
        faces=faces, listing=listing.digest, excluded=_excluded(request.exclude, store),
        name=str(uuid4()), out=out, inverters=inverters, model=pack.name,
        fingerprint=pack.fingerprint, other_model=other.name if other else "",
        other_fingerprint=other.fingerprint if other else "", people=request.people,
        each=request.each, seed=request.seed, rows=_rows(request, settings, storage),
    )  # fmt: skip
    wanted.drawn(listing)
    if store.exists(layout.join(out, Inversion.FILE)):
        wanted = _continued(wanted, Inversion.read(out, store), out)
    found = (pack, other) if other else (pack,)
    return Checked(Spec(storage.public(), out, wanted, found), settings, storage)


def _places(faces: str, out: str) -> tuple[str, str]:
    source, dest = normalise(faces), normalise(out)
    if is_inside(source, dest) or is_inside(dest, source):
        raise ParameterError(f"FACES {source} and OUT {dest} lie in one another: keep them apart")
    return source, dest


def _pack(name: str | None, option: str) -> ModelPack:
    if not name:
        raise ParameterError(f"name the recogniser's pack with {option}, or set IRONMASK_MODEL")
    return packs.find_pack(name)


def _excluded(address: str | None, store: Store) -> tuple[str, ...]:
    if not address:
        return ()
    place = normalise(address)
    return tuple(lists.names(lists.decoded(place, store.read(place))))


def _fitted(folders: tuple[str, ...], store: Store) -> tuple[Fitted, ...]:
    """The inverters in some folders, each with a name of its own for reports."""
    if not folders:
        raise ParameterError("no inverter to evaluate: name a fit's folder with --inverter")
    found: list[Fitted] = []
    for folder in dict.fromkeys(map(normalise, folders)):
        state = layout.join(folder, INVERTER_FILE)
        if not store.exists(state):
            raise SourceError(
                f"{folder} holds no fitted inverter: `ironmask invert fit` makes one there, and "
                "the same command ends one that was broken off"
            )
        fit = Fit.read(folder, store)
        refuse_without_torch(Kind(fit.inverter))
        label = fit.inverter
        if label in {one.label for one in found}:
            label = f"{label}, {folder.rpartition('/')[2]}"
        found.append(Fitted(folder, store.version(state), label, fit))
    return tuple(found)


def _refuse_other_model(one: Fitted, pack: ModelPack) -> None:
    if one.fit.fingerprint != pack.fingerprint:
        raise MismatchError(
            f"the inverter in {one.folder} is of {one.fit.model} "
            f"({packs.short(one.fit.fingerprint)}), and the model is {pack.label}: inverters know "
            "the templates of one model alone; fit one of this model"
        )


def _rows(
    request: InvertEvaluateRequest, settings: Settings, storage: StorageSettings
) -> Rows | None:
    """The live rows of the table that was named, once its keys are at hand."""
    if not request.table:
        if request.keys:
            raise ParameterError("--keys are those of --table: name it as well")
        return None
    stored = places.existing(request.table, storage)
    path = places.keys_path(request.keys, settings, stored)
    tables = ports.shared_tables(stored.dest, storage.public(), path, stored.table_id)
    live = generations.live(tables)
    keys = ports.keys(path, tables.table_id, live)
    for traits, _ in read.templates_by(tables, ["generation", "key_id"]):
        if traits["generation"] == live:
            refuse_other_keys(tables.dest, traits["key_id"], keys)
    return Rows(tables.dest, tables.table_id, live, str(path), keys.sealed)


def _continued(asked: T, found: T, out: str) -> T:
    """What is there already, where it is what was asked for."""
    if names := differing(asked, found, _DRAWN):
        raise MismatchError(
            f"{out} holds another job: {', '.join(names)} differ; name another OUT, or remove it"
        )
    return found
