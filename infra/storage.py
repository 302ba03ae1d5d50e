"""Objects on local disks and in S3-compatible stores, through fsspec."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, Final

from infra.local_files import LocalFiles
from infra.settings import StorageSettings
from ironmask.errors import StorageError
from pipelines.layout import join as join
from pipelines.ports import Entry
from pipelines.records import Reason

if TYPE_CHECKING:
    from infra.s3_objects import S3Objects

_THREADS: Final = 16
_S3: Final = "s3://"
_NO_TABLE: Final = re.compile(r"%[0-9A-Fa-f]{2}|[][^|\\]")
# What a local path can have wrong by itself; an input or output error is the disk's.
_OWN_FAULTS: Final = frozenset(
    {
        errno.EACCES,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.ENXIO,
        errno.EPERM,
    }
)


def is_s3(uri: str) -> bool:
    """Tell whether an address is of an object store."""
    return uri.startswith(_S3)


def is_text(name: str) -> bool:
    """Tell whether a name can be written as UTF-8: what a shell passes on may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def normalise(uri: str) -> str:
    """A full address without a trailing slash: `~` and relative local paths are resolved."""
    if is_s3(uri):
        if not uri.removeprefix(_S3).split("/")[0]:
            raise StorageError(f"{uri!r} names no bucket: write s3://bucket/prefix")
        return uri.rstrip("/")
    if not is_text(uri):
        raise StorageError(f"{uri!r} is no address: it is not UTF-8; rename it")
    if "://" in uri and not uri.startswith("file://"):
        raise StorageError(f"{uri}: only local paths and s3:// addresses are known")
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


def table_address(uri: str) -> str:
    """`normalise` for the address of a table. Raises `StorageError` for one that no table can have.

    Readers of Delta tables take addresses for URLs and patterns.
    """
    full = normalise(uri)
    bad = {c for c in full if not c.isprintable()} | set(_NO_TABLE.findall(full))
    if bad and not is_s3(full):
        shown = " ".join(repr(text) for text in sorted(bad))
        raise StorageError(f"{full!r} cannot be a table's address for its {shown}: choose another")
    where = full
    while not is_s3(full) and not os.path.lexists(where):
        where = os.path.dirname(where)
    if not is_s3(full) and not os.path.isdir(where):
        raise StorageError(f"{full} holds no table: {where} is a file; enrol into a folder")
    return full


def is_inside(inner: str, outer: str) -> bool:
    """Tell whether an address is another one or lies below it; links are followed."""
    if is_s3(inner) != is_s3(outer):
        return False
    if not is_s3(inner):
        inner, outer = os.path.realpath(inner), os.path.realpath(outer)
    return f"{inner.rstrip('/')}/".startswith(f"{outer.rstrip('/')}/")


class MissingObjectError(StorageError, FileNotFoundError):
    """An object or a bucket that does not exist."""

    def __str__(self) -> str:
        return str(self.args[0])


class TooLargeError(OSError):
    """An object longer than the caller accepts."""

    reason = Reason.TOO_LARGE


class FsspecStore:
    """See `pipelines.ports.Store`. Errors are `StorageError`, with the address and what to do."""

    def __init__(self, settings: StorageSettings | None = None) -> None:
        self._settings = settings or StorageSettings()
        self._local = LocalFiles()

    @cached_property
    def _remote(self) -> S3Objects:
        # Its client takes a second to import, which local paths need not pay.
        from infra.s3_objects import S3Objects

        return S3Objects(self._settings)

    def _for(self, uri: str) -> LocalFiles | S3Objects:
        return self._remote if is_s3(uri) else self._local

    def exists(self, uri: str) -> bool:
        with _explained(uri):
            return self._for(uri).exists(uri)

    def is_dir(self, uri: str) -> bool:
        with _explained(uri):
            return self._for(uri).is_dir(uri)

    def size(self, uri: str) -> int:
        with _explained(uri):
            return self._for(uri).size(uri)

    def children(self, uri: str) -> Iterator[str]:
        with _explained(uri):
            yield from self._for(uri).children(uri)

    def entries(self, uri: str, *, recursive: bool = True) -> Iterator[Entry]:
        with _explained(uri):
            yield from self._for(uri).entries(uri, recursive)

    def version(self, uri: str) -> str:
        with _explained(uri):
            return self._for(uri).version(uri)

    def open(self, uri: str) -> BinaryIO:
        with _explained(uri):
            return self._for(uri).open(uri)

    def read(self, uri: str, limit: int | None = None) -> bytes:
        with _explained(uri):
            return self._read(uri, limit)

    def _read(self, uri: str, limit: int | None) -> bytes:
        try:
            return self._for(uri).read(uri, limit)
        except OSError as error:
            if limit is not None and error.errno == errno.EFBIG:
                raise TooLargeError(f"more than the {limit:,} bytes that are allowed") from None
            raise

    def read_many(self, uris: Sequence[str], limit: int | None = None) -> Iterator[bytes | OSError]:
        def one(uri: str) -> bytes | OSError:
            try:
                return self._read(uri, limit)
            except OSError as error:
                if _is_of_the_object(uri, error):
                    return error
                with _explained(uri):
                    raise

        if not uris:
            return
        with ThreadPoolExecutor(min(_THREADS, len(uris))) as pool:
            # A window of requests, so that a slow consumer holds few objects in memory.
            ahead = [pool.submit(one, uri) for uri in uris[:_THREADS]]
            for uri in [*uris[_THREADS:], *([None] * len(ahead))]:
                yield ahead.pop(0).result()
                if uri is not None:
                    ahead.append(pool.submit(one, uri))

    def write(self, uri: str, data: bytes | memoryview) -> None:
        with _explained(uri):
            self._for(uri).write(uri, data)

    def create(self, uri: str, data: bytes) -> bool:
        with _explained(uri):
            return self._for(uri).create(uri, data)

    def delete(self, uris: Sequence[str]) -> None:
        if not uris:
            return
        with ThreadPoolExecutor(min(_THREADS, len(uris))) as pool:
            list(pool.map(self._delete_one, uris))

    def remains(self, uri: str) -> Iterator[str]:
        with _explained(uri):
            yield from self._for(uri).remains(uri)

    def abort_uploads(self, uri: str) -> int:
        with _explained(uri):
            return self._for(uri).abort_uploads(uri)

    def _delete_one(self, uri: str) -> None:
        with _explained(uri):
            self._for(uri).delete(uri)


def _is_of_the_object(uri: str, error: OSError) -> bool:
    """Tell a fault of one object from one of its store, which says nothing about the object."""
    if isinstance(error, TooLargeError | FileNotFoundError):
        return True
    return not is_s3(uri) and error.errno in _OWN_FAULTS


class _explained:  # noqa: N801 - reads as a statement
    """Turns a store's errors into `StorageError` with the address and what to do."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError) or isinstance(error, StorageError):
            return
        if isinstance(error, FileNotFoundError):
            raise MissingObjectError(f"{self._uri} does not exist") from None
        if isinstance(error, PermissionError):
            raise StorageError(f"{self._uri}: {self._denied(error)}") from None
        raise StorageError(f"{self._uri}: {error.strerror or error}") from None

    def _denied(self, error: PermissionError) -> str:
        if is_s3(self._uri):
            return f"{error.strerror or 'access denied'}; check the credentials and what they allow"
        return "access denied; check what its permissions allow"
