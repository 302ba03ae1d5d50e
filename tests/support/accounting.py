"""What a destination on a local disk holds, counted apart from the product's own reader.

The lists of files come from `deltalake`, the rows from DuckDB's Parquet reader, and what is on
disk from the folders themselves.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
from deltalake import DeltaTable

DATA_TABLES = ("templates", "inputs")
# What no two runs share: identities, times, keys and what is encrypted under them.
OWN = {"template_id", "run_id", "enrolled_at", "helper", "digests", "key_id", "details"}
_SHARD = re.compile(r"part-([0-9a-f]{12})-(\d+)-")
_WAVE = re.compile(r"wave-[0-9a-f]{12}-(\d+)-")
Row = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Counts:
    """What must be zero of every destination after a run that ended well.

    lost: planned inputs without an outcome row. duplicated: rows beyond one for an input of a run.
    second_issues: templates beyond one for a person in a generation. stray_files: data files, whole
    or partial, that no log lists.
    """

    lost: int
    duplicated: int
    second_issues: int
    stray_files: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.lost + other.lost,
            self.duplicated + other.duplicated,
            self.second_issues + other.second_issues,
            self.stray_files + other.stray_files,
        )


NOTHING = Counts(0, 0, 0, 0)


def counts(dest: Path, planned: Collection[str] | int) -> Counts:
    """Count a destination. planned: addresses of the inputs, or how many different ones."""
    settled = _column_sets(dest, "inputs", "run_id, uri")
    issued = _column_sets(dest, "templates", "subject_id, generation")
    seen = {uri for _, uri in settled}
    lost = planned - len(seen) if isinstance(planned, int) else len(set(planned) - seen)
    return Counts(
        lost=max(0, lost),
        duplicated=settled.total() - len(settled),
        second_issues=issued.total() - len(issued),
        stray_files=sum(len(strays(dest, name)) for name in DATA_TABLES),
    )


def row_set(dest: Path) -> dict[str, list[Row]]:
    """The rows of templates and inputs, sorted, without what two runs of one job cannot share."""
    return {name: sorted(map(_comparable, _rows(dest, name, "*"))) for name in DATA_TABLES}


def uncommitted(dest: Path) -> int:
    """Shards whose templates are written and not committed: finished work that a kill has lost."""
    found = (_SHARD.match(path.name) for path in strays(dest, "templates"))
    return len({match.groups() for match in found if match})


def committed(dest: Path) -> int:
    """Shards whose outcomes the log lists."""
    names = [path.name for path in listed(dest, "inputs")]
    alone = {match.groups() for name in names if (match := _SHARD.match(name))}
    return len(alone) + sum(int(match[1]) for name in names if (match := _WAVE.match(name)))


def listed(dest: Path, name: str) -> set[Path]:
    """The data files that a table's log lists; none where there is no table yet."""
    folder = dest / name
    if not DeltaTable.is_deltatable(str(folder)):
        return set()
    actions = DeltaTable(str(folder)).get_add_actions(flatten=True)
    return {folder / unquote(path) for path in actions["path"].to_pylist()}


def strays(dest: Path, name: str) -> set[Path]:
    """Data files under a table, whole or partial, that its log does not list."""
    folder = dest / name
    found = [*folder.rglob("*.parquet"), *folder.rglob(".part-*")]
    ours = {path for path in found if "_delta_log" not in path.relative_to(folder).parts}
    return ours - listed(dest, name)


def _rows(dest: Path, name: str, columns: str) -> list[dict[str, Any]]:
    files = sorted(map(str, listed(dest, name)))
    if not files:
        return []
    query = f"SELECT {columns} FROM read_parquet($1, hive_partitioning = true)"
    with duckdb.connect() as connection:
        found = connection.execute(query, [files])
        names = [column[0] for column in found.description or []]
        return [dict(zip(names, values, strict=True)) for values in found.fetchall()]


def _column_sets(dest: Path, name: str, columns: str) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(row.values()) for row in _rows(dest, name, columns))


def _comparable(row: dict[str, Any]) -> Row:
    kept = {name: value for name, value in row.items() if name not in OWN}
    # Identities are keyed with the table's keys.
    kept["identities"] = len(kept.get("identities") or [])
    return tuple(sorted((name, repr(value)) for name, value in kept.items()))
