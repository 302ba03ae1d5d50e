"""Objects of an S3-compatible store through s3fs. Every PUT is whole or absent."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, cast

import aiohttp
import fsspec
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    NoCredentialsError,
)
from fsspec.asyn import sync
from fsspec.exceptions import FSTimeoutError

from infra.settings import StorageSettings
from pipelines.ports import Entry

_S3: Final = "s3://"
_MD5_CHARS: Final = 32
_BLOCK_BYTES: Final = 8 << 20
_READS: Final = 3


class S3Objects:
    """The part of `infra.storage.FsspecStore` for `s3://`; raises `OSError`."""

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        self._made: dict[int, Any] = {}
        self._digest_tags: dict[str, bool] = {}

    @property
    def _fs(self) -> Any:
        """One client a process: its connections and its thread do not survive a fork."""
        here = os.getpid()
        if here not in self._made:
            options = self._settings.fsspec_options()
            made = fsspec.filesystem("s3", skip_instance_cache=True, **options)
            self._made.setdefault(here, made)
        return self._made[here]

    def _call(self, method: str, uri: str, **arguments: Any) -> dict[str, Any]:
        with _os_errors():
            answer: dict[str, Any] = self._fs.call_s3(method, Bucket=_split(uri)[0], **arguments)
        return answer

    def exists(self, uri: str) -> bool:
        try:
            self.size(uri)
        except FileNotFoundError:
            return self.is_dir(uri)
        return True

    def is_dir(self, uri: str) -> bool:
        """Tell whether any object lies below, at the price of one request."""
        _, key = _split(uri)
        prefix = f"{key}/" if key else ""
        try:
            page = self._call("list_objects_v2", uri, Prefix=prefix, MaxKeys=1)
        except FileNotFoundError:
            return False
        return not key or bool(page.get("Contents"))

    def size(self, uri: str) -> int:
        _, key = _split(uri)
        if not key:
            raise FileNotFoundError(uri)
        return int(self._call("head_object", uri, Key=key)["ContentLength"])

    def version(self, uri: str) -> str:
        found = self._call("head_object", uri, Key=_split(uri)[1])
        return f"{found['ContentLength']} bytes, tag {found['ETag']}"

    def open(self, uri: str) -> BinaryIO:
        with _os_errors():
            return cast(
                BinaryIO,
                self._fs.open(uri, "rb", block_size=_BLOCK_BYTES, cache_type="readahead"),
            )

    def read(self, uri: str, limit: int | None) -> bytes:
        """The object in one request: half of what opening it as a file would take."""
        with _os_errors():
            data: bytes = sync(self._fs.loop, self._get, uri, limit)
        return data

    async def _get(self, uri: str, limit: int | None) -> bytes:
        bucket, key = _split(uri)
        for attempt in range(_READS):
            answer = await self._fs._call_s3("get_object", Bucket=bucket, Key=key)
            body = answer["Body"]
            try:
                if limit is not None and answer["ContentLength"] > limit:
                    raise OSError(errno.EFBIG, "too large")
                return cast(bytes, await body.read())
            except (BotoCoreError, aiohttp.ClientError):
                # The request was answered, so nobody else repeats it when its body breaks off.
                if attempt == _READS - 1:
                    raise
            finally:
                body.close()
        raise AssertionError

    def children(self, uri: str) -> Iterator[str]:
        bucket, _ = _split(uri)
        for page in self._pages(uri, delimiter="/"):
            for common in page.get("CommonPrefixes", []):
                if common["Prefix"].endswith("//"):
                    raise OSError(errno.EINVAL, f"a key has an empty part: {common['Prefix']}")
                yield f"{_S3}{bucket}/{common['Prefix'].removesuffix('/')}"

    def entries(self, uri: str, recursive: bool) -> Iterator[Entry]:
        bucket, _ = _split(uri)
        for page in self._pages(uri, delimiter="" if recursive else "/"):
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):
                    address = f"{_S3}{bucket}/{item['Key']}"
                    tag = item.get("ETag", "").strip('"')
                    # The tag of a multipart upload is not the MD5 of the object.
                    plain = len(tag) == _MD5_CHARS and self._tags_are_digests(address)
                    yield Entry(address, item["Size"], tag if plain else None)

    def _tags_are_digests(self, uri: str) -> bool:
        """Whether a bucket's tags are MD5 sums: not where a key service encrypts its objects.

        Asked of one object a bucket; one that differs from it later fails as changed.
        """
        bucket, key = _split(uri)
        if bucket not in self._digest_tags:
            found = self._call("head_object", uri, Key=key)
            other = "kms" in str(found.get("ServerSideEncryption", ""))
            self._digest_tags[bucket] = not (other or "SSECustomerAlgorithm" in found)
        return self._digest_tags[bucket]

    def _pages(self, uri: str, delimiter: str) -> Iterator[dict[str, Any]]:
        """Pages of a listing, one request each, so that no listing is held whole."""
        _, key = _split(uri)
        wanted = {"Prefix": f"{key}/" if key else "", "Delimiter": delimiter}
        token: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", uri, **wanted, **token)
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def write(self, uri: str, data: bytes | memoryview) -> None:
        with _os_errors():
            self._fs.pipe_file(uri, bytes(data))

    def create(self, uri: str, data: bytes) -> bool:
        try:
            with _os_errors():
                self._fs.pipe_file(uri, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            # A refused condition may come as an invalid argument or as a conflict.
            if error.errno in (errno.EINVAL, errno.EBUSY) and self.exists(uri):
                return False
            raise
        return True

    def delete(self, uri: str) -> None:
        self._call("delete_object", uri, Key=_split(uri)[1])


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix(_S3).partition("/")
    return bucket, key.rstrip("/")


@contextmanager
def _os_errors() -> Iterator[None]:
    """Give the client's errors the types that files have. Their texts may quote requests."""
    try:
        yield
    except NoCredentialsError:
        raise PermissionError(errno.EACCES, "no credentials found") from None
    except (BotoCoreError, ClientError, aiohttp.ClientError, FSTimeoutError) as error:
        kind = type(error).__name__
        raise OSError(errno.EIO, f"the object store gave no usable answer ({kind})") from None
