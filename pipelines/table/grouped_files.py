"""Parquet files that can be checked in parts: a digest for each row group, one for the footer.

The footer's metadata has the end of each row group, its SHA-256 and the subjects of its rows. The
groups follow each other without gaps, right after the leading magic. The file's digest covers the
magic and everything after the last group, so it vouches for every byte. A reader of one group reads
two parts. A reader of the subjects reads only the footer.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from ironmask.errors import TamperedError
from pipelines.ports import Store

_MAGIC: Final = b"PAR1"
_KEY: Final = b"ironmask.row_groups"
OWNER: Final = "subject_id"
"""The column whose values the footer repeats."""
# The length field of the footer, and the trailing magic.
_END: Final = 8
# Larger than the footer of a shard of usual size.
_TAIL: Final = 128 << 10


class GroupWriter:
    """Writes tables as the row groups of a Parquet file."""

    def __init__(self, parquet: pq.ParquetWriter, sink: _DigestingSink) -> None:
        self._parquet = parquet
        self._sink = sink
        self.groups: list[tuple[int, str, list[str]]] = []

    def write(self, table: pa.Table) -> None:
        """Write one row group."""
        self._parquet.write_table(table, row_group_size=len(table))
        self.groups.append((*self._sink.cut(), table[OWNER].to_pylist()))


@contextmanager
def writer(sink: pa.NativeFile, schema: pa.Schema, **options: Any) -> Iterator[GroupWriter]:
    """Write a file into a sink. options: of `pyarrow.parquet.ParquetWriter`."""
    digesting = _DigestingSink(sink)
    with pq.ParquetWriter(digesting, schema, **options) as parquet:
        digesting.cut()
        groups = GroupWriter(parquet, digesting)
        yield groups
        parquet.add_key_value_metadata({_KEY: json.dumps(groups.groups)})


class _DigestingSink:
    """A sink that digests the bytes since the last cut."""

    closed = False

    def __init__(self, sink: pa.NativeFile) -> None:
        self._sink = sink
        self._end = 0
        self._hash = sha256()

    def write(self, data: bytes) -> None:
        self._sink.write(data)
        self._hash.update(data)
        self._end += len(data)

    def cut(self) -> tuple[int, str]:
        """Where the bytes so far end, and their digest."""
        found = self._end, self._hash.hexdigest()
        self._hash = sha256()
        return found

    def tell(self) -> int:
        return self._end

    def flush(self) -> None:
        self._sink.flush()

    def close(self) -> None:
        """Does nothing: the sink's owner closes it."""


@dataclass(frozen=True)
class Footer:
    """The part of a file that vouches for all of it.

    start: where it begins. groups: start, end and digest of each. owners: for each group, the
    `OWNER` of each of its rows.
    """

    start: int
    content: bytes
    groups: list[tuple[int, int, str]]
    owners: list[list[str]]

    @property
    def digest(self) -> str:
        return sha256(_MAGIC + self.content).hexdigest()


def footer_of(content: bytes | memoryview) -> Footer | None:
    """The footer of a whole file, or of its last part; None where it has no such digests.

    Raises `ValueError` where it is no end of a Parquet file, or lacks one owner for each row.
    """
    view = memoryview(content)
    length = _END + int.from_bytes(view[-_END:-4], "little")
    if bytes(view[-4:]) != _MAGIC or length > len(view):
        raise ValueError("no end of a Parquet file")
    tail = bytes(view[-length:])
    try:
        metadata = pq.read_metadata(pa.BufferReader(_MAGIC + tail))
        if _KEY not in (metadata.metadata or {}):
            return None
        said = [
            (int(end), str(digest), _owners(owners))
            for end, digest, owners in json.loads(metadata.metadata[_KEY])
        ]
    except (pa.ArrowException, OSError, TypeError) as error:
        raise ValueError(f"no footer ({type(error).__name__})") from None
    owners = [some for _, _, some in said]
    rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    if [len(some) for some in owners] != rows:
        raise ValueError("a footer that does not name one owner a row")
    places = pairwise([len(_MAGIC), *(end for end, _, _ in said)])
    groups = [(*place, digest) for place, (_, digest, _) in zip(places, said, strict=True)]
    return Footer(groups[-1][1] if groups else len(_MAGIC), tail, groups, owners)


