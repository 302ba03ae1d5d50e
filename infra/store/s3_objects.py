"""Objects of an S3-compatible store through s3fs. Every PUT is whole or absent."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, cast

from infra.settings import StorageSettings
from infra.store.s3_client import PatientS3, RangeReader, os_errors
from pipelines.ports import Entry

_S3: Final = "s3://"
_MD5_CHARS: Final = 32
_BLOCK_BYTES: Final = 8 << 20


class S3Objects:
    """The part of `infra.store.objects.FsspecStore` for `s3://`; raises `OSError`."""

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        self._made: dict[int, PatientS3] = {}
        self._digest_tags: dict[str, bool] = {}
        self._versioned: dict[str, bool] = {}

    @property
    def _fs(self) -> PatientS3:
        """One client for each process: its connections and its thread do not survive a fork."""
        here = os.getpid()
        if here not in self._made:
            options = self._settings.fsspec_options()
            made = PatientS3(skip_instance_cache=True, **options)
            self._made.setdefault(here, made)
        return self._made[here]

    def _call(self, method: str, uri: str, **arguments: Any) -> dict[str, Any]:
        with os_errors():
            answer: dict[str, Any] = self._fs.call_s3(method, Bucket=_split(uri)[0], **arguments)
        return answer

    def exists(self, uri: str) -> bool:
        try:
            self.size(uri)
        except FileNotFoundError:
            return self.is_dir(uri)
        return True

    def is_dir(self, uri: str) -> bool:
        """Tell whether any object lies below, with one request."""
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
        bucket, key = _split(uri)
        raw = RangeReader(self._fs, bucket, key, self.size(uri))
        return cast(BinaryIO, io.BufferedReader(raw, _BLOCK_BYTES))

    def read(self, uri: str, limit: int | None) -> bytes:
        """The object in one request; opening it as a file would take two."""
        bucket, key = _split(uri)
        with os_errors():
            return self._fs.get(bucket, key, limit)

    def part(self, uri: str, start: int, end: int) -> bytes:
        if end <= start:
            return b""
        bucket, key = _split(uri)
        with os_errors():
            return self._fs.get(bucket, key, span=f"bytes={start}-{end - 1}")

    def after(self, uri: str, name: str) -> list[str]:
        folder = f"{_split(uri)[1]}/"
        page = self._call(
            "list_objects_v2", uri, Prefix=folder, Delimiter="/", StartAfter=folder + name
        )
        # A server may return more than it was asked for.
        names = [str(item["Key"]).removeprefix(folder) for item in page.get("Contents", [])]
        return sorted(found for found in names if found > name)

    def children(self, uri: str) -> Iterator[str]:
        bucket, _ = _split(uri)
        for page in self._pages(uri, delimiter="/"):
            for common in page.get("CommonPrefixes", []):
                if common["Prefix"].endswith("//"):
                    raise OSError(errno.EINVAL, f"a key has an empty part: {common['Prefix']}")
                yield f"{_S3}{bucket}/{common['Prefix'].removesuffix('/')}"

    def resolve(self, uri: str) -> str:
        """The address itself: buckets have no links, and their keys no dots."""
        return uri

    def items(self, uri: str, recursive: bool) -> Iterator[Entry]:
        """The objects: buckets have no links and no special files."""
        yield from self.entries(uri, recursive)

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
        """Whether a bucket's tags are MD5 sums. They are not where a key service encrypts objects.

        One object of each bucket is asked. An object that differs from it later fails as changed.
        """
        bucket, key = _split(uri)
        if bucket not in self._digest_tags:
            found = self._call("head_object", uri, Key=key)
            other = "kms" in str(found.get("ServerSideEncryption", ""))
            self._digest_tags[bucket] = not (other or "SSECustomerAlgorithm" in found)
        return self._digest_tags[bucket]

    def _pages(self, uri: str, delimiter: str) -> Iterator[dict[str, Any]]:
        """Pages of a listing, one request each: no listing is held whole."""
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
        with os_errors():
            self._fs.pipe_file(uri, bytes(data))

    def create(self, uri: str, data: bytes) -> bool:
        try:
            with os_errors():
                self._fs.pipe_file(uri, data, mode="create")
        except OSError as error:
            # A failed condition may be reported as an invalid argument or as a conflict.
            refused = (errno.EEXIST, errno.EINVAL, errno.EBUSY)
            if error.errno not in refused and not isinstance(error, FileExistsError):
                raise
            try:
                # The first request may have made the object before its answer was lost.
                return self.read(uri, len(data)) == data
            except FileNotFoundError:
                raise error from None
            except OSError as other:
                if other.errno == errno.EFBIG:
                    return False
                raise
        return True

    def delete(self, uri: str) -> None:
        """Destroy an object; in a versioned bucket, all its versions and delete markers."""
        key = _split(uri)[1]
        if not self._is_versioned(uri):
            self._call("delete_object", uri, Key=key)
            return
        for found, version in self._versions(uri, key):
            if found == key:
                self._call("delete_object", uri, Key=key, VersionId=version)

    def remains(self, uri: str) -> Iterator[str]:
        """Addresses of everything below a folder, in any version."""
        bucket, key = _split(uri)
        if not self._is_versioned(uri):
            yield from (entry.uri for entry in self.entries(uri, recursive=True))
            return
        last = ""
        for found, _ in self._versions(uri, f"{key}/" if key else ""):
            if found != last and not found.endswith("/"):
                yield f"{_S3}{bucket}/{found}"
            last = found

    def abort_uploads(self, uri: str) -> int:
        """Abort unfinished uploads below a folder: their parts hold data."""
        count = 0
        wanted = {"Prefix": f"{_split(uri)[1]}/"}
        while found := self._call("list_multipart_uploads", uri, **wanted).get("Uploads"):
            for upload in found:
                self._call(
                    "abort_multipart_upload", uri, Key=upload["Key"], UploadId=upload["UploadId"]
                )
            count += len(found)
        return count

    def _is_versioned(self, uri: str) -> bool:
        """Whether a bucket keeps older versions, or ever did. Asked once for each bucket."""
        bucket, _ = _split(uri)
        if bucket not in self._versioned:
            try:
                answer = self._call("get_bucket_versioning", uri)
            except PermissionError:
                text = "s3:GetBucketVersioning is needed to prove that nothing deleted survives"
                raise PermissionError(errno.EACCES, text) from None
            except OSError as error:
                if error.errno != errno.ENOSYS:
                    raise
                answer = {}
            self._versioned[bucket] = "Status" in answer
        return self._versioned[bucket]

    def _versions(self, uri: str, prefix: str) -> Iterator[tuple[str, str]]:
        """Key and version of every version and delete marker under a prefix."""
        place: dict[str, str] = {}
        while True:
            page = self._call("list_object_versions", uri, Prefix=prefix, **place)
            items = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            for item in sorted(items, key=lambda item: str(item["Key"])):
                yield item["Key"], item["VersionId"]
            if not page.get("IsTruncated"):
                return
            place = {
                "KeyMarker": page["NextKeyMarker"],
                "VersionIdMarker": page.get("NextVersionIdMarker", ""),
            }


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix(_S3).partition("/")
    return bucket, key.rstrip("/")
