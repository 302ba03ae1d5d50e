"""Temporary files of a plan: nameless, and a full disk says where and what to do."""

from __future__ import annotations

import errno
import os
import tempfile

import pyarrow as pa
import pytest

from ironmask.errors import StorageError
from pipelines.plan.arrange import SCHEMA, rows_of_file
from pipelines.table.spool import explained, spool


def test_it_holds_what_is_written_and_has_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with spool() as file:
        file.write(b"rows")
        file.seek(0)
        assert file.read() == b"rows"
        assert os.listdir(tmp_path) == []
    assert file.closed


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    said = rf"{tmp_path}: No space left on device: make room"
    with pytest.raises(StorageError, match=said), spool():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_no_folder_for_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(StorageError, match="TMPDIR"), spool():
        raise AssertionError("it was made")


def test_an_error_that_is_explained_stays_itself():
    told = StorageError("s3://b/k: access denied")
    with pytest.raises(StorageError) as caught, explained():
        raise told
    assert caught.value is told


def test_other_errors_are_not_taken_for_it():
    with pytest.raises(ValueError, match="not ours"), explained():
        raise ValueError("not ours")


class TestRowsOfAFile:
    """A shard of inputs that lie together in a file."""

    def test_each_row_names_the_files(self):
        rows = pa.table({"uri": ["1", "2"], "subject_id": ["ann", "bob"], "more": [1, 2]})
        found = rows_of_file(rows, 7, "templates.parquet", "inputs.parquet")
        assert found.schema.equals(SCHEMA)
        for number, one in enumerate(found.to_pylist()):
            assert one["subject_id"] == ["ann", "bob"][number]
            assert one["uri"] == str(number + 1)
            assert (one["shard"], one["detail"]) == (7, "templates.parquet")
            assert one["content"] == "inputs.parquet"
            assert one["outcome"] is None

    def test_without_a_second_file_there_is_none(self):
        rows = pa.table({"uri": ["1"], "subject_id": ["ann"]})
        assert rows_of_file(rows, 0, "vault.parquet")["content"].to_pylist() == [None]

    def test_rows_in_several_chunks_are_one_shard(self):
        one = pa.table({"uri": ["1"], "subject_id": ["ann"]})
        found = rows_of_file(pa.concat_tables([one, one]), 0, "f")
        assert len(found) == 2

    def test_of_no_rows_none(self):
        rows = pa.table({"uri": pa.array([], "string"), "subject_id": pa.array([], "string")})
        assert rows_of_file(rows, 0, "f").schema.equals(SCHEMA)
