"""Probes of many people in one manifest: each gets an answer, and answers are written whole."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.command import Answer, ironmask
from support.enrolling import enroll, request, run, several, unit_vectors, write_embeddings
from support.pictures import noise, photos
from support.table import data_files, keys_of, verifier

from ironmask.errors import SourceError, TableError
from pipelines.verification import manifest
from pipelines.verification.answers import COLUMNS
from pipelines.verification.manifest import verify_manifest

PEOPLE = 6
NAMES = [f"s{number:03d}" for number in range(PEOPLE)]
PROBES = unit_vectors(PEOPLE)
NO_ANSWER = None


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    made = tmp_path / "dest"
    run(request(several(tmp_path / "e.parquet", PEOPLE), made))
    return made


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "answers.parquet"


def ask(dest: Path, source: Path, out: Path, *more: object) -> Answer:
    keys = f"--keys={keys_of(dest)}"
    return ironmask("verify", dest, f"--manifest={source}", f"--out={out}", keys, *more)


def answers(out: Path) -> list[dict[str, Any]]:
    table = pq.ParquetFile(out).read()
    assert table.schema.equals(COLUMNS)
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def listed(path: Path, pairs: list[tuple[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("subject_id", "uri"), *pairs])
    return path


def short(rows: list[dict[str, Any]]) -> list[tuple[str, bool | None, str]]:
    return [(row["subject_id"], row["accepted"], row["reason"]) for row in rows]


class TestEmbeddings:
    def test_each_row_has_an_answer_in_its_place(self, tmp_path, dest, out):
        source = write_embeddings(
            tmp_path / "probes.parquet",
            ["s001", "s000", "nobody", "s000", None, "s002", "s002", "s003", "s001"],
            [
                PROBES[1], PROBES[0], PROBES[0], PROBES[1], PROBES[0], PROBES[2, :32], None,
                np.full(64, np.nan), PROBES[1],
            ],
        )  # fmt: skip
        answer = ask(dest, source, out, "--json")
        assert answer.code == 3, answer.err
        assert short(answers(out)) == [
            ("s001", True, ""),
            ("s000", True, ""),
            ("nobody", NO_ANSWER, "no_template"),
            ("s000", False, ""),
            ("", NO_ANSWER, "no_subject"),
            ("s002", NO_ANSWER, "wrong_width"),
            ("s002", NO_ANSWER, "wrong_width"),
            ("s003", NO_ANSWER, "not_finite"),
            ("s001", True, ""),
        ]
        assert [row["uri"] for row in answers(out)] == [f"{source}#row={at}" for at in range(9)]
        assert all(bool(row["detail"]) == (row["accepted"] is None) for row in answers(out))
        assert answer.json() == {
            "out": str(out),
            "probes": 9,
            "accepted": 3,
            "rejected": 1,
            "unanswered": 5,
            "reasons": {"no_template": 1, "no_subject": 1, "wrong_width": 2, "not_finite": 1},
        }

    @pytest.mark.parametrize(("owners", "code"), [([0, 1, 2], 0), ([0, 1, 1], 4)])
    def test_exit_codes(self, tmp_path, dest, out, owners, code):
        names = [NAMES[owner] for owner in owners]
        source = write_embeddings(tmp_path / "probes.parquet", names, PROBES[:3])
        answer = ask(dest, source, out)
        assert (answer.code, answer.err) == (code, "")
        assert str(len(names)) in answer.out

    def test_in_several_parts(self, tmp_path, dest, out, monkeypatch):
        monkeypatch.setattr(manifest, "_ROWS", 4)
        names = [name for name in NAMES for _ in NAMES]
        source = write_embeddings(tmp_path / "probes.parquet", names, [*PROBES] * PEOPLE)
        told: list[tuple[int, int]] = []
        with verifier(dest) as held:
            done = verify_manifest(
                held, str(source), str(out), progress=lambda done, every: told.append((done, every))
            )
        assert (done.probes, done.accepted, done.rejected) == (36, 6, 30)
        expected = [own == other for own in NAMES for other in NAMES]
        assert [row["accepted"] for row in answers(out)] == expected
        assert told == [(done, 36) for done in range(0, 37, 4)]


class TestImages:
    """What can be said of images without a look at one."""

    def test_rows_that_are_never_read(self, tmp_path, dest, out):
        (tmp_path / "in").mkdir()
        outside = tmp_path / "elsewhere.jpg"
        outside.write_bytes(b"never read")
        source = listed(
            tmp_path / "in" / "probes.csv",
            [
                ("s001", outside),
                ("", "a.jpg"),
                ("nobody", "a.jpg"),
                ("s000", "s3://bucket/a.jpg?X-Amz-Signature=abc"),
                ("nobody", keys_of(dest)),
            ],
        )
        assert ask(dest, source, out).code == 3
        assert short(answers(out)) == [
            ("", NO_ANSWER, "no_subject"),
            ("nobody", NO_ANSWER, "no_template"),
            ("nobody", NO_ANSWER, "outside_roots"),
            ("s000", NO_ANSWER, "secret_in_address"),
            ("s001", NO_ANSWER, "outside_roots"),
        ]
        assert "abc" not in repr(answers(out))
        own = listed(tmp_path / "own.csv", [("s000", keys_of(dest)), ("s000", dest / "a.jpg")])
        assert ask(dest, own, out).code == 3
        assert short(answers(out)) == [("s000", NO_ANSWER, "own_file")] * 2

    def test_roots_that_are_allowed(self, tmp_path, dest, out):
        (tmp_path / "in").mkdir()
        pairs = [("nobody", tmp_path / "elsewhere.jpg")]
        source = listed(tmp_path / "in" / "probes.csv", pairs)
        assert ask(dest, source, out, f"--allow-root={tmp_path}").code == 3
        assert short(answers(out)) == [("nobody", NO_ANSWER, "no_template")]

    def test_in_several_parts(self, tmp_path, dest, out, monkeypatch):
        monkeypatch.setattr(manifest, "_SUBJECTS", 2)
        monkeypatch.setattr(manifest, "_PROBES", 3)
        pairs = [(f"n{number % 7}", f"{number:02d}.jpg") for number in range(30)]
        assert ask(dest, listed(tmp_path / "probes.csv", pairs), out).code == 3
        found = answers(out)
        assert [row["subject_id"] for row in found] == sorted(name for name, _ in pairs)
        told = {(row["subject_id"], Path(row["uri"]).name) for row in found}
        assert told == set(pairs)
        assert {row["reason"] for row in found} == {"no_template"}

    def test_photos(self, tmp_path, face_data, out):
        shutil.copytree(face_data / "models" / "buffalo_sc", tmp_path / "models" / "buffalo_sc")
        every = photos(face_data)
        place = tmp_path / "photos"
        for name in ("ann", "bob"):
            (place / name).mkdir(parents=True)
            shutil.copy(next(every), place / name / "1.jpg")
        (place / "noise.png").write_bytes(noise())
        dest = tmp_path / "dest"
        assert enroll(place, dest, "--model=buffalo_sc").code == 0
        pairs = [
            ("bob", "bob/1.jpg"), ("ann", "ann/1.jpg"), ("ann", "bob/1.jpg"), ("ann", "noise.png"),
            ("bob", "none.jpg"),
        ]  # fmt: skip
        answer = ask(dest, listed(place / "probes.csv", pairs), out)
        assert answer.code == 3, answer.err
        assert [(Path(row["uri"]).parent.name, *one) for row, one in zip(
            answers(out), short(answers(out)), strict=True
        )] == [
            ("ann", "ann", True, ""),
            ("bob", "ann", False, ""),
            ("photos", "ann", NO_ANSWER, "no_face"),
            ("bob", "bob", True, ""),
            ("photos", "bob", NO_ANSWER, "unreadable"),
        ]  # fmt: skip


class TestTheFile:
    def test_a_failure_leaves_the_answers_of_before(self, tmp_path, dest, out, monkeypatch):
        source = write_embeddings(tmp_path / "probes.parquet", NAMES, PROBES)
        pq.write_table(COLUMNS.empty_table(), out)
        monkeypatch.setattr(manifest, "_ROWS", 2)
        # The people of the last shard.
        max(data_files(dest, "templates"), key=lambda path: "000002-" in path.name).unlink()
        before = sorted(tmp_path.iterdir())
        answer = ask(dest, source, out)
        assert answer.code == 1
        assert "is missing" in answer.errors[0]
        assert answers(out) == []
        assert sorted(tmp_path.iterdir()) == before

    def test_it_replaces_the_answers_of_before(self, tmp_path, dest, out):
        source = write_embeddings(tmp_path / "probes.parquet", NAMES[:1], PROBES[:1])
        pq.write_table(COLUMNS.empty_table(), out)
        assert ask(dest, source, out).code == 0
        assert short(answers(out)) == [("s000", True, "")]

    def test_where_it_must_not_lie(self, tmp_path, dest, out):
        source = write_embeddings(tmp_path / "probes.parquet", NAMES, PROBES)
        (tmp_path / "folder.parquet").mkdir()
        (tmp_path / "link.parquet").symlink_to(source)
        kept = {path: path.read_bytes() for path in (source, keys_of(dest))}
        for place in (
            source, dest / "a.parquet", keys_of(dest), tmp_path / "folder.parquet",
            tmp_path / "link.parquet", tmp_path / "answers.csv",
        ):  # fmt: skip
            answer = ask(dest, source, place)
            assert (answer.code, len(answer.errors)) == (2, 1), place
        assert {path: path.read_bytes() for path in kept} == kept

    def test_a_file_of_something_else_stays(self, tmp_path, dest):
        """Somebody's embeddings cannot be made anew from answers."""
        source = write_embeddings(tmp_path / "probes.parquet", NAMES, PROBES)
        mine = write_embeddings(tmp_path / "mine.parquet", NAMES, PROBES)
        other = tmp_path / "other.parquet"
        other.write_bytes(b"no Parquet at all")
        for place in (mine, other):
            before = place.read_bytes()
            answer = ask(dest, source, place)
            assert (answer.code, len(answer.errors)) == (2, 1)
            assert "holds no answers" in answer.errors[0]
            assert place.read_bytes() == before

    def test_one_whose_folder_cannot_be(self, tmp_path, dest):
        source = write_embeddings(tmp_path / "probes.parquet", NAMES, PROBES)
        answer = ask(dest, source, source / "answers.parquet")
        assert answer.code in (1, 2)
        assert len(answer.errors) == 1


