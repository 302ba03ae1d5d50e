"""Objects on local disks and in S3-compatible stores, through fsspec."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, Final

from infra.settings import StorageSettings
from infra.store.addresses import bucket_of, is_s3
from infra.store.errors import (
    MissingObjectError,
    NotRegularError,
    RefusedError,
    TooLargeError,
)
from infra.store.local_files import LocalFiles
from ironmask.errors import StorageError
from pipelines.ports import Entry

if TYPE_CHECKING:
    from infra.store.s3_objects import S3Objects

_THREADS: Final = 16
# Faults of a single local path; an input or output error is a fault of the disk.
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


class FsspecStore:
    """See `pipelines.ports.Store`. Errors are `StorageError`, with the address and what to do."""

    def __init__(self, settings: StorageSettings | None = None) -> None:
        self._settings = settings or StorageSettings()
        self._local = LocalFiles()

    @cached_property
    def _remote(self) -> S3Objects:
        # The S3 client takes a second to import; local paths do not need it.
        from infra.store.s3_objects import S3Objects

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

    def items(self, uri: str, *, recursive: bool = True) -> Iterator[Entry]:
        with _explained(uri):
            yield from self._for(uri).items(uri, recursive)

    def resolve(self, uri: str) -> str:
        with _explained(uri):
            return self._for(uri).resolve(uri)

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

    def read_many(
        self, uris: Sequence[str], limit: int | None = None, home: str = ""
    ) -> Iterator[bytes | OSError]:
        def one(uri: str) -> bytes | OSError:
            try:
                return self._read(uri, limit)
            except OSError as error:
                if _is_of_the_object(uri, error, home):
                    return error
                with _explained(uri):
                    raise

        if not uris:
            return
        with ThreadPoolExecutor(min(_THREADS, len(uris))) as pool:
            # Keep a window of requests: a slow consumer then holds few objects in memory.
            ahead = [pool.submit(one, uri) for uri in uris[:_THREADS]]
            for uri in [*uris[_THREADS:], *([None] * len(ahead))]:
                yield ahead.pop(0).result()
                if uri is not None:
                    ahead.append(pool.submit(one, uri))

    def part(self, uri: str, start: int, end: int) -> bytes:
        with _explained(uri):
            return self._for(uri).part(uri, start, end)

    def after(self, uri: str, name: str) -> list[str]:
        with _explained(uri):
            return self._for(uri).after(uri, name)

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


def _is_of_the_object(uri: str, error: OSError, home: str) -> bool:
    """Tell a fault of one object from a fault of its whole store."""
    if isinstance(error, TooLargeError | NotRegularError | FileNotFoundError):
        return True
    if isinstance(error, RefusedError):
        return bool(home) and bucket_of(uri) != bucket_of(home)
    return not is_s3(uri) and error.errno in _OWN_FAULTS


class _explained:  # noqa: N801 - reads as a statement
    """Turns a store's errors into `StorageError` with the address and advice."""

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
