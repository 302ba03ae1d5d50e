"""The one client of S3-compatible stores: s3fs, with all repetition in one place.

The client repeats a request after throttling, server errors, broken connections, silence, and
bodies that end too early. It makes up to 8 attempts. Each pause is random, up to a limit that
doubles (full jitter), so that many workers do not return together. A final refusal of the server
(403, 404, 412, ...) is raised at once.
"""

from __future__ import annotations

import asyncio
import errno
import io
import random
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import aiohttp
import s3fs
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from fsspec.asyn import sync, sync_wrapper
from fsspec.exceptions import FSTimeoutError

from infra.store.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import WriteableBuffer

T = TypeVar("T")

_ATTEMPTS: Final = 8
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 5.0
# If a server is silent for so long after a small request, it has lost it.
_SILENCE_S: Final = 10.0
# A request with a body is answered after the body has arrived, however slow the line is.
_UPLOADS: Final = ("put_object", "upload_part", "complete_multipart_upload")
_BUSY: Final = frozenset({408, 429, 500, 502, 503, 504})
_BUSY_CODES: Final = frozenset({"SlowDown", "RequestTimeout", "InternalError", "Throttling"})
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
# Answers about the credentials; they say nothing about the object that was asked for.
_CREDENTIALS: Final = _EXPIRED | {
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}
# Answers for a bucket that cannot exist, or that lies in another place.
_NO_BUCKET: Final = frozenset(
    {"AuthorizationHeaderMalformed", "InvalidBucketName", "PermanentRedirect"}
)
_FOREVER: Final = (NoCredentialsError, PartialCredentialsError)
_BROKEN: Final = (
    aiohttp.ClientError,
    asyncio.IncompleteReadError,
    BotoCoreError,
    ConnectionError,
    FSTimeoutError,
    TimeoutError,
)


class PatientS3(s3fs.S3FileSystem):  # type: ignore[misc]
    """s3fs that repeats every request while that may help."""

    # Only this class counts attempts.
    retries = 1

    async def _call_s3(self, method: str, *positional: Any, **arguments: Any) -> Any:
        ask = super()._call_s3

        async def once() -> Any:
            answer = ask(method, *positional, **arguments)
            return await (answer if method in _UPLOADS else asyncio.wait_for(answer, _SILENCE_S))

        return await _patiently(once)

    # The base class binds its own `_call_s3`.
    call_s3 = sync_wrapper(_call_s3)

    async def _get(self, bucket: str, key: str, limit: int | None, span: str | None) -> bytes:
        """An object, or a span of its bytes. Raises `OSError` EFBIG above the limit."""
        ask = super()._call_s3
        ranged = {"Range": span} if span else {}

        async def once() -> bytes:
            asked = ask("get_object", Bucket=bucket, Key=key, **ranged)
            answer = await asyncio.wait_for(asked, _SILENCE_S)
            body = answer["Body"]
            try:
                if limit is not None and answer["ContentLength"] > limit:
                    raise OSError(errno.EFBIG, "too large")
                return await _whole(body, answer["ContentLength"])
            finally:
                body.close()

        return await _patiently(once)

    def get(
        self, bucket: str, key: str, limit: int | None = None, span: str | None = None
    ) -> bytes:
        """`_get`, for callers outside the client's own thread."""
        data: bytes = sync(self.loop, self._get, bucket, key, limit, span)
        return data


async def _whole(body: Any, length: int) -> bytes:
    """Read a body, if no part of it comes too late."""
    parts: list[bytes] = []
    while part := await asyncio.wait_for(body.read(1 << 20), _SILENCE_S):
        parts.append(part)
    data = b"".join(parts)
    if len(data) != length:
        raise asyncio.IncompleteReadError(data[:0], length)
    return data


async def _patiently(once: Callable[[], Awaitable[T]]) -> T:
    for attempt in range(_ATTEMPTS):
        try:
            return await once()
        except Exception as error:
            if attempt == _ATTEMPTS - 1 or not _may_pass(error):
                raise
        longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt)
        await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - a pause is no secret
    raise AssertionError


def _may_pass(error: BaseException) -> bool:
    """Tell a store in trouble from a store that has decided."""
    answer = _answer(error)
    if answer is not None:
        code, status = answer
        return status in _BUSY or code in _BUSY_CODES
    return isinstance(error, _BROKEN) and not isinstance(error, _FOREVER)


def _answer(error: BaseException | None) -> tuple[str, int] | None:
    """Code and HTTP status of the store's own answer, if the error is one."""
    while error is not None and not isinstance(error, ClientError):
        error = error.__cause__
    if error is None:
        return None
    code = str(error.response.get("Error", {}).get("Code", ""))
    return code, int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextmanager
def os_errors() -> Iterator[None]:
    """Turn the client's errors into those that files raise. Their texts may quote requests."""
    try:
        yield
    except _FOREVER:
        raise PermissionError(errno.EACCES, "no credentials found") from None
    except OSError as error:
        raise _named(error) from None
    except (BotoCoreError, ClientError, aiohttp.ClientError, EOFError) as error:
        raise _named(error) from None


def _named(error: Exception) -> OSError:
    """The same fault without texts that may quote a request."""
    answer = _answer(error)
    if answer is not None and answer[0] in _EXPIRED:
        return PermissionError(errno.EACCES, "the credentials have expired")
    if answer is not None and (answer[1] in (401, 403) or answer[0] in _NO_BUCKET):
        kind = PermissionError if answer[0] in _CREDENTIALS else RefusedError
        return kind(errno.EACCES, f"access denied ({answer[0]})")
    if _may_pass(error):
        name = answer[0] or str(answer[1]) if answer else type(error).__name__
        text = f"the object store gave no usable answer in {_ATTEMPTS} attempts ({name})"
        return OSError(errno.EIO, text)
    if isinstance(error, OSError):
        return error
    name = answer[0] if answer else type(error).__name__
    return OSError(errno.EIO, f"the object store refused ({name})")


class RangeReader(io.RawIOBase):
    """A seekable reader of one object. Each read is one request."""

    def __init__(self, client: PatientS3, bucket: str, key: str, size: int) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key
        self._size = size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        end = min(self._place + len(view), self._size)
        if end <= self._place:
            return 0
        with os_errors():
            span = f"bytes={self._place}-{end - 1}"
            data = self._client.get(self._bucket, self._key, span=span)
        view[: len(data)] = data
        self._place += len(data)
        return len(data)
