"""A store in memory. `memory_tables` and `memory_keys` hold the other ports of a destination."""

from __future__ import annotations

import io
import posixpath
import threading
from collections.abc import Iterator, Sequence
from itertools import count
from typing import BinaryIO, Final, NamedTuple

from infra.store.errors import MissingObjectError, TooLargeError
from ironmask.errors import StorageError
from pipelines.ports import Entry

_PAGE: Final = 1000


class _Version(NamedTuple):
    """What an object was at one time; content is None where it was only hidden."""

    number: int
    content: bytes | None


class MemoryStore:
    """Objects by address; see `pipelines.ports.Store`.

    versioned: what a write replaces stays as an older version, until `delete`.
    """

    def __init__(self, *, versioned: bool = False) -> None:
        self._is_versioned = versioned
        self._objects: dict[str, list[_Version]] = {}
        self._numbers = count(1)
        self._lock = threading.RLock()

    def _seen(self, uri: str) -> list[tuple[str, bytes]]:
        """Addresses and contents of the objects below a folder, in the order of their bytes."""
        base = f"{uri.rstrip('/')}/"
        with self._lock:
            newest = [(name, versions[-1].content) for name, versions in self._objects.items()]
        found = [(name, data) for name, data in newest if data is not None]
        return sorted((n, d) for n, d in found if n.startswith(base))

    def _newest(self, uri: str) -> _Version:
        with self._lock:
            versions = self._objects.get(uri)
        if versions is None or versions[-1].content is None:
            raise MissingObjectError(f"{uri} does not exist")
        return versions[-1]

    def exists(self, uri: str) -> bool:
        with self._lock:
            versions = self._objects.get(uri)
        return bool(versions and versions[-1].content is not None) or self.is_dir(uri)

    def is_dir(self, uri: str) -> bool:
        return bool(self._seen(uri))

    def size(self, uri: str) -> int:
        return len(self.read(uri))

    def version(self, uri: str) -> str:
        return f"version {self._newest(uri).number}"

    def children(self, uri: str) -> Iterator[str]:
        base = f"{uri.rstrip('/')}/"
        below = (name.removeprefix(base) for name, _ in self._seen(uri))
        yield from dict.fromkeys(base + name.split("/")[0] for name in below if "/" in name)

    def entries(self, uri: str, *, recursive: bool = True) -> Iterator[Entry]:
        base = f"{uri.rstrip('/')}/"
        for name, data in self._seen(uri):
            if recursive or "/" not in name.removeprefix(base):
                yield Entry(name, len(data))

    def items(self, uri: str, *, recursive: bool = True) -> Iterator[Entry]:
        yield from self.entries(uri, recursive=recursive)

    def resolve(self, uri: str) -> str:
        return posixpath.normpath(uri)

    def read(self, uri: str, limit: int | None = None) -> bytes:
        content = self._newest(uri).content or b""
        if limit is not None and len(content) > limit:
            raise StorageError(f"{uri}: {_too_large(limit)}")
        return content

    def read_many(
        self, uris: Sequence[str], limit: int | None = None, home: str = ""
    ) -> Iterator[bytes | OSError]:
        for uri in uris:
            try:
                content = self.read(uri)
            except MissingObjectError as error:
                yield error
                continue
            is_long = limit is not None and len(content) > limit
            yield TooLargeError(_too_large(limit or 0)) if is_long else content

    def part(self, uri: str, start: int, end: int) -> bytes:
        return self.read(uri)[start:end]

    def after(self, uri: str, name: str) -> list[str]:
        here = (entry.uri.rpartition("/")[2] for entry in self.entries(uri, recursive=False))
        return sorted((one for one in here if one.encode() > name.encode()), key=str.encode)[:_PAGE]

    def open(self, uri: str) -> BinaryIO:
        return io.BytesIO(self.read(uri))

    def write(self, uri: str, data: bytes | memoryview) -> None:
        self._add(uri, bytes(data))

    def create(self, uri: str, data: bytes) -> bool:
        with self._lock:
            if uri in self._objects and self._objects[uri][-1].content is not None:
                return False
            self._add(uri, data)
        return True

    def _add(self, uri: str, content: bytes | None) -> None:
        with self._lock:
            before = self._objects.get(uri, []) if self._is_versioned else []
            self._objects[uri] = [*before, _Version(next(self._numbers), content)]

    def hide(self, uri: str) -> None:
        """Delete an object as people do where versions are kept: none of them is gone."""
        assert self._is_versioned
        self._add(uri, None)

    def delete(self, uris: Sequence[str]) -> None:
        with self._lock:
            for uri in uris:
                self._objects.pop(uri, None)

    def remains(self, uri: str) -> Iterator[str]:
        base = f"{uri.rstrip('/')}/"
        with self._lock:
            found = sorted(name for name in self._objects if name.startswith(base))
        yield from found

    def abort_uploads(self, uri: str) -> int:
        return 0


def _too_large(limit: int) -> str:
    return f"more than the {limit:,} bytes that are allowed"
