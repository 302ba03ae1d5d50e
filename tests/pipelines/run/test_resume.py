"""What a broken-off run leaves behind, and the ways on from there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from support.enrolling import (
    PowerCutError,
    after_first,
    before_commit_of,
    broken_after,
    enroll,
    request,
    run,
    several,
    unit_vectors,
    write_embeddings,
)
from support.table import (
    assert_sound,
    data_files,
    generation_keys,
    keys_of,
    open_tables,
    outcomes,
    rows,
)

from infra.store.delta import DeltaTableHandle
from ironmask.errors import BusyError, MismatchError, SourceError
from pipelines.table import layout
from pipelines.verification import probe


@pytest.fixture(autouse=True)
def _small_waves(monkeypatch):
    monkeypatch.setattr("pipelines.run.steps.WAVE_SHARDS", 1)


def break_off(asked, shards: int = 1) -> None:
    with pytest.raises(PowerCutError):
        run(asked, executor=broken_after(shards))


def cut_between_templates_and_inputs(asked, monkeypatch) -> None:
    """End a run inside its first wave: templates are committed, their inputs are not."""
    with monkeypatch.context() as broken:
        broken.setattr(DeltaTableHandle, "commit", before_commit_of("inputs"))
        with pytest.raises(PowerCutError):
            run(asked)


def test_a_resumed_run_does_the_rest_once(tmp_path):
    dest = tmp_path / "dest"
    asked = request(several(tmp_path / "e.parquet", 8), dest)
    break_off(asked)
    kept = {row["template_id"] for row in rows(dest, "templates")}
    summary = run(asked)
    assert summary.resumed_shards == 1
    assert kept < {row["template_id"] for row in rows(dest, "templates")}
    assert_sound(dest, 16)
    assert [row["state"] for row in sorted(rows(dest, "runs"), key=lambda r: r["at"])] == [
        "running",
        "complete",
    ]
    assert len(rows(dest, "metrics")) == 2


def test_templates_whose_inputs_were_not_committed_are_completed(tmp_path, monkeypatch):
    dest = tmp_path / "dest"
    asked = request(several(tmp_path / "e.parquet", 8), dest)
    cut_between_templates_and_inputs(asked, monkeypatch)
    assert len(rows(dest, "templates")) == 2
    assert rows(dest, "inputs") == []
    kept = {row["template_id"] for row in rows(dest, "templates")}
    run(asked)
    assert kept < {row["template_id"] for row in rows(dest, "templates")}
    assert_sound(dest, 16)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"shard_size": 6}, r"configuration \(shard_size: 4 then, 6 now\)"),
        ({"encoding": "float32"}, "encoding is int8.1 there and float32.1 here"),
        ({"alpha": 13}, "alpha is 12 there and 13 here"),
        ({"centring": "regression"}, "centring is mean there and regression here"),
        ({"model": "other"}, "model is declared:unknown there and declared:other here"),
    ],
)
def test_another_job_is_refused_by_what_differs(tmp_path, change, named):
    dest = tmp_path / "dest"
    source = several(tmp_path / "e.parquet", 8)
    break_off(request(source, dest))
    before = rows(dest, "templates")
    with pytest.raises(MismatchError, match=named):
        run(request(source, dest, **change))
    assert rows(dest, "templates") == before
    run(request(source, dest))
    assert_sound(dest, 16)


def test_other_versions_are_refused(tmp_path, monkeypatch):
    dest = tmp_path / "dest"
    asked = request(several(tmp_path / "e.parquet", 8), dest)
    break_off(asked)
    monkeypatch.setattr("pipelines.run.begin.versions", lambda: {"ironmask": "9"})
    with pytest.raises(MismatchError, match="started with another code"):
        run(asked)
    run(request(tmp_path / "e.parquet", dest, restart=True))
    assert_sound(dest)


def test_what_a_killed_planning_left_is_removed(tmp_path):
    dest = tmp_path / "dest"
    run(request(several(tmp_path / "e.parquet", 4), dest))
    plans = dest / layout.PRIVATE / "plans"
    (kept,) = plans.iterdir()
    lost, other = plans / ("0" * 12), plans / "mine"
    for folder in (lost, other):
        folder.mkdir()
        (folder / "part-00000.parquet").write_bytes(b"begun")
    (lost / "notes.txt").write_text("somebody's own")
    run(request(several(tmp_path / "e.parquet", 8), dest))
    assert [path.name for path in lost.iterdir()] == ["notes.txt"]
    assert (other / "part-00000.parquet").exists()
    assert sorted(path.name for path in kept.iterdir()) == ["part-00000.parquet", "plan.json"]


def test_a_plan_that_was_edited_is_refused(tmp_path):
    import pyarrow.parquet as pq

    dest = tmp_path / "dest"
    asked = request(several(tmp_path / "e.parquet", 8), dest)
    break_off(asked)
    (path,) = (dest / layout.PRIVATE / "plans").glob("*/*.parquet")
    table = pq.read_table(path)
    swapped = table["subject_id"].take(np.arange(len(table))[::-1])
    table = table.set_column(0, table.schema.field(0), swapped)
    with pq.ParquetWriter(path, table.schema) as writer:
        for shard in range(4):
            writer.write_table(table.slice(4 * shard, 4))
    with pytest.raises(MismatchError, match="started with another plan"):
        run(asked)


def test_rows_that_moved_meanwhile_never_reach_another_person(tmp_path):
    """The export is made again, in another order, between the cut and the resume."""
    dest = tmp_path / "dest"
    vectors = unit_vectors(8)
    names = [f"s{n}" for n in range(8)]
    source = write_embeddings(tmp_path / "e.parquet", names, vectors)
    asked = request(source, dest, shard_size=2)
    break_off(asked)
    write_embeddings(source, names[::-1], vectors[::-1])
    with pytest.raises(MismatchError, match="started with another source"):
        run(asked)
    run(request(source, dest, shard_size=2, restart=True))
    assert_sound(dest)
    keys, table_id = generation_keys(dest), open_tables(dest).table_id
    for row in rows(dest, "templates"):
        answers = probe.verify_embeddings(table_id, row, vectors, keys)
        assert answers == [name == row["subject_id"] for name in names]


def test_a_source_that_is_replaced_while_it_is_read(tmp_path):
    dest = tmp_path / "dest"
    source = several(tmp_path / "e.parquet", 8)

    replaces = after_first(lambda: several(source, 8, seed=5))
    with pytest.raises(SourceError, match="was replaced after the run was planned"):
        run(request(source, dest), executor=replaces)
    assert len(rows(dest, "templates")) == 2


def test_restart_keeps_what_was_committed(tmp_path):
    dest = tmp_path / "dest"
    source = several(tmp_path / "e.parquet", 8)
    break_off(request(source, dest), shards=2)
    kept = {row["template_id"] for row in rows(dest, "templates")}
    summary = run(request(source, dest, shard_size=6, restart=True))
    assert summary.reasons == {"already_enrolled": 8}
    assert kept < {row["template_id"] for row in rows(dest, "templates")}
    owners = [row["subject_id"] for row in rows(dest, "templates")]
    assert sorted(owners) == sorted(set(owners)) == [f"s{n:03d}" for n in range(8)]
    states = [(row["run_id"], row["state"]) for row in rows(dest, "runs")]
    assert sorted(state for _, state in states) == ["closed", "complete", "running", "running"]


def test_restart_completes_an_interrupted_wave_first(tmp_path, monkeypatch):
    dest = tmp_path / "dest"
    source = several(tmp_path / "e.parquet", 8)
    cut_between_templates_and_inputs(request(source, dest), monkeypatch)
    run(request(source, dest, restart=True))
    assert outcomes(dest) == {("used", ""): 16, ("skipped", "already_enrolled"): 4}
    assert_sound(dest)


def test_an_empty_closed_run_binds_nobody(tmp_path):
    dest = tmp_path / "dest"
    source = several(tmp_path / "e.parquet", 8)
    break_off(request(source, dest), shards=0)
    run(request(source, dest, alpha=14, restart=True))
    assert {row["alpha"] for row in rows(dest, "templates")} == {14}


def test_who_lost_the_destination_commits_nothing_more(tmp_path):
    dest = tmp_path / "dest"
    source = several(tmp_path / "e.parquet", 8)

    lost: list[bool] = []

    def check() -> None:
        if lost:
            raise BusyError("taken over")

    from dataclasses import replace

    from pipelines.enrolment import hold
    from pipelines.enrolment import request as enrolment_request
    from pipelines.run.course import follow
    from pipelines.run.template_run import STEPS

    asked, loses = request(source, dest), after_first(lambda: lost.append(True))
    with hold.opened(asked, enrolment_request.prepare(asked)) as held:
        taken = replace(held.dest, check=check)
        with pytest.raises(BusyError):
            follow(STEPS, replace(held, dest=taken, executor=loses(held.executor)))
    assert len(rows(dest, "templates")) == 2
    assert len(data_files(dest, "templates")) == 2


def test_a_dry_run_tells_of_the_unfinished_run(tmp_path):
    dest = tmp_path / "dest"
    source = several(tmp_path / "e.parquet", 8)
    break_off(request(source, dest))
    run_id = rows(dest, "runs")[0]["run_id"]
    answer = enroll(source, dest, "--shard-size=4", "--dry-run")
    assert answer.code == 0
    assert "continues run" in answer.out
    assert run_id in answer.out
    answer = enroll(source, dest, "--shard-size=8", "--dry-run")
    assert answer.code == 1
    assert "shard_size: 4 then, 8 now" in answer.err


class TestClocks:
    def test_a_closed_run_stays_closed_whatever_the_time(self, tmp_path, monkeypatch):
        """One machine's clock was ahead when the run that is closed here was planned there."""
        dest = tmp_path / "dest"
        source = several(tmp_path / "e.parquet", 8)
        later = datetime.now(UTC) + timedelta(minutes=10)

        class Ahead(datetime):
            @classmethod
            def now(cls, tz=None):
                return later

        with monkeypatch.context() as ahead:
            ahead.setattr("pipelines.table.run_records.datetime", Ahead)
            break_off(request(source, dest))
        run(request(source, dest, restart=True))
        assert run(request(source, dest)).reasons == {"already_enrolled": 16}
        assert_sound(dest)


