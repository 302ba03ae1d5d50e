"""What operators see of a destination: its status, a check of it, a vacuum."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.command import ironmask
from support.enrolling import (
    PowerCutError,
    after_first,
    before_commit_of,
    broken_after,
    captures,
    changed,
    enroll,
    request,
    run,
    several,
    unit_vectors,
    write_embeddings,
)
from support.table import assert_sound, data_files, keys_of

from infra.store.delta import DeltaTableHandle
from pipelines.operations import job, vacuum
from pipelines.table import layout
from pipelines.table.layout import ShardFile


@pytest.fixture(autouse=True)
def _small_waves(monkeypatch):
    monkeypatch.setattr("pipelines.run.steps.WAVE_SHARDS", 1)
    monkeypatch.setattr("pipelines.run.live_note._PAUSE_S", 0.0)


@pytest.fixture
def source(tmp_path):
    """Eight subjects with two embeddings each, and one whose only embedding is zero."""
    names = [f"s{n}" for n in range(8) for _ in range(2)] + ["zero"]
    vectors = [*captures(unit_vectors(8), 2), unit_vectors(1)[0] * 0]
    return write_embeddings(tmp_path / "e.parquet", names, vectors)


@pytest.fixture
def unfinished(tmp_path, source):
    dest = tmp_path / "dest"
    with pytest.raises(PowerCutError):
        run(request(source, dest), executor=broken_after(2))
    return dest


class TestStatus:
    def test_of_a_run_that_is_under_way(self, tmp_path, source):
        dest, seen = tmp_path / "dest", []

        def look(results):
            for number, result in enumerate(results):
                yield result
                if number == 1:
                    seen.append(job.status(str(dest)))

        run(request(source, dest), executor=changed(look))
        (found,) = seen
        assert (found.state, found.holder) == ("running", "a process on this machine")
        assert (found.shards, found.shards_done) == (5, 2)
        assert (found.inputs, found.inputs_done, found.inputs_left) == (17, 8, 9)
        assert found.inputs_waiting == 0
        assert found.outcomes == {"used": 8}
        assert found.per_second > 0
        assert found.ends_at is not None

    def test_of_one_that_broke_off(self, unfinished):
        answer = ironmask("status", unfinished, "--json")
        assert answer.code == 0
        found = answer.json()
        assert (found["state"], found["holder"], found["ends_at"]) == ("running", None, None)
        assert (found["shards_done"], found["in_flight"]) == (2, 0)
        shown = ironmask("status", unfinished).out
        assert "8 of 17 (47.1%)" in shown
        assert "run the same command again to continue it" in shown

    def test_of_one_that_is_complete(self, tmp_path, source):
        dest = tmp_path / "dest"
        run(request(source, dest))
        found = job.status(str(dest))
        assert (found.state, found.inputs_left) == ("complete", 0)
        assert found.failed == {"zero_norm": 1}
        assert not (dest / layout.PRIVATE / "progress.json").exists()
        shown = ironmask("status", dest).out
        assert "zero_norm" in shown
        assert "it has ended" in shown

    def test_of_what_is_no_table(self, tmp_path):
        answer = ironmask("status", tmp_path / "none")
        assert answer.code == 1
        assert "holds no table" in answer.err

    def test_of_a_damaged_note(self, unfinished):
        (unfinished / layout.PRIVATE / "progress.json").write_text("{")
        assert ironmask("status", unfinished).code == 0


class TestCheck:
    @pytest.mark.parametrize("column", ["run_id", "state", "at", "config"])
    def test_of_a_run_that_tells_nothing(self, column, tmp_path, source):
        """A changed bit can make a value null, which nothing may trip over."""
        dest = tmp_path / "dest"
        run(request(source, dest))
        (path,) = data_files(dest, "runs")[:1]
        table = pq.read_table(path)
        place = table.schema.get_field_index(column)
        nothing = pa.nulls(len(table), table.schema.field(column).type)
        path.write_bytes(b"")
        pq.write_table(table.set_column(place, column, nothing), path)
        report = job.check(str(dest), str(keys_of(dest)), deep=True)
        assert any("not what was written" in text for text in report.findings)
        answer = ironmask("status", dest)
        assert (answer.code, "restore the table" in answer.err) == (1, True)

    def test_of_a_sound_table(self, tmp_path, source):
        dest = tmp_path / "dest"
        run(request(source, dest))
        answer = ironmask("check", dest, f"--keys={keys_of(dest)}", "--deep", "--json")
        assert answer.code == 0, answer.err
        found = answer.json()
        assert found["sound"]
        assert (found["findings"], found["notes"]) == ([], [])
        assert (found["inputs"], found["templates"], found["helpers_opened"]) == (17, 8, 8)
        shown = ironmask("check", dest, f"--keys={keys_of(dest)}").out
        assert "helpers not opened" in shown
        assert "sound" in shown

    def test_of_an_unfinished_run(self, unfinished):
        """What a killed run leaves is explained, and no fault of the table."""
        report = job.check(str(unfinished), str(keys_of(unfinished)), deep=True)
        assert report.findings == []
        assert any("is unfinished: 2 of 5 shards" in note for note in report.notes)
        assert any("is listed by no log" in note for note in report.notes)

    def test_of_an_interrupted_wave(self, tmp_path, source, monkeypatch):
        dest = tmp_path / "dest"
        with monkeypatch.context() as broken:
            broken.setattr(DeltaTableHandle, "commit", before_commit_of("inputs"))
            with pytest.raises(PowerCutError):
                run(request(source, dest))
        assert vacuum.vacuum(str(dest), str(keys_of(dest))).files == 0
        report = job.check(str(dest), str(keys_of(dest)), deep=True)
        assert report.findings == []
        assert any("the next start of the run completes it" in note for note in report.notes)
        run(request(source, dest))
        assert_sound(dest, 17)

    def test_needs_the_keys(self, tmp_path, source):
        dest = tmp_path / "dest"
        run(request(source, dest))
        answer = ironmask("check", dest, f"--keys={tmp_path / 'none.json'}")
        assert answer.code == 1
        assert "no keyset file" in answer.err

    def test_says_what_it_found_and_fails(self, tmp_path, source):
        dest = tmp_path / "dest"
        run(request(source, dest))
        data_files(dest, "templates")[0].unlink()
        answer = ironmask("check", dest, f"--keys={keys_of(dest)}")
        assert answer.code == 1
        assert "is missing" in answer.out
        assert "is not what was written" in answer.errors[0]


class TestVacuum:
    def test_destroys_what_no_log_lists_and_nothing_else(self, unfinished, source):
        stray = ShardFile("f" * 12, 3, "ab" * 8, "0" * 64).name
        (unfinished / "templates" / "generation=1" / stray).write_bytes(b"x")
        (unfinished / "templates" / f".part-{'0' * 16}").write_bytes(b"x")
        (unfinished / layout.PRIVATE / f".part-{'1' * 16}").write_bytes(b"x")
        (unfinished / "templates" / "notes.txt").write_text("somebody's")
        listed = {path for name in ("templates", "inputs") for path in data_files(unfinished, name)}
        answer = ironmask("vacuum", unfinished, "--json", f"--keys={keys_of(unfinished)}")
        assert answer.code == 0, answer.err
        # The cut left one finished shard as well, whose outcomes were not written yet.
        assert answer.json()["files"] == 4
        left = {path for name in ("templates", "inputs") for path in data_files(unfinished, name)}
        assert left < listed
        assert (unfinished / "templates" / "notes.txt").exists()
        run(request(source, unfinished))
        assert_sound(unfinished, 17)

    def test_waits_for_nobody(self, tmp_path, source):
        dest, answers = tmp_path / "dest", []
        look = after_first(
            lambda: answers.append(ironmask("vacuum", dest, f"--keys={keys_of(dest)}"))
        )
        run(request(source, dest), executor=look)
        (answer,) = answers
        assert answer.code == 1
        assert "is in use by another run" in answer.err


def test_a_table_that_is_enrolled_again_stays_sound(tmp_path, source):
    dest = tmp_path / "dest"
    assert enroll(source, dest, "--max-failures=1").code == 0
    more = several(tmp_path / "more.parquet", 3, seed=7)
    assert enroll(more, dest).code == 0
    report = job.check(str(dest), str(keys_of(dest)), deep=True)
    assert report.findings == []
