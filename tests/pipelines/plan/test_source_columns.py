"""Columns of a source that hold something else than they should: refused, or read exactly."""

from __future__ import annotations

import datetime
import decimal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import cases
from support.enrolling import WIDTH, enroll, unit_vectors
from support.table import outcomes, rows

from ironmask.errors import SourceError
from pipelines.plan.tabular import texts

VECTORS = unit_vectors(4)
LISTS = pa.array([list(map(float, v)) for v in VECTORS], pa.list_(pa.float32()))
NAMES = pa.array(list("abcd"))


def stored(path: Path, *columns: tuple[str, Any]) -> Path:
    pq.write_table(pa.table([c for _, c in columns], names=[n for n, _ in columns]), path)
    return path


def refused(source: Path, dest: Path, *words: str) -> None:
    """One line, exit 1, and nothing written."""
    answer = enroll(source, dest)
    assert answer.code == 1, answer.err
    (error,) = answer.errors
    assert str(source) in error
    for word in words:
        assert word in error
    assert not dest.exists()


@pytest.mark.parametrize(
    "name",
    ["decimal", "list_view", "nested", "null_type", "numpy_bytes", "struct", "text", "all_null"],
)
def test_a_case_of_embeddings_that_are_refused(face_data, tmp_path, name):
    source = cases.make(face_data, "05", tmp_path / "case") / f"{name}.parquet"
    refused(source, tmp_path / "dest", "embedding")


@pytest.mark.slow
def test_the_other_cases_of_embeddings(face_data, tmp_path):
    folder = cases.make(face_data, "05", tmp_path / "case")
    for name in ("list_subject", "struct_subject", "twice_subject"):
        refused(folder / f"{name}.parquet", tmp_path / "none", "subject_id")
    refused(folder / "twice_embedding.parquet", tmp_path / "none", "embedding more than once")
    sound = ["list_double", "large_list", "fsl_f16", "list_f16", "int8", "uint8", "dict_subject"]
    sound += ["large_string", "string_view", "binary_subject", "dict_image", "null_image"]
    sound += ["tiny_norm", "pandas_index"]
    owners = None
    for name in sound:
        answer = enroll(folder / f"{name}.parquet", tmp_path / name)
        assert answer.code == 0, answer.err
        found = {row["subject_id"] for row in rows(tmp_path / name, "templates")}
        assert len(found) == 4
        assert owners in (None, found)
        owners = found
    partly = {"mixed_width": "wrong_width", "null_elements": "not_finite"}
    for name, reason in {**partly, "f64_overflow": "not_finite"}.items():
        assert enroll(folder / f"{name}.parquet", tmp_path / name).code == 3
        assert outcomes(tmp_path / name)["failed", reason]
        assert len(rows(tmp_path / name, "templates")) == (4 if name in partly else 0)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([True] * 4),
        pa.array([[True]] * 4),
        pa.array([{"x": 1.0}] * 4),
        pa.array([datetime.date(2000, 1, 1)] * 4),
        pa.array([[datetime.date(2000, 1, 1)]] * 4),
        pa.array(["[1, 2]"] * 4).dictionary_encode(),
        pa.array([[("a", 1.0)]] * 4, pa.map_(pa.string(), pa.float32())),
    ],
    ids=str,
)
def test_what_holds_no_embeddings(tmp_path, column):
    source = stored(tmp_path / "e.parquet", ("subject_id", NAMES), ("embedding", column))
    refused(source, tmp_path / "dest", "embedding must hold lists of floats, not")


@pytest.mark.parametrize(
    "columns",
    [
        [("subject_id", NAMES), ("embedding", LISTS), ("embedding", NAMES)],
        [("subject_id", NAMES), ("subject_id", NAMES), ("embedding", LISTS)],
        [("embedding", LISTS)],
        [("subject_id", pa.array([b"x" * 16] * 4, pa.binary(16))), ("embedding", LISTS)],
        [("subject_id", pa.array([True, False] * 2)), ("embedding", LISTS)],
        [("subject_id", pa.array([b"\xe9"] * 4)), ("embedding", LISTS)],
    ],
    ids=["twice", "twice the subject", "no subject", "bytes of fixed size", "bool", "latin-1"],
)
def test_columns_that_cannot_be_told(tmp_path, columns):
    answer = enroll(stored(tmp_path / "e.parquet", *columns), tmp_path / "dest")
    assert (answer.code, len(answer.errors)) == (1, 1), answer.err
    assert not (tmp_path / "dest" / "templates").exists() or not rows(
        tmp_path / "dest", "templates"
    )


