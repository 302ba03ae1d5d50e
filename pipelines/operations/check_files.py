"""What the checks of a destination share: its facts, what was found, and its files, read once."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from threading import Lock
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from ironmask.errors import IronmaskError
from ironmask.params import Params
from pipelines.ports import GenerationKeys, Store, Tables
from pipelines.table import layout, waves
from pipelines.table.data_files import is_intact, remedy
from pipelines.table.grouped_files import OWNER, footer_of
from pipelines.table.layout import Attempt

Keys = Callable[[int], GenerationKeys]
SHARD_TABLES: Final = ("inputs", "templates")
_KEPT: Final = 8
# Paths of inputs and of templates, in their tables.
Pair = tuple[str | None, str | None]
Files = dict[str, dict[str, int]]
"""Bytes of each listed file, by table and path."""


@dataclass(frozen=True)
class Scope:
    """The facts that all checks of one destination share.

    keys: those of a generation, by number. key_states: for each generation in the keyset file, its
    key id and whether its keys are there. without: runs whose templates were destroyed since.
    params: by run, those that it recorded.
    """

    tables: Tables
    table_id: str
    store: Store
    keys: Keys = field(repr=False)
    deep: bool
    key_states: Mapping[int, tuple[str, bool]] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    params: Mapping[str, Params] = field(default_factory=dict)


@dataclass
class Seen:
    """The findings and counts of a part of a destination.

    subjects: 16-byte BLAKE2b hashes of the templates' subjects, end to end, by generation; not
    for `add`. gone: for each run, templates that were erased since, or whose files were lost.
    """

    findings: list[str] = field(default_factory=list)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    subjects: dict[int, bytearray] = field(default_factory=dict)
    templates: Counter[str] = field(default_factory=Counter)
    gone: Counter[str] = field(default_factory=Counter)
    opened: int = 0
    files: int = 0
    size: int = 0

    def add(self, other: Seen) -> None:
        self.findings += other.findings
        self.outcomes += other.outcomes
        self.templates += other.templates
        self.gone += other.gone
        self.opened += other.opened
        self.files += other.files
        self.size += other.size


class Outcomes:
    """The rows of files of `inputs`, which several threads ask for shard by shard.

    Those of one file are asked for one after another, so a few files are kept.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[str, pa.Table | None] = OrderedDict()
        self._met: set[str] = set()

    def of(self, scope: Scope, seen: Seen, path: str, shard: int) -> pa.Table | None:
        """The rows of a shard; None where the file was changed. Its first reading is noted."""
        if layout.parse_wave_file(path) is None:
            return read_rows(scope, seen, "inputs", path)
        with self._lock:
            if path not in self._kept:
                self._kept[path] = self._whole(scope, seen, path)
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            rows = self._kept[path]
        return None if rows is None else waves.of_shards(path, rows, [shard])

    def _whole(self, scope: Scope, seen: Seen, path: str) -> pa.Table | None:
        own = seen if path not in self._met else Seen()
        self._met.add(path)
        rows = read_rows(scope, own, "inputs", path)
        if rows is not None:
            own.findings += _of_others(scope, path, rows)
        return rows


def _of_others(scope: Scope, path: str, rows: pa.Table) -> Iterator[str]:
    uri = layout.join(scope.tables.table("inputs").uri, path)
    try:
        attempts = waves.attempts_in(scope.store, uri)
    except IronmaskError as error:
        yield str(error)
        return
    found = rows.group_by(["run_id", "shard"]).aggregate([]).to_pylist()
    if not {(row["run_id"], row["shard"]) for row in found} <= {one[:2] for one in attempts}:
        yield f"inputs/{path}: its rows belong to another run or shard"


def check_file(scope: Scope, name: str, path: str) -> Seen:
    """Check a file whose rows belong to no shard."""
    seen = Seen()
    read_rows(scope, seen, name, path)
    return seen


def check_untold(scope: Scope, path: str, why: str) -> Seen:
    """Check a file of inputs that cannot say of which shards it is. why: the reason."""
    seen = check_file(scope, "inputs", path)
    uri = layout.join(scope.tables.table("inputs").uri, path)
    if not seen.findings and scope.store.exists(uri):
        seen.findings.append(why)
    return seen


def read_rows(scope: Scope, seen: Seen, name: str, path: str) -> pa.Table | None:
    """The rows of a data file. None where the file was changed; this is noted."""
    uri = layout.join(scope.tables.table(name).uri, path)
    seen.files += 1
    try:
        content = scope.store.read(uri)
    except FileNotFoundError:
        return None  # found when the files were listed
    except IronmaskError as error:
        seen.findings.append(str(error))
        return None
    seen.size += len(content)
    if not is_intact(path, content):
        people = scope.tables.table(name).counts().get(path)
        seen.findings.append(
            f"{uri}: its content is not what was written: {remedy(uri, path, people)}"
        )
        return None
    try:
        parquet = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        # An Arrow thread that frees a buffer while the interpreter ends aborts the process.
        table = parquet.read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        seen.findings.append(f"{uri} cannot be read as Parquet ({type(error).__name__})")
        return None
    named = layout.parse_shard_file(path)
    footer = footer_of(content) if named and named.groups else None
    if footer and list(chain.from_iterable(footer.owners)) != table[OWNER].to_pylist():
        seen.findings.append(f"{uri}: its footer names other people than its rows do")
    return table


def pairs_of(
    scope: Scope, listed: Files, findings: list[str], untold: dict[str, str]
) -> dict[Attempt, Pair]:
    """The files of each attempt. untold: filled with files of inputs that cannot say theirs."""
    pairs: dict[Attempt, Pair] = {}
    for name in SHARD_TABLES:
        strange = (path for path in listed[name] if layout.run_of(path) is None)
        findings += [f"{name}/{p} is listed and has no name of a shard's file" for p in strange]

    def wrong(path: str, error: Exception) -> None:
        untold[path] = str(error)

    for path, own in waves.of_files(scope.tables, scope.store, listed["inputs"], wrong):
        if twice := len(pairs.keys() & set(own)):
            findings.append(f"inputs/{path}: {twice:,} of its shards have another file as well")
        pairs |= dict.fromkeys(own, (path, None))
    for path in listed["templates"]:
        if file := layout.parse_shard_file(path):
            key = layout.attempt_of(file)
            pairs[key] = (pairs.get(key, (None, None))[0], path)
    return pairs
