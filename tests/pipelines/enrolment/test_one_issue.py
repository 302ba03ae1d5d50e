"""At most one live template a person: two of them can be broken together."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pytest
from support.enrolling import (
    captures,
    enroll,
    request,
    run,
    several,
    unit_vectors,
    write_embeddings,
)
from support.table import assert_sound, data_files, open_tables, outcomes, rows, told

from ironmask.errors import TableError
from pipelines.plan import plans
from pipelines.ports import DataFile
from pipelines.table import contents, read
from pipelines.table.identities import of_file
from pipelines.table.layout import ShardFile


def test_enrolling_again_skips_whoever_has_a_template(tmp_path):
    dest = tmp_path / "dest"
    run(request(several(tmp_path / "e.parquet", 3), dest))
    before = {row["template_id"] for row in rows(dest, "templates")}
    # Two known subjects with new captures, and two new ones.
    more = several(tmp_path / "more.parquet", 5, seed=7)
    summary = run(request(more, dest))
    assert (summary.used, summary.skipped) == (4, 6)
    assert summary.reasons == {"already_enrolled": 6}
    assert_sound(dest, 6 + 10)
    assert before < {row["template_id"] for row in rows(dest, "templates")}


def test_a_subject_that_failed_may_come_again(tmp_path):
    dest = tmp_path / "dest"
    good = unit_vectors(1)[0]
    run(request(write_embeddings(tmp_path / "bad.parquet", ["ann"], [good * 0]), dest))
    assert rows(dest, "templates") == []
    summary = run(request(write_embeddings(tmp_path / "good.parquet", ["ann"], [good]), dest))
    assert summary.subjects_enrolled == 1
    assert_sound(dest, 2)


def test_a_subject_in_scattered_rows_gets_one_template(tmp_path):
    dest = tmp_path / "dest"
    vectors = captures(unit_vectors(5), 6).reshape(5, 6, -1).swapaxes(0, 1).reshape(30, -1)
    names = [f"s{number % 5}" for number in range(30)]
    run(request(write_embeddings(tmp_path / "e.parquet", names, vectors), dest, shard_size=2))
    assert [row["images_used"] for row in rows(dest, "templates")] == [6] * 5
    assert_sound(dest, 30)


def test_live_subjects_and_used_contents_come_from_the_log(tmp_path):
    dest = tmp_path / "dest"
    run(request(several(tmp_path / "e.parquet", 3), dest))
    tables = open_tables(dest)
    asked = pa.array(["s000", "s001", "s002", "s003"])
    assert contents.live_subjects(tables, 1).has(asked).tolist() == [True, True, True, False]
    assert not contents.live_subjects(tables, 2).has(asked).any()


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A table into which somebody has committed a second copy of a template's file by hand."""
    dest = tmp_path / "dest"
    run(request(several(tmp_path / "e.parquet", 2), dest))
    (sound,) = data_files(dest, "templates")
    name = ShardFile("f" * 12, 0, "ab" * 8, "0" * 64).name
    copy = sound.with_name(name)
    copy.write_bytes(sound.read_bytes())
    size = copy.stat().st_size
    bounds = {"subject_id": "s000", "template_id": "0"}, {"subject_id": "s001", "template_id": "g"}
    partition = {"generation": "1"}
    file = DataFile(f"generation=1/{name}", size, 2, "", partition, *bounds)
    open_tables(dest).table("templates").commit([file], "somebody", 1)
    return dest


def test_two_live_rows_are_never_answered(planted):
    with pytest.raises(TableError, match=r"holds 2 live templates of subject 's000'"):
        read.find_row(open_tables(planted), "s000")


def test_a_subject_without_a_row(planted):
    with pytest.raises(TableError, match="holds no template of subject 'nobody'"):
        read.find_row(open_tables(planted), "nobody")


def test_a_file_that_no_log_lists_is_not_seen_and_not_kept(tmp_path):
    dest = tmp_path / "dest"
    source = several(tmp_path / "e.parquet", 2)
    run(request(source, dest))
    for name in ("templates", "inputs"):
        (sound,) = data_files(dest, name)
        sound.with_name(ShardFile("f" * 12, 0, "ab" * 8, "0" * 64).name).write_bytes(
            sound.read_bytes()
        )
    assert read.find_row(open_tables(dest), "s000")["subject_id"] == "s000"
    run(request(source, dest))
    assert len(data_files(dest, "templates")) == 1
    assert_sound(dest, 8)


