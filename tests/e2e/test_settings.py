"""A setting chosen by its false match rate, from the list to a table, by the installed command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.command import Answer, command
from support.enrolling import captures, unit_vectors, write_embeddings

WIDTH = 512
HERE = ("--executor", "local", "--keys", "keys.json")
COLUMNS = ("n", "code_width", "structure", "alpha", "tolerance")


def ran(folder: Path, *words: object) -> Answer:
    answer = command(folder, *words)
    assert answer.code == 0, answer.err
    return answer


def chosen(folder: Path, *options: object) -> dict[str, Any]:
    told = ran(folder, "settings", *options, "--json").json()
    (one,) = [row for row in told["settings"] if row["chosen"]]
    return {"n": WIDTH, **one}


def enrolled(folder: Path) -> list[dict[str, Any]]:
    """The parameters of the rows that lie in a table; those of old generations are destroyed."""
    files = [pq.ParquetFile(path) for path in folder.glob("table/templates/**/*.parquet")]
    return [row for file in files for row in file.read(COLUMNS).to_pylist()]


@pytest.mark.slow
def test_what_is_listed_is_what_is_enrolled(tmp_path):
    vectors = captures(unit_vectors(3, width=WIDTH), 2)
    write_embeddings(tmp_path / "faces.parquet", [f"s{row // 2}" for row in range(6)], vectors)
    strict = chosen(tmp_path, "--fmr", "1e-6", "--floor-bits", 100)
    lax = chosen(tmp_path, "--fmr", "1e-4", "--photos", 2)
    assert strict["bits"] >= 100
    assert lax["tar"] > strict["tar"]
    assert lax["fmr"] > strict["fmr"]
    asked = ("--fmr", "1e-6", "--floor-bits", 100)
    first = ran(tmp_path, "enroll", "faces.parquet", "table", *HERE, *asked)
    assert "chosen by --fmr: n 512" in first.err
    assert "w600k_mbf on LFW, 1 photo enrolled" in first.err
    rows = enrolled(tmp_path)
    assert len(rows) == 3
    assert all(row[name] == strict[name] for row in rows for name in COLUMNS)
    # Chosen again, it is the same; named beside, it is refused.
    ran(tmp_path, "enroll", "faces.parquet", "table", *HERE, *asked)
    both = command(tmp_path, "enroll", "faces.parquet", "new", *HERE, *asked, "--alpha", 16)
    assert (both.code, len(both.errors)) == (2, 1)
    assert "leave --alpha out" in both.errors[0]
    ran(tmp_path, "reprotect", "table", *HERE, "--fmr", "1e-4", "--photos", 2)
    rows = enrolled(tmp_path)
    assert all(row[name] == lax[name] for row in rows for name in COLUMNS)