def _owners(said: object) -> list[str]:
    if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
        raise ValueError("a footer whose owners are no list of texts")
    return said


def is_whole(content: bytes | memoryview, digest: str) -> bool:
    """Whether a file has a digest, and each of its row groups has its own."""
    view = memoryview(content)
    try:
        footer = footer_of(view)
    except ValueError:
        return False
    return (
        footer is not None
        and footer.digest == digest
        and bytes(view[:4]) == _MAGIC
        and footer.start + len(footer.content) == len(view)
        and all(sha256(view[a:b]).hexdigest() == own for a, b, own in footer.groups)
    )


class CheckedParts(io.RawIOBase):
    """The checked parts of a file, as a file to read. Everything else in it is zeros.

    other: reads the rest unchecked, where that is wanted.
    """

    def __init__(self, size: int, other: Callable[[int, int], bytes] | None = None) -> None:
        super().__init__()
        self._size = size
        self._other = other
        self._parts: list[tuple[int, bytes]] = []
        self._at = 0

    def add(self, start: int, content: bytes) -> None:
        self._parts.append((start, content))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        start = self._at
        self._at = self._size if size < 0 else min(self._size, start + size)
        return self._between(start, self._at)

    def _between(self, start: int, end: int) -> bytes:
        for first, content in self._parts:
            if first <= start and end <= first + len(content):
                return content[start - first : end - first]
        if self._other and not any(start < f + len(c) and f < end for f, c in self._parts):
            return self._other(start, end)
        found = bytearray(max(0, end - start))
        for first, content in self._parts:
            low, high = max(first, start), min(first + len(content), end)
            if low < high:
                found[low - start : high - start] = content[low - first : high - first]
        return bytes(found)


@dataclass(frozen=True)
class RemoteGroups:
    """A file in a store, checked part by part. size, digest: as vouched for.

    What came with the footer is not read again: a small file is read once.
    """

    store: Store
    uri: str
    size: int
    digest: str
    _tail: list[bytes] = field(default_factory=list, repr=False, compare=False)

    def footer(self) -> Footer:
        """Read the end of the file. Raises `TamperedError` where it was changed."""
        tail = self._part(max(0, self.size - _TAIL), self.size)
        self._tail[:] = [tail]
        length = _END + int.from_bytes(tail[-_END:-4], "little")
        if len(tail) < length <= self.size:
            tail = self._part(self.size - length, self.size)
        try:
            found = footer_of(tail)
        except ValueError:
            found = None
        if found is None or found.digest != self.digest:
            raise not_written(self.uri)
        if found.start + len(found.content) != self.size:
            raise not_written(self.uri)
        return found

    def group(self, footer: Footer, number: int) -> tuple[int, bytes]:
        """Where a row group begins, and its bytes. Raises `TamperedError` as `footer` does."""
        start, end, digest = footer.groups[number]
        content = self._part(start, end)
        if sha256(content).hexdigest() != digest:
            raise not_written(self.uri)
        return start, content

    def unchecked(self, start: int, end: int) -> bytes:
        return self._part(start, end)

    def _part(self, start: int, end: int) -> bytes:
        for tail in self._tail:
            begin = self.size - len(tail)
            if begin <= start:
                return tail[start - begin : end - begin]
        return self.store.part(self.uri, start, end)


def not_written(uri: str) -> TamperedError:
    """The error of a file whose content does not have the digest in its name."""
    return TamperedError(f"{uri} is not what was written: restore it from a backup")
