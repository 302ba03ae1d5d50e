"""A dozen kills of the driver, and proof that the accounting sees what it is there to see."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from deltalake import DeltaTable
from deltalake.transaction import AddAction
from faults.driver_kills import SMALL_WAVE, Stage, at_random, at_steps, in_a_row, points, stages
from faults.drivers import EACH, Job, driver, job
from faults.kill_driver import AFTER, BEFORE, Point
from support.accounting import NOTHING, Counts, committed, counts, listed, row_set, uncommitted
from support.enrolling import request, run, several
from support.table import data_files

from pipelines.table.layout import ShardFile

SUBJECTS = 4


@pytest.fixture
def runs(tmp_path):
    with driver(tmp_path / "logs") as found:
        yield found


def held(lines) -> bool:
    return all(line.holds for line in lines)


@pytest.mark.slow
def test_kills_at_random_moments(runs, tmp_path):
    work = job(tmp_path / "e.parquet", 40, tmp_path / "dest")
    assert held(at_random(runs, work, 4, random.Random(1)).lines("moments", 4))


@pytest.mark.slow
def test_kills_at_steps(runs, tmp_path):
    """One point of each kind of step that cannot be taken back."""
    found = stages(runs, job(tmp_path / "e.parquet", 18, tmp_path / "dest"))
    absent, orphans, half, _ = found
    named = {(point.step, point.side, point.nth) for point in points(runs, absent)}
    chosen = [
        (absent, Point("add keys", BEFORE, 1)),
        (absent, Point("rename file of inputs", BEFORE, 1)),
        (absent, Point("rename file of inputs", AFTER, 1)),
        (absent, Point("commit templates", AFTER, 1)),
        (absent, Point("commit runs", BEFORE, 2)),
    ]
    assert {(point.step, point.side, point.nth) for _, point in chosen} <= named
    chosen += [
        (orphans, Point("destroy file of templates", AFTER, 1)),
        (half, Point("roll forward", BEFORE, 1)),
        (half, Point("commit inputs", BEFORE, 1)),
    ]
    seen = at_steps(runs, chosen)
    assert held(seen.lines("steps", len(chosen)))
    assert seen.rework == SMALL_WAVE


@pytest.mark.slow
def test_kills_in_a_row(runs, tmp_path):
    work = job(tmp_path / "e.parquet", 112, tmp_path / "dest", shard_size=2)
    streak = in_a_row(runs, work, 3, random.Random(2))
    assert held(streak.lines(3)), streak


@pytest.mark.slow
def test_a_step_that_is_never_reached_is_told(runs, tmp_path):
    work = job(tmp_path / "e.parquet", SUBJECTS, tmp_path / "dest")
    seen = at_steps(runs, [(Stage("absent", work), Point("no such step", BEFORE, 1))])
    assert not held(seen.lines("steps", 1))
    assert "not reached" in seen.errors[0]


class TestAccounting:
    @pytest.fixture(scope="class")
    def sound(self, tmp_path_factory) -> Job:
        folder = tmp_path_factory.mktemp("sound")
        work = job(folder / "e.parquet", SUBJECTS, folder / "dest")
        run(request(work.source, work.dest))
        return work

    @pytest.fixture
    def copy(self, sound, tmp_path) -> Job:
        return sound.copy(tmp_path / "copy")

    def test_a_sound_destination(self, sound):
        assert counts(sound.dest, sound.planned) == NOTHING
        assert counts(sound.dest, SUBJECTS * EACH) == NOTHING
        assert committed(sound.dest) == SUBJECTS * EACH // sound.shard_size
        assert uncommitted(sound.dest) == 0

    def test_no_destination(self, tmp_path):
        assert counts(tmp_path / "none", 8) == Counts(8, 0, 0, 0)

    def test_a_lost_row(self, sound):
        assert counts(sound.dest, sound.planned | {"another"}).lost == 1
        assert counts(sound.dest, SUBJECTS * EACH + 1).lost == 1

    def test_duplicated_rows(self, copy):
        rows = _commit_again(copy.dest, "inputs")
        assert counts(copy.dest, copy.planned) == Counts(0, rows, 0, 0)

    def test_second_issues(self, copy):
        rows = _commit_again(copy.dest, "templates")
        assert counts(copy.dest, copy.planned) == Counts(0, 0, rows, 0)

    @pytest.mark.parametrize("name", ["templates", "inputs"])
    def test_stray_files(self, copy, name):
        file = data_files(copy.dest, name)[0]
        shutil.copy(file, _other(file))
        file.with_name(".part-0123456789abcdef").touch()
        assert counts(copy.dest, copy.planned) == Counts(0, 0, 0, 2)
        assert uncommitted(copy.dest) == (1 if name == "templates" else 0)

    def test_row_sets(self, sound, tmp_path):
        again = sound.into(tmp_path / "again")
        run(request(sound.source, again.dest))
        assert row_set(again.dest) == row_set(sound.dest)
        assert {name: len(rows) for name, rows in row_set(sound.dest).items()} == {
            "templates": SUBJECTS,
            "inputs": SUBJECTS * EACH,
        }

    def test_row_sets_that_differ(self, sound, copy, tmp_path):
        _commit_again(copy.dest, "inputs")
        assert row_set(copy.dest) != row_set(sound.dest)
        other = several(tmp_path / "other.parquet", SUBJECTS + 1)
        run(request(other, tmp_path / "dest"))
        assert row_set(tmp_path / "dest") != row_set(sound.dest)


def _other(file: Path) -> Path:
    """The path of a data file of another attempt."""
    name = ShardFile("f" * 12, 0, "ab" * 8, "0" * 64).name
    assert name != file.name
    return file.with_name(name)


def _commit_again(dest: Path, name: str) -> int:
    """Put a second copy of a data file into a table's log; returns how many rows it has."""
    table = DeltaTable(str(dest / name))
    actions = table.get_add_actions(flatten=True)
    file = dest / name / actions["path"][0].as_py()
    assert file in listed(dest, name)
    again = _other(file)
    shutil.copy(file, again)
    partition = {"generation": "1"} if name == "templates" else {}
    action = AddAction(
        str(again.relative_to(dest / name)), again.stat().st_size, partition, 0, True, "{}"
    )
    schema = table.schema()
    table.create_write_transaction([action], "append", schema, list(partition))
    return int(actions["num_records"][0].as_py())
