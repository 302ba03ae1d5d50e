"""A log that has grown long is cut during a run; nothing else changes."""

from __future__ import annotations

import pytest
from support.accounting import NOTHING, counts, row_set
from support.command import ironmask
from support.enrolling import PowerCutError, broken_after, enroll, request, run, several
from support.table import keys_of

SUBJECTS = 12


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.run.steps.WAVE_SHARDS", 1)
    monkeypatch.setattr("pipelines.table.log_seal.MOST_ENTRIES", 3)
    return several(tmp_path / "e.parquet", SUBJECTS)


def entries(dest, name: str) -> list[str]:
    return sorted(path.name for path in (dest / name / "_delta_log").glob("*.json"))


def test_a_run_keeps_few_entries(source, tmp_path):
    dest = tmp_path / "dest"
    run(request(source, dest, shard_size=2))
    assert all(len(entries(dest, name)) <= 4 for name in ("templates", "inputs"))
    assert int(entries(dest, "inputs")[-1][:20]) == SUBJECTS
    assert ironmask("check", dest, f"--keys={keys_of(dest)}").code == 0
    assert counts(dest, SUBJECTS * 2) == NOTHING


def test_a_run_that_was_broken_off_goes_on_with_what_is_left_of_the_log(source, tmp_path):
    dest, whole = tmp_path / "dest", tmp_path / "whole"
    with pytest.raises(PowerCutError):
        run(request(source, dest, shard_size=2), broken_after(7))
    assert enroll(source, dest, "--shard-size=2").code == 0
    run(request(source, whole, shard_size=2))
    assert row_set(dest) == row_set(whole)
    assert ironmask("check", dest, f"--keys={keys_of(dest)}").code == 0