class TestSameContent:
    """One picture under two names would be two templates of one face."""

    @staticmethod
    def manifest(path: Path, pairs: list[tuple[str, Path]]) -> Path:
        with path.open("w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(["subject_id", "uri"])
            writer.writerows(pairs)
        return path

    def test_in_a_later_run(self, tmp_path, face_data):
        photos = sorted((face_data / "faces" / "lfw_dev" / "Abdullah_Gul").iterdir())[:2]
        dest = tmp_path / "dest"
        model = f"--model={face_data / 'models' / 'buffalo_sc'}"
        common = ["--alpha=16", "--tolerance=4", model, f"--allow-root={face_data}"]
        first = self.manifest(tmp_path / "1.csv", [("abdullah", photos[0])])
        assert enroll(first, dest, *common).code == 0
        second = self.manifest(
            tmp_path / "2.csv",
            [("abdullah", photos[0]), ("somebody else", photos[0]), ("gul", photos[1])],
        )
        answer = enroll(second, dest, *common)
        assert answer.code == 0
        assert outcomes(dest) == {
            ("used", ""): 2,
            ("skipped", "already_enrolled"): 1,
            ("duplicate", "duplicate_other_subject"): 1,
        }
        assert sorted(row["subject_id"] for row in rows(dest, "templates")) == ["abdullah", "gul"]

    def test_in_a_later_file_of_embeddings(self, tmp_path):
        dest = tmp_path / "dest"
        one, two = unit_vectors(2)
        run(request(write_embeddings(tmp_path / "1.parquet", ["alice"], [one]), dest))
        second = write_embeddings(tmp_path / "2.parquet", ["mallory", "bob"], [5 * one, two])
        assert run(request(second, dest)).reasons == {"duplicate_other_subject": 1}
        assert sorted(row["subject_id"] for row in rows(dest, "templates")) == ["alice", "bob"]
        assert_sound(dest, 3)

    def test_what_could_not_be_compared_is_not_used(self, tmp_path, face_data, monkeypatch):
        """Photos that are missing when the run is planned and there when it is carried out."""
        photo = next((face_data / "faces" / "lfw_dev" / "Al_Gore").iterdir())
        names = [tmp_path / "one.jpg", tmp_path / "two.jpg"]
        source = self.manifest(tmp_path / "1.csv", list(zip("ab", names, strict=True)))
        write = plans.write

        def appear(*arguments, **named):
            for name in names:
                name.write_bytes(photo.read_bytes())
            return write(*arguments, **named)

        monkeypatch.setattr(plans, "write", appear)
        dest = tmp_path / "dest"
        model = face_data / "models" / "buffalo_sc"
        enroll(source, dest, "--alpha=16", "--tolerance=4", f"--model={model}")
        assert outcomes(dest) == {("failed", "changed_since_plan"): 2}
        assert rows(dest, "templates") == []

    def test_used_contents_are_those_of_templates(self, tmp_path, face_data):
        photo = next((face_data / "faces" / "lfw_dev" / "Al_Gore").iterdir())
        broken = tmp_path / "broken.jpg"
        broken.write_bytes(photo.read_bytes()[:500])
        dest = tmp_path / "dest"
        source = self.manifest(tmp_path / "1.csv", [("al", photo), ("broken", broken)])
        model = f"--model={face_data / 'models' / 'buffalo_sc'}"
        roots = f"--allow-root={face_data}"
        enroll(source, dest, "--alpha=16", "--tolerance=4", model, roots)
        used = contents.used_contents(open_tables(dest), 1)
        (row,) = [row for row in rows(dest, "inputs") if row["outcome"] == "used"]
        assert told(dest, row)["contents"] == of_file(photo.read_bytes())
        assert all(name.startswith("id:") for name in row["identities"])
        assert used.has(pa.array(row["identities"])).all()
        assert len(used) == len(row["identities"])