class TestMistakes:
    @pytest.mark.parametrize(
        "words",
        [
            ["--manifest=m.csv"],
            ["--manifest=m.csv", "--out=a.parquet", "probe.jpg"],
            ["--manifest=m.csv", "--out=a.parquet", "--subject=s000"],
            ["--subject=s000"],
            ["probe.jpg"],
            ["--subject=s000", "probe.jpg", "--out=a.parquet"],
            ["--subject=s000", "probe.jpg", "--allow-root=/"],
        ],
        ids=" ".join,
    )
    def test_options_that_do_not_go_together(self, dest, words):
        answer = ironmask("verify", dest, f"--keys={keys_of(dest)}", *words)
        assert (answer.code, answer.out, len(answer.errors)) == (2, "", 1)

    def test_what_is_no_manifest(self, tmp_path, dest, out):
        (tmp_path / "folder").mkdir()
        empty = listed(tmp_path / "empty.csv", [])
        other = tmp_path / "other.parquet"
        pq.write_table(pa.table({"subject_id": ["s000"]}), other)
        for source in (tmp_path / "folder", tmp_path / "absent.csv", empty, other):
            answer = ask(dest, source, out)
            assert (answer.code, len(answer.errors)) == (1, 1), source
            assert str(source) in answer.errors[0]
        assert not out.exists()
        with verifier(dest) as held, pytest.raises(SourceError, match="lists no probe"):
            verify_manifest(held, str(empty), str(out))

    def test_a_row_that_was_changed_ends_it(self, tmp_path, dest, out):
        """A damaged table is no answer about a person."""
        source = write_embeddings(tmp_path / "probes.parquet", NAMES, PROBES)
        for path in data_files(dest, "templates"):
            path.unlink()
        with verifier(dest) as held, pytest.raises(TableError):
            verify_manifest(held, str(source), str(out))
        assert not out.exists()

    def test_help_names_the_columns(self, monkeypatch):
        monkeypatch.setenv("COLUMNS", "300")
        assert "subject_id, uri, accepted, reason, detail" in ironmask("verify", "--help").out
        assert COLUMNS.names == ["subject_id", "uri", "accepted", "reason", "detail"]
