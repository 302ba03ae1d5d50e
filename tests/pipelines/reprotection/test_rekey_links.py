"""Who holds a table of before a `rekey`, and the one after it, cannot join rows by a value."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.command import ironmask
from support.enrolling import enroll, several
from support.table import data_files, keys_of

PEOPLE = 1100
SHARED_BY = 1000
# The operator's labels; and where a row lies, which the order of the files was drawn anew for.
LABELS = {"subject_id", "uri", "source_uris"}
PLACES = {"shard"}


def values(dest: Path, name: str) -> Counter[tuple[str, Any]]:
    """How many rows of a table's files have each value of a column."""
    found: Counter[tuple[str, Any]] = Counter()
    for path in data_files(dest, name):
        for row in pq.ParquetFile(path).read().to_pylist():
            for column, value in row.items():
                if column not in LABELS | PLACES and value not in (None, ""):
                    parts = value if isinstance(value, list) else [value]
                    found.update((column, part) for part in parts)
    return found


@pytest.mark.slow
def test_no_value_joins_old_and_new_rows(tmp_path: Path) -> None:
    dest, before = tmp_path / "table", tmp_path / "before"
    assert enroll(several(tmp_path / "e.parquet", PEOPLE), dest).code == 0
    shutil.copytree(dest, before)
    old_inputs = {path.name for path in data_files(before, "inputs")}
    answer = ironmask("rekey", dest, f"--keys={keys_of(dest)}", "--executor=local")
    assert answer.code == 0, answer.err
    for path in data_files(dest, "inputs"):
        if path.name in old_inputs:
            path.unlink()  # the outcomes of the run before are in both
    for name in ("templates", "inputs"):
        old, new = values(before, name), values(dest, name)
        assert len(new) > PEOPLE
        shared = {value: min(old[value], new[value]) for value in old.keys() & new.keys()}
        assert shared
        assert {value: count for value, count in shared.items() if count < SHARED_BY} == {}
