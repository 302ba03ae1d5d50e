"""The entries of a table's log: which files come and go, which columns they have, and which commit
made them.

An announcement is a digest of the entry that a commit is about to write. The writer first puts it
into the seal. An entry with another digest is somebody else's.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.ports import DataFile
from pipelines.table.listing import beginning, canonical, digest_of, line
from pipelines.table.log_seal_file import Chain

# An action may have these fields beside the facts of its file. Others change what readers see.
_BESIDE: Final = frozenset({"modificationTime", "dataChange", "deletionTimestamp"})
_OF_ADD: Final = frozenset({"path", "size", "partitionValues", "stats"})
_OF_REMOVE: Final = frozenset({"path", "size", "partitionValues", "extendedFileMetadata"})
_ABOUT: Final = "metaData"
# Actions of a checkpoint that are read at a time.
_ACTIONS: Final = 4096


@dataclass(frozen=True, slots=True)
class Commit:
    """A coming change of one table.

    application, sequence: they make sure that it happens once, however often it is tried. removed:
    paths of files to hide.
    """

    table: str
    files: Sequence[DataFile]
    application: str
    sequence: int
    removed: Sequence[str] = ()

    def announcement(self) -> str:
        """The digest of the entry that it writes."""
        return _announced(self.files, self.removed, {self.application: self.sequence})


@dataclass(frozen=True, slots=True)
class Said:
    """The content of one entry. others: kinds of actions, or parts, that no commit of ours has.

    about: what it says of the table itself, as `about` gives it.
    """

    added: list[DataFile]
    removed: list[str]
    sequences: dict[str, int]
    about: list[str]
    others: frozenset[str]

    def announcement(self) -> str | None:
        """The digest of a commit with this content; None where no commit can have it."""
        if self.others:
            return None
        return _announced(self.added, self.removed, self.sequences, self.about)


def announcement_of_columns(said: Mapping[str, Any]) -> str:
    """The digest of an entry that gives a table other columns, and does nothing else.

    said: its `metaData`.
    """
    return _announced([], [], {}, [about(said)])


def _announced(
    added: Iterable[DataFile],
    removed: Iterable[str],
    sequences: Mapping[str, int],
    abouts: Sequence[str] = (),
) -> str:
    said = [sorted(map(line, added)), sorted(set(removed)), dict(sequences), *abouts]
    return sha256(canonical(said).encode()).hexdigest()


def about(said: Mapping[str, Any]) -> str:
    """What a `metaData` action says of a table: its id, columns, partitions and configuration.

    When it was made is no part of it, and neither is what it leaves out or null.
    """
    known = {name: value for name, value in said.items() if value not in (None, {}, [])}
    known.pop("createdTime", None)
    return canonical({**known, "schemaString": json.loads(known["schemaString"])})


def parsed(entry: bytes) -> Said:
    """Read an entry. Raises `ValueError` for invalid ones."""
    said = Said([], [], {}, [], frozenset())
    others: set[str] = set()
    for text in entry.decode().splitlines():
        if text.strip():
            others.update(_noted(said, json.loads(text)))
    return replace(said, others=frozenset(others))


def _noted(said: Said, action: Any) -> Iterable[str]:
    """Note an action. Returns the parts that no commit of ours has."""
    try:
        ((kind, body),) = action.items()
        if kind == "add":
            said.added.append(_file(body))
            return _strange(kind, body, _OF_ADD)
        if kind == "remove":
            said.removed.append(str(body["path"]))
            return _strange(kind, body, _OF_REMOVE)
        if kind == "txn":
            said.sequences[str(body["appId"])] = int(body["version"])
            return ()
        if kind == _ABOUT:
            said.about.append(about(body))
            return ()
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"no action of a log ({type(error).__name__})") from None
    return () if kind == "commitInfo" else (kind,)


def _strange(kind: str, body: Mapping[str, Any], known: frozenset[str]) -> list[str]:
    return [
        f"{kind}.{name}"
        for name, value in body.items()
        if value is not None and name not in known and name not in _BESIDE
    ]


def _file(body: Mapping[str, Any]) -> DataFile:
    stats = json.loads(body["stats"]) if body.get("stats") else {}
    return DataFile(
        path=str(body["path"]),
        size=int(body["size"]),
        rows=int(stats.get("numRecords") or 0),
        sha256="",
        partition=_texts(dict(body["partitionValues"] or {})),
        low=_texts(stats.get("minValues") or {}),
        high=_texts(stats.get("maxValues") or {}),
    )


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}


@dataclass
class Log:
    """The content of a log up to a version. lines: of each file in the table, sorted.

    sequences: the last number of each application.
    """

    chain: Chain = field(default_factory=Chain)
    lines: list[str] = field(default_factory=list)
    sequences: dict[str, int] = field(default_factory=dict)
    _digest: str = ""

    @staticmethod
    def based(start: Chain, checkpoint: bytes) -> Log:
        """A log that continues after entries which a checkpoint replaces."""
        found = Log(start)
        parquet = pq.ParquetFile(pa.BufferReader(checkpoint))
        for batch in parquet.iter_batches(_ACTIONS, columns=["add", "txn"], use_threads=False):
            added = (body for body in batch["add"].to_pylist() if body)
            found.lines += [line(_file(body)) for body in added]
            numbers = (body for body in batch["txn"].to_pylist() if body)
            found.sequences |= {str(body["appId"]): int(body["version"]) for body in numbers}
        found.lines.sort()
        return found

    def take(self, entry: bytes) -> None:
        """Read the next entry. Raises `ValueError` for an invalid one."""
        said = parsed(entry)
        added = {file.path: line(file) for file in said.added}
        self._remove([*said.removed, *added])
        self.lines += sorted(added.values())
        # Two sorted parts are merged.
        self.lines.sort()
        self.sequences.update(said.sequences)
        self.chain = self.chain.then(entry)
        self._digest = ""

    def _remove(self, paths: Iterable[str]) -> None:
        """Take out the lines of some files, as far as they are there."""
        gone = set()
        for path in paths:
            begin = beginning(path)
            place = bisect_left(self.lines, begin)
            if place < len(self.lines) and self.lines[place].startswith(begin):
                gone.add(place)
        if gone:
            self.lines = [one for place, one in enumerate(self.lines) if place not in gone]

    def list_digest(self) -> str:
        """The digest of the files in the table."""
        self._digest = self._digest or digest_of(self.lines)
        return self._digest
