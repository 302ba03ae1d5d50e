"""The files that a log lists, column by column: some hundred bytes a file, beside their paths."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.ports import DataFile

_KINDS: Final = ("partition", "low", "high")
_CHUNK: Final = 4096
_FEW: Final = 16
_TEXT: Final = pa.large_string()
_PRUNED: Final = "subject_id"
_GENERATION: Final = "partition.generation"

Mask = NDArray[np.bool_]


class Listing(Sequence[DataFile]):
    """Data files in the order of their paths. Their digests are empty.

    columns: path, size, rows; `partition.NAME` for each partition column, `low.NAME` and
    `high.NAME` for each column with statistics. What a file lacks of these is null.
    """

    def __init__(self, columns: pa.Table) -> None:
        """columns: in any order of rows, texts as `large_string`."""
        order = pc.sort_indices(columns["path"])
        self.columns = columns.take(order).combine_chunks()

    @classmethod
    def of(cls, files: Iterable[DataFile]) -> Listing:
        """The listing of some files."""
        found = list(files)
        columns: dict[str, pa.Array] = {
            "path": pa.array([file.path for file in found], _TEXT),
            "size": pa.array([file.size for file in found], pa.int64()),
            "rows": pa.array([file.rows for file in found], pa.int64()),
        }
        for kind in _KINDS:
            facts: list[Mapping[str, str]] = [getattr(file, kind) for file in found]
            for name in sorted({name for one in facts for name in one}):
                columns[f"{kind}.{name}"] = pa.array([one.get(name) for one in facts], _TEXT)
        return cls(pa.table(columns))

    def __len__(self) -> int:
        return len(self.columns)

    @overload
    def __getitem__(self, place: int) -> DataFile: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[DataFile]: ...

    def __getitem__(self, place: int | slice) -> DataFile | Sequence[DataFile]:
        if isinstance(place, int):
            return _file(self.columns.slice(range(len(self))[place], 1).to_pylist()[0])
        return [self[one] for one in range(len(self))[place]]

    def __iter__(self) -> Iterator[DataFile]:
        for start in range(0, len(self), _CHUNK):
            yield from map(_file, self.columns.slice(start, _CHUNK).to_pylist())

    def numbers(self, name: str) -> dict[str, int]:
        """One of the columns of numbers, by path."""
        paths = self.columns["path"].to_pylist()
        return dict(zip(paths, self.columns[name].to_pylist(), strict=True))

    def taken(self, mask: Mask) -> Listing:
        """The files under a mask, (k,) bool."""
        return Listing(self.columns.filter(pa.array(mask)))

    def generations(self) -> list[str | None]:
        """The generations of the files; None for files of none."""
        if _GENERATION not in self.columns.column_names:
            return [None] if len(self) else []
        return list(pc.unique(self.columns[_GENERATION]).to_pylist())

    def of_generations(self, wanted: Collection[str | None]) -> Listing:
        """The files of some generations."""
        if _GENERATION not in self.columns.column_names or set(wanted) == set(self.generations()):
            return self if wanted else Listing(self.columns.slice(0, 0))
        mask = pc.is_in(self.columns[_GENERATION], pa.array(list(wanted), _TEXT))
        return self.taken(np.asarray(mask))

    def changed(self, added: Iterable[DataFile], removed: Collection[str]) -> Listing:
        """The listing after a commit."""
        new = Listing.of(added)
        gone = pa.array([*removed, *new.columns["path"].to_pylist()], _TEXT)
        rest = self.columns.filter(pc.invert(pc.is_in(self.columns["path"], gone)))
        return Listing(pa.concat_tables([rest, new.columns], promote_options="default"))

    def may_hold(self, people: Collection[str]) -> Mask:
        """Which files may hold a row of some subjects, (k,) bool: by the range of theirs."""
        if {f"low.{_PRUNED}", f"high.{_PRUNED}"} - set(self.columns.column_names):
            return np.ones(len(self), bool)
        low, high = (self.columns[f"{end}.{_PRUNED}"] for end in ("low", "high"))
        wanted = sorted(set(people))
        if len(wanted) > _FEW:
            ends = zip(low.to_pylist(), high.to_pylist(), strict=True)
            return np.fromiter((_between(wanted, *one) for one in ends), bool, len(self))
        found = np.zeros(len(self), bool)
        for one in wanted:
            within = pc.and_(pc.less_equal(low, one), pc.greater_equal(high, one))
            found |= np.asarray(pc.fill_null(within, True))
        return found


def _between(people: list[str], low: str | None, high: str | None) -> bool:
    """Whether some people, in order, are in a range. An end that is not known lets all in."""
    if low is None or high is None:
        return True
    return bisect_left(people, low) < bisect_right(people, high)


def _file(row: dict[str, Any]) -> DataFile:
    facts: dict[str, dict[str, str]] = {kind: {} for kind in _KINDS}
    for name, value in row.items():
        kind, _, column = name.partition(".")
        if column and value is not None:
            facts[kind][column] = value
    return DataFile(row["path"], row["size"], row["rows"], "", **facts)


def line(file: DataFile) -> str:
    """A log's facts about a file: its path, bytes and rows, and what readers prune by."""
    low, high = dict(file.low), dict(file.high)
    return canonical([file.path, file.size, file.rows, dict(file.partition), low, high])


def beginning(path: str) -> str:
    """How the line of a file begins."""
    return canonical([path])[:-1] + ","


def canonical(value: object) -> str:
    """A value as JSON, always with the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def digest_of(lines: Iterable[str]) -> str:
    """The digest of a list of files by their lines, whatever the order."""
    hasher = sha256()
    for number, one in enumerate(sorted(lines)):
        hasher.update(f"\n{one}".encode() if number else one.encode())
    return hasher.hexdigest()


def rises(texts: pa.Array) -> bool:
    """Whether texts are in order."""
    return bool(pc.all(pc.greater_equal(texts[1:], texts[:-1]), min_count=0).as_py())
