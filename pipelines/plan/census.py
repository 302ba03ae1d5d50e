"""Count the subjects of a source, and find names that may be mistakes.

It looks at the rows as they pass, before anything is written. It keeps sixteen bytes for each
subject, up to twice that where a subject's rows lie apart, and some MiB of names that are worth a
warning.
"""

from __future__ import annotations

import logging
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ironmask.errors import SourceError
from pipelines.spec.outcomes import Outcome, Reason
from pipelines.spec.template_job import SourceKind, TemplateJob

_log = logging.getLogger("ironmask.enrol")
# Limits: characters of names that are kept, and names that are shown.
_FIRST_HASHES: Final = 1 << 16
_KEPT_CHARACTERS: Final = 4 << 20
_SHOWN: Final = 5
_SHOWN_CHARACTERS: Final = 60
# Tables write these for a missing value. As text, one of them may be somebody's id.
_NO_VALUES: Final = frozenset({"nan", "none", "null", "nil", "n/a", "na", "<na>", "nat", "#n/a"})


class _Hashes:
    """Pairs of 64-bit hashes, told apart by the first of each. Some may come again."""

    def __init__(self) -> None:
        self._arrays = array("q"), array("q")
        self._most = _FIRST_HASHES

    def add(self, first: int, second: int = 0) -> None:
        for one, value in zip(self._arrays, (first, second), strict=True):
            one.append(value)
        if len(self._arrays[0]) > self._most:
            pairs = self._distinct()
            self._arrays = array("q", pairs[0].tobytes()), array("q", pairs[1].tobytes())
            self._most = max(_FIRST_HASHES, 2 * len(pairs[0]))

    def __len__(self) -> int:
        return len(self._distinct()[0])

    def seconds(self) -> NDArray[np.int64]:
        """The second hash of each pair."""
        return self._distinct()[1]

    def _distinct(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        # A copy: an array that is looked at cannot grow.
        first, second = (np.array(one, np.int64) for one in self._arrays)
        known, places = np.unique(first, return_index=True)
        return known, second[places]


class _Names:
    """Names that are worth a warning: their number, and the first of them."""

    def __init__(self) -> None:
        self.kept: dict[str, None] = {}
        self._hashes = _Hashes()
        self._characters = 0

    @property
    def count(self) -> int:
        return len(self._hashes)

    def add(self, name: str) -> None:
        self._hashes.add(hash(name))
        if name not in self.kept and self._characters < _KEPT_CHARACTERS:
            self.kept[name] = None
            self._characters += len(name)


@dataclass
class Census:
    """The subjects of a source, counted as its rows pass."""

    source: str
    kind: SourceKind
    inputs: int = 0
    usable: int = 0
    strays: int = 0
    _last: str = ""
    _hashes: _Hashes = field(default_factory=_Hashes)
    _odd: _Names = field(default_factory=_Names)
    _values: _Names = field(default_factory=_Names)
    _deep: _Names = field(default_factory=_Names)

    @property
    def people(self) -> int:
        """The number of subjects with an input that needs work."""
        return len(self._hashes)

    @classmethod
    def of(cls, job: TemplateJob) -> Census:
        """The census of a job's source."""
        return cls(job.source, job.kind)

    def passing(self, batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Pass on the rows of a source, tables of `sources.COLUMNS`, and count them."""
        for batch in batches:
            self._add(batch)
            yield batch

    def refuse_nobody(self) -> None:
        """Raise `SourceError` for a source that has entries, but none of a subject."""
        if self.usable or not self.inputs:
            return
        if self.strays:
            raise SourceError(
                f"{self.source}: none of its {self.strays:,} files lies in a folder of a person, "
                "so that nobody can be enrolled: put each person's images into a folder of their "
                "own, or give a manifest that says whose they are"
            )
        raise SourceError(
            f"{self.source}: all that it lists is hidden, empty or a link to elsewhere, so that "
            "nobody can be enrolled: check its address"
        )

    def warnings(self, *, named: bool) -> list[str]:
        """Possible mistakes, one line each. named: with names of subjects, to be shown only."""
        found = [self._similar(named), self._no_values(named), self._too_high(named)]
        return [line for line in found if line]

    def log(self) -> None:
        """Log the warnings without names."""
        for line in self.warnings(named=False):
            _log.warning("%s", line)

    def _add(self, batch: pa.Table) -> None:
        self.inputs += len(batch)
        skipped = pc.fill_null(pc.equal(batch["outcome"], Outcome.SKIPPED.value), False)
        self.usable += len(batch) - int(pc.sum(skipped).as_py() or 0)
        self.strays += int(pc.sum(pc.equal(batch["reason"], Reason.NO_SUBJECT.value)).as_py() or 0)
        open_rows = batch.filter(pc.is_null(batch["outcome"]))
        names = pc.unique(open_rows["subject_id"]).to_pylist()
        # A subject's rows mostly come together, but two batches may share them.
        for name in names[names[:1] == [self._last] :]:
            self._count(name)
        self._last = names[-1] if names else self._last
        if self.kind is SourceKind.FOLDER:
            self._look_deeper(open_rows)

    def _count(self, name: str) -> None:
        same = _canonical(name)
        self._hashes.add(hash(name), hash(same))
        if same != name:
            self._odd.add(name)
        if name.strip().casefold() in _NO_VALUES:
            self._values.add(name)

    def _look_deeper(self, rows: pa.Table) -> None:
        """Find subjects without images in their own folder, but with some in several below it."""
        base = f"{self.source.rstrip('/')}/"
        depth = pc.subtract(pc.count_substring(rows["uri"], "/"), base.count("/"))
        nearest = pa.table({"subject": rows["subject_id"], "depth": depth}).group_by("subject")
        deep = nearest.aggregate([("depth", "min")])
        deep = deep.filter(pc.greater(deep["depth_min"], 1))["subject"]
        if not len(deep):
            return
        chosen = rows.filter(pc.is_in(rows["subject_id"], deep.combine_chunks()))
        folders: defaultdict[str, set[str]] = defaultdict(set)
        for subject, uri in zip(
            *(chosen[n].to_pylist() for n in ("subject_id", "uri")), strict=True
        ):
            folders[subject].add(uri.removeprefix(base).split("/")[1])
        for subject, found in folders.items():
            if len(found) > 1:
                self._deep.add(subject)

    def _similar(self, named: bool) -> str:
        if not self._odd.count:
            return ""
        known, counts = np.unique(self._hashes.seconds(), return_counts=True)
        again = counts > 1
        twice = dict(zip(known[again].tolist(), counts[again].tolist(), strict=True))
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for name in self._odd.kept:
            if hash(_canonical(name)) in twice:
                groups[_canonical(name)].append(name)
        if not groups:
            return ""
        sets = [
            ([same] if twice[hash(same)] > len(odd) else []) + odd for same, odd in groups.items()
        ]
        return (
            f"{sum(map(len, sets)):,} subjects are told from others by blanks around their names "
            "or by Unicode forms alone, and become a template each"
            + _list([" and ".join(map(_shown, one[:_SHOWN])) for one in sets], named)
        )

    def _no_values(self, named: bool) -> str:
        if not self._values.count:
            return ""
        return (
            f"{self._values.count:,} subjects are called as tables call a value that is absent, "
            "and become a template" + _list([_shown(name) for name in self._values.kept], named)
        )

    def _too_high(self, named: bool) -> str:
        if not self._deep.count:
            return ""
        return (
            f"{self._deep.count:,} of {self.people:,} subjects have no image in their own folder, "
            "and some in several folders below it: where each of those is a person, SRC is a level "
            "too high, and strangers become one template"
            + _list([_shown(name) for name in self._deep.kept], named)
        )


def _canonical(name: str) -> str:
    return name.strip() if name.isascii() else unicodedata.normalize("NFC", name.strip())


def _shown(name: str) -> str:
    """A name in ASCII, so that look-alike characters differ."""
    return ascii(name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}...")


def _list(names: list[str], named: bool) -> str:
    if not named:
        return " (--dry-run names them)"
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f": {', '.join(names[:_SHOWN])}{more}"
