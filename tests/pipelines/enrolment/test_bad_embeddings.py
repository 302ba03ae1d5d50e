"""Bad stored embeddings through the command line: reasons, exit codes, and what is printed."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.enrolling import ALPHA, TOLERANCE, WIDTH, enroll, unit_vectors, write_embeddings
from support.table import assert_sound, generation_keys, open_tables, outcomes, rows

from pipelines.table import read
from pipelines.verification import probe

V = unit_vectors(8)
BAD: dict[str, tuple[list[Any], list[tuple[str, str]]]] = {
    "nan": ([np.full(WIDTH, np.nan)], [("failed", "not_finite")]),
    "one nan": ([np.append(V[0][1:], np.nan)], [("failed", "not_finite")]),
    "inf": ([V[0] * np.inf], [("failed", "not_finite")]),
    "zero": ([np.zeros(WIDTH)], [("failed", "zero_norm")]),
    "narrow": ([V[0][1:]], [("failed", "wrong_width")]),
    "wide": ([np.append(V[0], 0.5)], [("failed", "wrong_width")]),
    "null": ([None], [("failed", "wrong_width")]),
    "empty": ([[]], [("failed", "wrong_width")]),
    "opposed": ([V[1], -V[1]], [("failed", "faces_disagree")] * 2),
    "opposed and longer": ([V[2], -3 * V[2]], [("failed", "faces_disagree")] * 2),
    "copy of sound": ([V[7]], [("duplicate", "duplicate_other_subject")]),
}


def write_bad(path: Path) -> Path:
    listed = [("sound", V[7])]
    listed += [(name, vector) for name, (vectors, _) in BAD.items() for vector in vectors]
    # What is sound of a subject is used, whatever else there is of it.
    listed += [("partly", V[6]), ("partly", np.zeros(WIDTH)), ("partly", V[6])]
    return write_embeddings(path, [name for name, _ in listed], [vector for _, vector in listed])


FAILURES = sum(outcome == "failed" for _, found in BAD.values() for outcome, _ in found) + 1


@pytest.fixture
def source(tmp_path) -> Path:
    return write_bad(tmp_path / "e.parquet")


def test_each_has_its_reason_and_the_run_says_so(tmp_path, source):
    dest = tmp_path / "dest"
    answer = enroll(source, dest, "--shard-size=3", "--json")
    assert answer.code == 3
    found: dict[str, list[tuple[str, str]]] = {}
    for row in rows(dest, "inputs"):
        found.setdefault(row["subject_id"], []).append((row["outcome"], row["reason"]))
    assert {name: sorted(found.pop(name)) for name in BAD} == {k: v for k, (_, v) in BAD.items()}
    assert sorted(found.pop("partly")) == [
        ("duplicate", "duplicate_content"),
        ("failed", "zero_norm"),
        ("used", ""),
    ]
    assert found == {"sound": [("used", "")]}
    summary = json.loads(answer.out)
    assert (summary["failed"], summary["subjects_enrolled"]) == (FAILURES, 2)
    assert f"{FAILURES} inputs failed; see `ironmask failures {dest}`" in answer.err
    assert_sound(dest, pq.read_metadata(source).num_rows)


@pytest.mark.parametrize(("limit", "code"), [(FAILURES - 1, 3), (FAILURES, 0)])
def test_the_limit_of_failures(tmp_path, source, limit, code):
    answer = enroll(source, tmp_path / "dest", f"--max-failures={limit}")
    assert answer.code == code
    assert ("inputs failed" in answer.err) == (code == 3)


def test_duplicates_are_no_failures_and_who_has_nothing_else_is_not_enrolled(tmp_path):
    source = write_embeddings(tmp_path / "e.parquet", ["a", "a", "b"], [V[0], V[0], V[0]])
    answer = enroll(source, tmp_path / "dest", "--json")
    assert answer.code == 0, answer.err
    found = answer.json()
    assert (found["subjects_enrolled"], found["subjects_not_enrolled"]) == (1, 1)
    assert outcomes(tmp_path / "dest") == {
        ("used", ""): 1,
        ("duplicate", "duplicate_content"): 1,
        ("duplicate", "duplicate_other_subject"): 1,
    }


def test_nothing_sound_at_all(tmp_path):
    source = write_embeddings(tmp_path / "e.parquet", ["a", "b"], [V[0] * np.nan, 0 * V[1]])
    dest = tmp_path / "dest"
    assert enroll(source, dest).code == 3
    assert outcomes(dest) == {("failed", "not_finite"): 1, ("failed", "zero_norm"): 1}
    assert rows(dest, "templates") == []


def test_rows_without_any_embedding_are_refused(tmp_path):
    source = write_embeddings(tmp_path / "e.parquet", ["a", "b"], [None, None])
    answer = enroll(source, tmp_path / "dest")
    assert answer.code == 1
    assert answer.errors == [f"error: {source} holds no embeddings"]
    assert not (tmp_path / "dest").exists()


@pytest.mark.parametrize("width", [2, 63])
def test_embeddings_too_narrow_for_the_scheme_are_refused(tmp_path, width):
    vectors = unit_vectors(2, width=width)
    source = write_embeddings(tmp_path / "e.parquet", ["a", "b"], vectors)
    answer = enroll(source, tmp_path / "dest")
    assert answer.code == 2
    (error,) = answer.errors
    assert f"n is {width}" in error
    assert not (tmp_path / "dest").exists()


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        (pa.list_(pa.float64()), [1e300, *V[1][1:]]),
        (pa.list_(pa.float32()), [None, *V[1][1:]]),
        (pa.list_(pa.float16()), [np.inf, *V[1][1:]]),
        (pa.list_(pa.float32(), WIDTH), [np.nan, *V[1][1:]]),
    ],
    ids=["beyond float32", "null inside", "float16", "fixed size"],
)
def test_values_that_are_no_float32(tmp_path, kind, bad):
    cast = np.float16 if kind.value_type == pa.float16() else float
    vectors = [[x if x is None else cast(x) for x in vector] for vector in (V[0], bad)]
    table = pa.table({"subject_id": ["good", "bad"], "embedding": pa.array(vectors, kind)})
    source, dest = tmp_path / "e.parquet", tmp_path / "dest"
    pq.write_table(table, source)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        answer = enroll(source, dest)
    assert answer.code == 3, answer.err
    assert {row["subject_id"]: row["reason"] for row in rows(dest, "inputs")} == {
        "good": "",
        "bad": "not_finite",
    }


def test_the_extremes_of_length_are_only_directions(tmp_path):
    """Very long and very short embeddings protect and verify like their unit vectors."""
    scales = [1e-38, 1e-20, 1.0, 1e20, 1e37]
    source = write_embeddings(
        tmp_path / "e.parquet",
        [str(scale) for scale in scales],
        [V[k] * np.float64(s) for k, s in enumerate(scales)],
    )
    dest = tmp_path / "dest"
    answer = enroll(source, dest)
    assert answer.code == 0, answer.err
    table_id, keys = open_tables(dest).table_id, generation_keys(dest)
    for place, scale in enumerate(scales):
        row = read.find_row(open_tables(dest), str(scale))
        assert (row["alpha"], row["tolerance"]) == (ALPHA, TOLERANCE)
        probes = V[[place, (place + 1) % len(scales)]]
        assert probe.verify_embeddings(table_id, row, probes, keys) == [True, False]
