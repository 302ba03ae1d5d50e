"""Which files may hold a subject's rows, found without a look at each file.

Files are ordered by the least subject that they hold. Where their ranges do not overlap, two binary
searches find the file. What commits change is kept beside them, and taken in once it is much.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.ports import DataFile
from pipelines.table.listing import Listing, rises

_PRUNED: Final = "subject_id"
_RECENT: Final = 512
_SHARE: Final = 16
_FEW: Final = 64


class FileIndex:
    """The files of a table, in memory that follows their paths: eight bytes a file come on top.

    Never changed: a commit gives another one, which shares nearly all with it.
    """

    def __init__(self, base: Listing) -> None:
        self._base = base
        self._ranges = _Ranges(base)
        self._gone: frozenset[int] = frozenset()
        self._recent = Listing.of([])

    @classmethod
    def of(cls, files: Iterable[DataFile]) -> FileIndex:
        """The index of some files."""
        return cls(files if isinstance(files, Listing) else Listing.of(files))

    def __len__(self) -> int:
        return len(self._base) - len(self._gone) + len(self._recent)

    def changed(self, added: Sequence[DataFile], removed: Collection[str]) -> FileIndex:
        """The index after a commit."""
        if not (added or removed):
            return self
        paths = [*removed, *(file.path for file in added)]
        later = object.__new__(FileIndex)
        later._base, later._ranges = self._base, self._ranges
        places = (self._place(path) for path in paths)
        later._gone = self._gone | {place for place in places if place is not None}
        later._recent = self._recent.changed(added, removed)
        beside = len(later._gone) + len(later._recent)
        if beside > max(_RECENT, len(self._base) // _SHARE):
            return FileIndex(later.listing)
        return later

    def _place(self, path: str) -> int | None:
        """Where a file is among the base files."""
        paths = self._base.columns["path"]
        place = bisect_left(range(len(paths)), path, key=lambda at: str(paths[at].as_py()))
        return place if place < len(paths) and paths[place].as_py() == path else None

    @cached_property
    def listing(self) -> Listing:
        """All files in the order of their paths."""
        if not (self._gone or len(self._recent)):
            return self._base
        left = np.ones(len(self._base), bool)
        left[list(self._gone)] = False
        rest = self._base.columns.filter(pa.array(left))
        return Listing(pa.concat_tables([rest, self._recent.columns], promote_options="default"))

    def holding(self, people: Collection[str]) -> list[DataFile]:
        """The files that may hold rows of some subjects, in the order of their paths."""
        if len(people) > _FEW:
            return list(self.listing.taken(self.listing.may_hold(people)))
        places = {place for one in people for place in self._ranges.holding(one)}
        found = [self._base[place] for place in places - self._gone]
        if len(self._recent):
            found += self._recent.taken(self._recent.may_hold(people))
        return sorted(found, key=lambda file: file.path)


class _Ranges:
    """The ranges of subjects of some files. An unknown range may hold anybody."""

    def __init__(self, files: Listing) -> None:
        self._order: NDArray[np.int32] = np.empty(0, np.int32)
        names = [f"{end}.{_PRUNED}" for end in ("low", "high")]
        if set(names) - set(files.columns.column_names):
            self._unknown = np.arange(len(files))
            return
        self._low, self._high = (files.columns[name] for name in names)
        known = np.asarray(pc.and_(pc.is_valid(self._low), pc.is_valid(self._high)))
        self._unknown = np.nonzero(~known)[0]
        places = np.nonzero(known)[0]
        order = places[_sorted_places(self._low.take(pa.array(places)))]
        self._order = order.astype(np.int32)
        self._greatest = _running_greatest(self._high.take(pa.array(order)))

    def holding(self, subject: str) -> Iterator[int]:
        """The places of the files that may hold a subject."""
        yield from self._unknown.tolist()
        if not len(self._order):
            return
        end = bisect_right(range(len(self._order)), subject, key=self._low_at)
        begin = bisect_left(range(end), subject, key=self._greatest_high_at)
        places = self._order[begin:end]
        high = self._high.take(pa.array(places))
        yield from places[np.asarray(pc.greater_equal(high, subject))].tolist()

    def _low_at(self, at: int) -> Any:
        return self._low[int(self._order[at])].as_py()

    def _greatest_high_at(self, at: int) -> Any:
        """The greatest subject of the files up to a place in the order."""
        return self._high[int(self._order[self._greatest[at]])].as_py()


def _sorted_places(texts: pa.ChunkedArray) -> NDArray[np.int64]:
    """What brings texts into order."""
    whole = texts.combine_chunks()
    if rises(whole):
        return np.arange(len(whole))
    return np.asarray(pc.sort_indices(whole)).astype(np.int64)


def _running_greatest(texts: pa.ChunkedArray) -> NDArray[np.int32]:
    """For each place, the place of the greatest text up to there."""
    whole = texts.combine_chunks()
    if rises(whole):
        return np.arange(len(whole), dtype=np.int32)
    ranks = np.asarray(pc.rank(whole, tiebreaker="first")).astype(np.int64) - 1
    place_of = np.empty(len(ranks), np.int32)
    place_of[ranks] = np.arange(len(ranks), dtype=np.int32)
    found: NDArray[np.int32] = place_of[np.maximum.accumulate(ranks)]
    return found
