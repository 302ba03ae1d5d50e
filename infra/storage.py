"""Objects on local disks and in S3-compatible stores, through fsspec."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import fsspec

from infra.settings import StorageSettings
from ironmask.errors import StorageError
from pipelines.layout import join as join
from pipelines.ports import Entry
from pipelines.records import Reason

_THREADS: Final = 16
_S3: Final = "s3://"
_MD5_CHARS: Final = 32


def is_s3(uri: str) -> bool:
    """Tell whether an address is of an object store."""
    return uri.startswith(_S3)


def normalise(uri: str) -> str:
    """A full address without a trailing slash: `~` and relative local paths are resolved."""
    if is_s3(uri):
        return uri.rstrip("/")
    if "://" in uri and not uri.startswith("file://"):
        raise StorageError(f"{uri}: only local paths and s3:// addresses are known")
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


class TooLargeError(OSError):
    """An object longer than the caller accepts."""

    reason = Reason.TOO_LARGE


class FsspecStore:
    """See `pipelines.ports.Store`."""

    def __init__(self, settings: StorageSettings | None = None) -> None:
        self._settings = settings or StorageSettings()
        self._local = _LocalFiles()

    @cached_property
    def _remote(self) -> _S3Objects:
        return _S3Objects(self._settings)

    def _for(self, uri: str) -> _LocalFiles | _S3Objects:
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

    def open(self, uri: str) -> BinaryIO:
        with _explained(uri):
            return self._for(uri).open(uri)

    def read(self, uri: str, limit: int | None = None) -> bytes:
        with _explained(uri):
            return _read(self._for(uri), uri, limit)

    def read_many(self, uris: Sequence[str], limit: int | None = None) -> Iterator[bytes | OSError]:
        def one(uri: str) -> bytes | OSError:
            try:
                return _read(self._for(uri), uri, limit)
            except OSError as error:
                return error

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
        for uri in uris:
            with _explained(uri):
                self._for(uri).delete(uri)


class _explained:  # noqa: N801 - reads as a statement
    """Turns a store's errors into `StorageError` with the address and what to do."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise StorageError(f"{self._uri} does not exist") from None
        if isinstance(error, PermissionError):
            raise StorageError(
                f"{self._uri}: access denied; check the credentials and what they allow"
            ) from None
        if isinstance(error, OSError):
            raise StorageError(f"{self._uri}: {error.strerror or error}") from None
        if error is not None and type(error).__name__ == "NoCredentialsError":
            raise StorageError(f"{self._uri}: no credentials found for the object store") from None


def _read(files: _LocalFiles | _S3Objects, uri: str, limit: int | None) -> bytes:
    with files.open(uri) as handle:
        data = handle.read() if limit is None else handle.read(limit + 1)
    if limit is not None and len(data) > limit:
        raise TooLargeError(f"more than the {limit:,} bytes that are allowed")
    return data


class _LocalFiles:
    """Plain files. A write goes to a temporary name first and appears whole."""

    def exists(self, uri: str) -> bool:
        return os.path.exists(uri)

    def is_dir(self, uri: str) -> bool:
        return os.path.isdir(uri)

    def size(self, uri: str) -> int:
        return os.path.getsize(uri)

    def open(self, uri: str) -> BinaryIO:
        return Path(uri).open("rb")

    def children(self, uri: str) -> Iterator[str]:
        for item in self._scan(uri):
            if item.is_dir():
                yield item.path

    def entries(self, uri: str, recursive: bool) -> Iterator[Entry]:
        for item in self._scan(uri):
            if not item.is_dir():
                yield Entry(item.path, item.stat(follow_symlinks=False).st_size)
            elif recursive:
                yield from self.entries(item.path, recursive)

    @staticmethod
    def _scan(uri: str) -> list[os.DirEntry[str]]:
        if not os.path.isdir(uri):
            return []
        with os.scandir(uri) as items:
            return sorted(items, key=lambda item: item.name)

    def write(self, uri: str, data: bytes | memoryview) -> None:
        temporary = self._temporary(uri, data)
        os.replace(temporary, uri)
        _sync_folder(uri)

    def create(self, uri: str, data: bytes) -> bool:
        temporary = self._temporary(uri, data)
        try:
            os.link(temporary, uri)
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        _sync_folder(uri)
        return True

    @staticmethod
    def _temporary(uri: str, data: bytes | memoryview) -> str:
        os.makedirs(os.path.dirname(uri), exist_ok=True)
        temporary = os.path.join(os.path.dirname(uri), f".part-{secrets.token_hex(8)}")
        try:
            with open(temporary, "xb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
        return temporary

    def delete(self, uri: str) -> None:
        Path(uri).unlink(missing_ok=True)


def _sync_folder(uri: str) -> None:
    folder = os.open(os.path.dirname(uri), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class _S3Objects:
    """Objects of an S3-compatible store. Every PUT is whole or absent."""

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        self._made: dict[tuple[int, int], Any] = {}

    @property
    def _fs(self) -> Any:
        """One client a process: it does not survive a fork."""
        here = (os.getpid(), threading.main_thread().ident or 0)
        if here not in self._made:
            options = self._settings.fsspec_options()
            self._made[here] = fsspec.filesystem("s3", skip_instance_cache=True, **options)
        return self._made[here]

    def exists(self, uri: str) -> bool:
        return bool(self._fs.exists(uri))

    def is_dir(self, uri: str) -> bool:
        return bool(self._fs.isdir(uri))

    def size(self, uri: str) -> int:
        return int(self._fs.size(uri))

    def open(self, uri: str) -> BinaryIO:
        return cast(BinaryIO, self._fs.open(uri, "rb", block_size=8 << 20, cache_type="readahead"))

    def children(self, uri: str) -> Iterator[str]:
        for page in self._pages(uri, delimiter="/"):
            for common in page.get("CommonPrefixes", []):
                yield _S3 + f"{_split(uri)[0]}/{common['Prefix'].rstrip('/')}"

    def entries(self, uri: str, recursive: bool) -> Iterator[Entry]:
        bucket, _ = _split(uri)
        for page in self._pages(uri, delimiter="" if recursive else "/"):
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):
                    tag = item.get("ETag", "").strip('"')
                    plain = len(tag) == _MD5_CHARS and "-" not in tag
                    yield Entry(
                        f"{_S3}{bucket}/{item['Key']}", item["Size"], tag if plain else None
                    )

    def _pages(self, uri: str, delimiter: str) -> Iterator[dict[str, Any]]:
        """Pages of a listing, one request each, so that no listing is held whole."""
        bucket, prefix = _split(uri)
        token: dict[str, str] = {}
        while True:
            page = self._fs.call_s3(
                "list_objects_v2",
                Bucket=bucket,
                Prefix=f"{prefix}/" if prefix else "",
                Delimiter=delimiter,
                **token,
            )
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def write(self, uri: str, data: bytes | memoryview) -> None:
        self._fs.pipe_file(uri, bytes(data))

    def create(self, uri: str, data: bytes) -> bool:
        try:
            self._fs.pipe_file(uri, data, mode="create")
        except FileExistsError:
            return False
        except OSError:
            if self._fs.exists(uri):
                return False
            raise
        return True

    def delete(self, uri: str) -> None:
        bucket, key = _split(uri)
        self._fs.call_s3("delete_object", Bucket=bucket, Key=key)


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix(_S3).partition("/")
    return bucket, key.rstrip("/")
