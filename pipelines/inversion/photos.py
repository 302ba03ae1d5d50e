"""A set of faces, `<person>/<photo>` in a folder or in a zip file: listed once, read one by one."""

from __future__ import annotations

import posixpath
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from zipfile import BadZipFile, ZipFile, ZipInfo

from ironmask.errors import ImageError, ProtocolError, SourceError
from pipelines.plan.reach import reach_of
from pipelines.plan.subject_folders import subject_folders
from pipelines.ports import Store
from pipelines.spec.outcomes import Reason
from pipelines.spec.template_job import SourceKind

_ZIP: Final = ".zip"
# Archives made on a Mac hold a second file for each.
_NOT_FACES: Final = "__MACOSX"


@dataclass(frozen=True, slots=True)
class Photo:
    """name: its place in the set, `person/photo`. mark: its size, and its checksum in a zip."""

    person: str
    name: str
    mark: str

    @property
    def names(self) -> tuple[str, str, str]:
        """What a list may call it: its place, its file's name, and this without the ending."""
        file = posixpath.basename(self.name)
        return self.name, file, posixpath.splitext(file)[0]


@dataclass(frozen=True)
class Listing:
    """The photos of a set by person and name. digest: differs where any of them does."""

    photos: tuple[Photo, ...]
    digest: str

    @classmethod
    def of(cls, photos: Iterable[Photo]) -> Listing:
        """From photos in any order."""
        found = tuple(sorted(photos, key=lambda one: (one.person, one.name)))
        text = "".join(f"{one.name}\0{one.mark}\n" for one in found)
        return cls(found, sha256(text.encode(errors="surrogateescape")).hexdigest())

    def without(self, excluded: Sequence[str]) -> dict[str, list[Photo]]:
        """The photos of each person, without those that a list names, or whose person it names.

        Raises `ProtocolError` for a name that is not there.
        """
        names = frozenset(excluded)
        kept: dict[str, list[Photo]] = {}
        known: set[str] = set()
        for photo in self.photos:
            called = names & {photo.person, *photo.names}
            known |= called
            if not called:
                kept.setdefault(photo.person, []).append(photo)
        if unknown := names - known:
            raise ProtocolError(
                f"{len(unknown):,} excluded names are no photo and no person of the faces, "
                f"{min(unknown)!r} for one: correct the list"
            )
        return kept


def listed(faces: str, store: Store) -> Listing:
    """The photos of a set. Raises `SourceError` where an address holds none."""
    found = Listing.of(_of_zip(faces, store) if _is_zip(faces) else _of_folder(faces, store))
    if not found.photos:
        raise SourceError(f"{faces} holds no photo: they lie in it as person/photo")
    return found


class PhotoReader:
    """Reads photos of a set. A zip file stays open, and is never unpacked as a whole.

    limit: in bytes; a larger file is not read.
    """

    def __init__(self, faces: str, store: Store, limit: int) -> None:
        self._faces, self._store, self._limit = faces, store, limit
        self._zip = _opened(faces, store) if _is_zip(faces) else None

    def read(self, photos: Sequence[Photo]) -> Iterator[bytes | ImageError]:
        """The content of each photo, or why it cannot be read."""
        if self._zip is not None:
            yield from (self._member(self._zip, photo.name) for photo in photos)
            return
        addresses = [f"{self._faces}/{photo.name}" for photo in photos]
        for found in self._store.read_many(addresses, self._limit, self._faces):
            if isinstance(found, OSError):
                reason = getattr(found, "reason", Reason.UNREADABLE)
                yield ImageError(reason, type(found).__name__)
            else:
                yield found

    def _member(self, archive: ZipFile, name: str) -> bytes | ImageError:
        try:
            # A header may lie about its member's size.
            with archive.open(name) as member:
                data = member.read(self._limit + 1)
        except (BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError, zlib.error):
            return ImageError(Reason.UNREADABLE, "damaged in the zip file, or encrypted")
        if len(data) > self._limit:
            return ImageError(Reason.TOO_LARGE, f"more than {self._limit:,} bytes")
        return data


def _is_zip(faces: str) -> bool:
    return faces.lower().endswith(_ZIP)


def _opened(faces: str, store: Store) -> ZipFile:
    if not store.exists(faces):
        raise SourceError(f"{faces} does not exist: give a folder, or a zip file, of person/photo")
    try:
        return ZipFile(store.open(faces))
    except BadZipFile:
        raise SourceError(f"{faces} is no zip file, or its end is missing") from None


def _of_zip(faces: str, store: Store) -> Iterator[Photo]:
    with _opened(faces, store) as archive:
        yield from _members({one.filename: one for one in archive.infolist()}.values())


def _members(found: Iterable[ZipInfo]) -> Iterator[Photo]:
    for one in found:
        person, *below = one.filename.split("/")
        hidden = any(part.startswith(".") for part in (person, *below))
        if below and below[-1] and person and person != _NOT_FACES and not hidden:
            yield Photo(person, one.filename, f"{one.file_size}\0{one.CRC}")


def _of_folder(faces: str, store: Store) -> Iterator[Photo]:
    if not store.is_dir(faces):
        raise SourceError(f"{faces} is neither a folder nor a zip file of person/photo")
    base = f"{faces.rstrip('/')}/"
    for folder, entries in subject_folders(
        faces, store, reach_of(faces, SourceKind.FOLDER, (), store)
    ):
        person = posixpath.basename(folder.rstrip("/"))
        for entry, fault in entries:
            name = entry.uri.removeprefix(base)
            if fault is None and "/." not in f"/{name}":
                yield Photo(person, name, f"{entry.size}\0{entry.etag or ''}")