class TestRestart:
    def test_a_refusal_closes_nothing(self, tmp_path):
        dest = tmp_path / "dest"
        source = several(tmp_path / "e.parquet", 8)
        break_off(request(source, dest))
        with pytest.raises(MismatchError, match="alpha is 12 there and 14 here"):
            run(request(source, dest, alpha=14, restart=True))
        assert {row["state"] for row in rows(dest, "runs")} == {"running"}
        assert run(request(source, dest)).resumed_shards == 1

    def test_a_dry_run_of_it_plans_afresh(self, tmp_path):
        dest = tmp_path / "dest"
        source = several(tmp_path / "e.parquet", 8)
        break_off(request(source, dest))
        answer = enroll(source, dest, "--shard-size=8", "--restart", "--dry-run")
        assert answer.code == 0, answer.err
        assert "continues run" not in answer.out
        assert "already_enrolled" in answer.out


def test_a_run_goes_on_where_its_table_was_moved(tmp_path):
    source = several(tmp_path / "e.parquet", 8)
    first, second = tmp_path / "dest", tmp_path / "moved"
    break_off(request(source, first))
    first.rename(second)
    keys_of(first).rename(keys_of(second))
    assert run(request(source, second)).resumed_shards == 1
    assert_sound(second, 16)


def test_a_run_without_a_template_binds_nobody(tmp_path):
    dest = tmp_path / "dest"
    bad = write_embeddings(tmp_path / "bad.parquet", ["ann"], [unit_vectors(1)[0] * 0])
    assert run(request(bad, dest)).subjects_enrolled == 0
    run(request(several(tmp_path / "e.parquet", 2), dest, alpha=14))
    assert {row["alpha"] for row in rows(dest, "templates")} == {14}
