"""Searching files and memory for secrets, in every spelling that might be found there."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ironmask import codeword
from ironmask.arrays import I32

_CHUNK = 1 << 24
_START = 3
_WINDOW = 24
# Six digits may be found by chance, but not those of several values.
_BY_CHANCE = {"decimal text": 3}


def spellings(secret: bytes) -> Iterator[bytes]:
    """A byte string as it is, in hex, and in base64 at every alignment."""
    yield secret
    yield secret.hex().encode()
    for start in range(3):
        whole = secret[start : start + (len(secret) - start) // 3 * 3]
        yield base64.b64encode(whole)
        yield base64.urlsafe_b64encode(whole)


def windows(vector: Iterable[float]) -> Iterator[bytes]:
    """Parts of a vector's bytes: as given and of length one, in single and double precision."""
    given = np.asarray(vector, dtype=np.float64)
    for values in (given, given / np.linalg.norm(given)):
        for dtype in ("<f4", "<f8"):
            data = values.astype(dtype).tobytes()
            for start in (0, len(data) // 2, len(data) - _WINDOW):
                yield from spellings(data[start : start + _WINDOW])


def decimals(vector: Iterable[float]) -> Iterator[bytes]:
    """Some of a vector's values as text, without the last digits, which depend on who prints."""
    given = np.asarray(vector, dtype=np.float32)
    for values in (given, given / np.linalg.norm(given)):
        texts = (str(abs(value)) for value in values[:48])
        yield from (text[:9].encode() for text in texts if len(text) >= 10)


def codewords(code: I32, n: int) -> Iterator[bytes]:
    """A codeword, (alpha,), in the forms that code holds it in, and half of it."""
    for dtype in ("<i2", "<i4", "<i8"):
        for part in (code, code[: len(code) // 2], code[len(code) // 2 :]):
            yield from spellings(part.astype(dtype).tobytes())
            yield from spellings((np.abs(part) - 1).astype(dtype).tobytes())
    yield str(code.tolist())[1:-1].encode()
    yield codeword.canonical_bytes(code, n)
    for dtype in ("<f4", "<f8"):
        yield codeword.dense(code, n)[0].astype(dtype).tobytes().strip(b"\0")


class Needles:
    """Finds any of many byte strings in one pass. named: byte strings by what they give away."""

    def __init__(self, named: Mapping[str, Iterable[bytes]]) -> None:
        self._by_start: dict[bytes, dict[bytes, str]] = {}
        self._possible = np.zeros(1 << 8 * _START, dtype=bool)
        self.kinds = frozenset(named)
        self.longest = 0
        for kind, needles in named.items():
            for needle in needles:
                self._add(kind, needle)

    def _add(self, kind: str, needle: bytes) -> None:
        # Memory is full of zeros, where every place would have to be looked at.
        needle = needle.lstrip(b"\0")
        assert len(needle) >= 8, f"{kind}: too short to tell from chance"
        start = needle[:_START]
        self._by_start.setdefault(start, {})[needle] = kind
        self._possible[int.from_bytes(start, "little")] = True
        self.longest = max(self.longest, len(needle))

    def find(self, data: bytes) -> set[str]:
        """The kinds of secrets that some bytes hold."""
        seen: set[bytes] = set()
        for begin in range(0, len(data), _CHUNK):
            seen |= self._find_chunk(data[begin : begin + _CHUNK + self.longest])
        found = Counter(self._by_start[needle[:_START]][needle] for needle in seen)
        return {kind for kind, count in found.items() if count > _BY_CHANCE.get(kind, 0)}

    def _find_chunk(self, data: bytes) -> set[bytes]:
        seen: set[bytes] = set()
        raw = np.frombuffer(data, dtype=np.uint8)
        if len(raw) < _START:
            return seen
        codes = raw[:-2].astype(np.uint32)
        codes |= raw[1:-1].astype(np.uint32) << 8
        codes |= raw[2:].astype(np.uint32) << 16
        for place in np.nonzero(self._possible[codes])[0].tolist():
            for needle in self._by_start[data[place : place + _START]]:
                if data.startswith(needle, place):
                    seen.add(needle)
        return seen


def contents(path: Path) -> bytes:
    """A file's bytes; of a Parquet file also its columns, which may be compressed."""
    data = path.read_bytes()
    if data[:4] == data[-4:] == b"PAR1":
        data += _columns(pq.read_table(pa.BufferReader(data)))
    return data


def _columns(table: pa.Table) -> bytes:
    chunks = (chunk for column in table.columns for chunk in column.chunks)
    buffers = (buffer for chunk in chunks for buffer in chunk.buffers() if buffer)
    return b"".join(memoryview(buffer) for buffer in buffers)


def files(place: Path) -> list[Path]:
    """Every plain file under a folder; sockets and links are none."""
    return sorted(p for p in place.rglob("*") if p.is_file() and not p.is_symlink())


def search(place: Path, needles: Needles) -> dict[Path, set[str]]:
    """What each file under a folder gives away; files that give nothing are left out."""
    found = {path: needles.find(contents(path)) for path in files(place)}
    return {path: kinds for path, kinds in found.items() if kinds}