def test_another_column_may_be_there_twice(tmp_path):
    columns = [("subject_id", NAMES), ("note", NAMES), ("embedding", LISTS), ("note", NAMES)]
    assert enroll(stored(tmp_path / "e.parquet", *columns), tmp_path / "dest").code == 0


def test_the_cases_of_subject_ids(face_data, tmp_path):
    folder = cases.make(face_data, "21", tmp_path / "case")
    for name in ("float_big", "float16digits", "bool", "uuid_fixed_binary"):
        refused(folder / f"{name}.parquet", tmp_path / "none", "subject_id")
    numbers = {"1001", "1002", "1003", "1004"}
    owners = {
        "int64": numbers,
        "dict_int": numbers,
        "float_nan_pandas": numbers,
        "float_nan_not_null": numbers,
        "decimal": {f"{number}.00" for number in numbers},
    }
    refused(folder / "empty_and_blank.parquet", tmp_path / "none", "no embedding of anybody")
    for name, wanted in owners.items():
        enroll(folder / f"{name}.parquet", tmp_path / name, "--no-agreement")
        assert {row["subject_id"] for row in rows(tmp_path / name, "templates")} == wanted, name


NAN, HUGE = float("nan"), 2.0**53


@pytest.mark.parametrize(
    ("column", "wanted"),
    [
        (pa.array([7.0, None, NAN, -3.0, -0.0]), ["7", "", "", "-3", "0"]),
        (pa.array([2.0**24 - 1, NAN], pa.float32()), ["16777215", ""]),
        (pa.array([2047.0], pa.float16()), ["2047"]),
        (pa.array([2**63 - 1, -(2**63)]), [str(2**63 - 1), str(-(2**63))]),
        (pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)]),
        (pa.array([decimal.Decimal(10**30)]), [str(10**30)]),
        (pa.array([1.0, NAN, 1.0]).dictionary_encode(), ["1", "", "1"]),
        (pa.array(["nan", "NA", " a ", "\t", "\u00a0", ""]), ["nan", "NA", " a ", "", "", ""]),
        (pa.nulls(2), ["", ""]),
        (pa.chunked_array([[1.0], [NAN]]), ["1", ""]),
    ],
    ids=str,
)
def test_ids_as_text(column, wanted):
    assert texts("e.parquet", "subject_id", column).to_pylist() == wanted


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.5]),
        pa.array([1.0, HUGE]),
        pa.array([-HUGE]),
        pa.array([1e10]),
        pa.array([np.inf]),
        pa.array([2.0**24], pa.float32()),
        pa.array([2048.0], pa.float16()),
        pa.array([1e300]).dictionary_encode(),
        pa.chunked_array([[1.0], [0.1]]),
    ],
    ids=str,
)
def test_floats_that_are_no_exact_integers(column):
    with pytest.raises(SourceError, match=r"e\.parquet: the column subject_id holds floats"):
        texts("e.parquet", "subject_id", column)


def test_inexact_floats_anywhere_in_a_file_are_refused_before_anything_is_written(tmp_path):
    ids = np.arange(9000, dtype=np.float64)
    ids[8999] = 0.5
    lists = pa.FixedSizeListArray.from_arrays(pa.array(unit_vectors(9000).ravel()), WIDTH)
    columns = ("subject_id", pa.array(ids)), ("embedding", lists)
    refused(stored(tmp_path / "e.parquet", *columns), tmp_path / "dest", "floats (double)")
    columns = ("subject_id", pa.array(ids)), ("uri", pa.array(["a.jpg"] * 9000))
    refused(stored(tmp_path / "m.parquet", *columns), tmp_path / "dest", "floats (double)")


def test_nan_is_nobody_in_a_manifest_and_in_a_file_of_embeddings(tmp_path):
    ids = pa.array([1.0, NAN, 1.0, NAN])
    source = stored(tmp_path / "e.parquet", ("subject_id", ids), ("embedding", LISTS))
    assert enroll(source, tmp_path / "dest", "--no-agreement").code == 3
    assert Counter(row["subject_id"] for row in rows(tmp_path / "dest", "templates")) == {"1": 1}
    assert outcomes(tmp_path / "dest") == {("used", ""): 2, ("failed", "no_subject"): 2}
