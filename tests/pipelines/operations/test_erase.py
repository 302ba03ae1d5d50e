"""Erasing a person: nothing of them is left in any file or version, everybody else is unharmed."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.command import Answer, ironmask
from support.enrolling import (
    PowerCutError,
    broken_after,
    captures,
    enroll,
    request,
    run,
    several,
    unit_vectors,
    write_embeddings,
)
from support.marks import slow
from support.table import checked, copied, keys_of, rows, verified

from infra.store.delta import DeltaTableHandle
from pipelines.operations import job

PEOPLE = 9
NAMES = [f"person-{number:03d}" for number in range(PEOPLE)]
# In the middle, and where a file's statistics name them: first and last.
ERASED = [NAMES[0], NAMES[4], NAMES[-1]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vectors = list(captures(unit_vectors(PEOPLE), 2))
    owners = [name for name in NAMES for _ in range(2)]
    # A copy of somebody's embedding under another name, and one that is none.
    owners += ["copycat", NAMES[4]]
    vectors += [vectors[8], [float("nan")] * 64]
    return write_embeddings(tmp_path_factory.mktemp("source") / "gallery.parquet", owners, vectors)


@pytest.fixture(scope="module")
def made(source: Path) -> Path:
    table = source.with_name("table")
    assert enroll(source, table, "--shard-size=6", "--vault").code == 3
    return table


@pytest.fixture
def dest(made: Path, tmp_path: Path) -> Path:
    return copied(made, tmp_path / "table")


def erase(dest: Path, *subjects: str, more: tuple[str, ...] = ("--yes",)) -> Answer:
    people = [f"--subject={subject}" for subject in subjects]
    return ironmask("erase", dest, *people, f"--keys={keys_of(dest)}", "--json", *more)


def everything(dest: Path) -> bytes:
    """All bytes below a destination, and all values of its Parquet files, which compress them."""
    found = []
    for path in sorted(dest.rglob("*")):
        if path.is_file():
            found.append(path.read_bytes())
            if path.suffix == ".parquet":
                found.append(repr(pq.ParquetFile(path).read().to_pylist()).encode())
    return b"\0".join(found)


@pytest.mark.parametrize("subject", ERASED)
def test_nothing_is_left(dest: Path, subject: str) -> None:
    (row,) = [row for row in rows(dest, "templates") if row["subject_id"] == subject]
    kept = [row for row in rows(dest, "vault") if row["subject_id"] == subject]
    secret = [row["helper"], *(row["embedding"] for row in kept)]
    words = [subject, row["template_id"], *row["source_uris"]]
    before = everything(dest)
    assert all(word.encode() in before for word in words)
    assert all(s in before for s in secret)
    answer = erase(dest, subject)
    assert answer.code == 0, answer.err
    (done,) = json.loads(answer.out)
    assert done["subject"] == subject
    assert (done["templates"], done["embeddings"]) == (1, 2)
    assert not (dest / "_ironmask" / "erasing.json").exists()
    after = everything(dest)
    # The address of row 1 begins that of row 10.
    assert [w for w in words if re.search(re.escape(w.encode()) + rb"(?!\d)", after)] == []
    assert not any(part in after for part in secret)


def test_everybody_else_verifies(dest: Path) -> None:
    outcomes = len(rows(dest, "inputs"))
    for subject in ERASED:
        assert erase(dest, subject).code == 0
        found = checked(dest)
        assert found.code == 0, found.out
    vectors = unit_vectors(PEOPLE)
    for number, name in enumerate(NAMES):
        if name not in ERASED:
            assert verified(dest, name, vectors[[number]]) == [True]
    assert len(rows(dest, "inputs")) == outcomes
    pseudonyms = {r["subject_id"] for r in rows(dest, "inputs") if r["reason"] == "erased"}
    assert len(pseudonyms) == len(ERASED)
    assert all(name.startswith("erased-") for name in pseudonyms)


@pytest.mark.slow
def test_the_table_goes_on(dest: Path, source: Path, tmp_path: Path) -> None:
    assert erase(dest, NAMES[4]).code == 0
    more = several(tmp_path / "more.parquet", 2, seed=50)
    answer = enroll(more, dest)
    assert answer.code == 0, answer.err
    again = ironmask(
        "reprotect", dest, "--vault", "--executor=local", f"--keys={keys_of(dest)}", "--max-lost=2"
    )
    assert again.code == 3, again.err
    assert NAMES[4] not in {row["subject_id"] for row in rows(dest, "templates")}
    # Who comes back is a new person to the table.
    assert erase(dest, NAMES[4]).code == 1
    back = write_embeddings(tmp_path / "b.parquet", [NAMES[4]], unit_vectors(1, 77))
    assert enroll(back, dest).code == 0
    found = checked(dest)
    assert found.code == 0, found.out


def test_proof(dest: Path) -> None:
    prove = ["prove", dest, f"--keys={keys_of(dest)}", "--json"]
    before = ironmask(*prove, f"--subject={NAMES[0]}")
    assert before.code == 1
    assert len(json.loads(before.out)["failures"]) == 4
    assert erase(dest, NAMES[0]).code == 0
    after = ironmask(*prove, f"--subject={NAMES[0]}")
    assert after.code == 0, after.out
    assert len(json.loads(after.out)["record"]) == 1
    assert "erasure" in next(iter(json.loads(after.out)["record"]))
    words = ["reprotect", dest, "--vault", "--executor=local", f"--keys={keys_of(dest)}"]
    assert ironmask(*words, "--max-lost=1").code in (0, 3)
    later = ironmask(*prove, f"--subject={NAMES[0]}")
    assert later.code == 0, later.out
    assert json.loads(later.out)["record"] == json.loads(after.out)["record"]


def test_an_id_that_is_part_of_others(tmp_path: Path) -> None:
    folder, dest = tmp_path / "e.parquet", tmp_path / "t"
    write_embeddings(folder, ["1", "12", "José", "é"], unit_vectors(4))
    assert enroll(folder, dest).code == 0
    prove = ["prove", dest, f"--keys={keys_of(dest)}", "--json"]
    for name in ("1", "José"):
        present = json.loads(ironmask(*prove, f"--subject={name}").out)
        assert not present["holds"], name
        assert erase(dest, name).code == 0
        gone = ironmask(*prove, f"--subject={name}")
        assert gone.code == 0, gone.out


def test_the_order_of_runs_stays(dest: Path, tmp_path: Path) -> None:
    more = several(tmp_path / "more.parquet", 2, seed=50)
    assert enroll(more, dest).code == 0
    newest = json.loads(ironmask("status", dest, "--json").out)["run_id"]
    assert erase(dest, NAMES[0]).code == 0
    assert json.loads(ironmask("status", dest, "--json").out)["run_id"] == newest


def test_the_plan_of_a_planning_that_was_killed(dest: Path) -> None:
    plans = dest / "_ironmask" / "plans"
    (whole,) = plans.iterdir()
    shutil.copytree(whole, plans / ("f" * 12))
    (plans / ("f" * 12) / "plan.json").unlink()
    assert erase(dest, NAMES[0]).code == 0
    assert not list(plans.rglob("*.parquet"))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["rekey", "rotate-mac"])
def test_who_was_erased_stays_so_when_rows_are_made_from_rows(dest: Path, command: str) -> None:
    assert erase(dest, NAMES[4]).code == 0
    answer = ironmask(command, dest, "--executor=local", f"--keys={keys_of(dest)}")
    assert answer.code == 0, answer.err
    assert len(rows(dest, "templates")) == PEOPLE - 1
    found = checked(dest)
    assert found.code == 0, found.out
    assert erase(dest, NAMES[3]).code == 0
    found = checked(dest)
    assert found.code == 0, found.out
    assert ironmask("status", dest).code == 0
    assert ironmask("inspect", dest).code == 0


def test_who_is_not_there(dest: Path) -> None:
    answer = erase(dest, "nobody")
    assert (answer.code, "holds nothing of subject 'nobody'" in answer.errors[0]) == (1, True)
    found = checked(dest)
    assert found.code == 0, found.out


def test_while_a_run_is_unfinished(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "half"
    with pytest.raises(PowerCutError):
        run(request(source, dest), broken_after(2))
    answer = erase(dest, NAMES[0])
    assert (answer.code, "unfinished run" in answer.errors[0]) == (1, True)


def test_one_that_was_broken_off_is_finished_first(dest: Path, tmp_path: Path) -> None:
    note = dest / "_ironmask" / "erasing.json"
    begun = {"run_id": "0" * 12, "pseudonym": "erased-" + "0" * 32}
    note.write_text(json.dumps({**begun, "templates": 1, "outcomes": 2, "embeddings": 0}))
    other = erase(dest, NAMES[0])
    assert (other.code, "another subject was broken off" in other.errors[0]) == (1, True)
    more = several(tmp_path / "more.parquet", 2, seed=50)
    answer = enroll(more, dest)
    assert (answer.code, "was broken off" in answer.errors[0]) == (1, True)


class Terminal(io.StringIO):
    """Standard input of somebody who answers at a terminal."""

    def isatty(self) -> bool:
        return True


def contents(*places: Path) -> dict[Path, bytes]:
    files = [file for place in places for file in [place, *place.rglob("*")] if file.is_file()]
    return {file: file.read_bytes() for file in files}


def people(dest: Path) -> set[str]:
    return {row["subject_id"] for row in rows(dest, "templates")}


class TestSeveral:
    def test_all_of_them_go(self, dest):
        answer = erase(dest, *ERASED, ERASED[0])
        assert answer.code == 0, answer.err
        done = answer.json()
        assert [one["subject"] for one in done] == ERASED
        assert [(one["templates"], one["embeddings"]) for one in done] == [(1, 2)] * 3
        assert people(dest) == {*NAMES} - {*ERASED}
        assert checked(dest).code == 0
        for name in ERASED:
            proven = ironmask("prove", dest, f"--subject={name}", f"--keys={keys_of(dest)}")
            assert proven.code == 0, proven.out

    def test_of_a_file(self, dest, tmp_path):
        listed = tmp_path / "gone.txt"
        listed.write_bytes(f"\ufeff{NAMES[0]}\r\n\r\n{NAMES[4]}\n  \n{NAMES[0]}".encode())
        answer = erase(dest, more=("--yes", f"--subjects={listed}"))
        assert answer.code == 0, answer.err
        assert people(dest) == {*NAMES} - {NAMES[0], NAMES[4]}

    def test_a_file_that_is_none(self, dest, tmp_path):
        for name, content in {"empty": b"\n \n", "latin": "Jos\xe9".encode("latin-1")}.items():
            (tmp_path / name).write_bytes(content)
            answer = erase(dest, more=("--yes", f"--subjects={tmp_path / name}"))
            assert (answer.code, len(answer.errors)) == (1, 1)
            assert str(tmp_path / name) in answer.errors[0]

    @pytest.mark.parametrize("more", [[], ["--subjects=a.txt", "--subject=a"], ["--subject="]])
    def test_who_is_meant_must_be_said_once(self, dest, more):
        answer = erase(dest, more=("--yes", *more))
        assert (answer.code, len(answer.errors)) == (2, 1)

    def test_nobody_goes_where_somebody_was_never_there(self, dest):
        before = contents(dest / "templates", dest / "inputs", dest / "vault")
        answer = erase(dest, NAMES[0], "nobody", "no one", NAMES[1])
        assert answer.code == 1
        assert "holds nothing of the subjects 'nobody', 'no one'" in answer.errors[0]
        assert contents(dest / "templates", dest / "inputs", dest / "vault") == before
        assert people(dest) == {*NAMES}
        assert checked(dest).code == 0

    @pytest.mark.parametrize("table", ["templates", slow("inputs"), slow("runs")])
    def test_what_was_broken_off_is_finished(self, dest, monkeypatch, table):
        """Cut in the midst of the second person: the first is gone, the third is still there."""
        began = []
        commit = DeltaTableHandle.commit

        def cut(self: DeltaTableHandle, *arguments: Any, **named: Any) -> None:
            if self.uri.endswith(f"/{table}"):
                began.append(table)
                # One commit to each table for a person.
                if len(began) == 2 + (table == "runs"):
                    raise PowerCutError
            commit(self, *arguments, **named)

        with monkeypatch.context() as broken:
            broken.setattr(DeltaTableHandle, "commit", cut)
            with pytest.raises(PowerCutError):
                erase(dest, *ERASED)
        assert NAMES[-1] in people(dest)
        other = erase(dest, NAMES[1])
        assert "another subject was broken off" in other.errors[0]
        answer = erase(dest, *ERASED)
        assert answer.code == 0, answer.err
        assert people(dest) == {*NAMES} - {*ERASED}
        assert checked(dest).code == 0
        # Nobody of them is left to be erased.
        again = erase(dest, *ERASED)
        assert (again.code, "holds nothing of the subjects" in again.errors[0]) == (1, True)

    def test_who_is_gone_already_is_no_error_beside_others(self, dest):
        assert erase(dest, NAMES[0]).code == 0
        answer = erase(dest, NAMES[0], NAMES[1])
        assert [one["subject"] for one in answer.json()] == [NAMES[1]]

    def test_as_a_function(self, dest):
        keys = str(keys_of(dest))
        seen = job.erase(str(dest), ERASED, keys, dry_run=True)
        done = job.erase(str(dest), ERASED, keys)
        assert list(done) == list(seen) == ERASED
        for name, one in done.items():
            assert replace(one, run_id="") == seen[name]


class TestAsking:
    def test_a_dry_run_writes_nothing(self, dest):
        before = contents(dest, keys_of(dest))
        answer = erase(dest, NAMES[0], "copycat", more=("--dry-run",))
        assert answer.code == 0, answer.err
        found = {one["subject"]: one for one in answer.json()}
        assert [found[NAMES[0]][name] for name in ("templates", "embeddings", "outcomes")] == [
            1, 2, 2,
        ]  # fmt: skip
        assert found["copycat"]["outcomes"] == 1
        told = ironmask(
            "erase", dest, f"--subject={NAMES[0]}", f"--keys={keys_of(dest)}", "--dry-run"
        )
        assert f"would erase {NAMES[0]}: 1 templates, 2 embeddings" in told.out
        missing = erase(dest, "nobody", more=("--dry-run",))
        assert "holds nothing of subject 'nobody'" in missing.errors[0]
        assert contents(dest, keys_of(dest)) == before

    def test_without_a_terminal_it_is_refused(self, dest, monkeypatch):
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
        before = contents(dest, keys_of(dest))
        answer = erase(dest, NAMES[0], more=())
        assert (answer.code, "--yes" in answer.errors[0]) == (2, True)
        assert contents(dest, keys_of(dest)) == before

    def test_where_no_input_is_open_it_is_refused(self, dest, monkeypatch):
        monkeypatch.setattr(sys, "stdin", None)
        answer = erase(dest, NAMES[0], more=())
        assert (answer.code, "--yes" in answer.errors[0]) == (2, True)

    @pytest.mark.parametrize(("said", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
    def test_on_a_terminal_it_asks(self, dest, monkeypatch, said, code):
        monkeypatch.setattr(sys, "stdin", Terminal(said))
        answer = erase(dest, NAMES[0], more=())
        assert answer.code == code, answer.err
        assert f"would erase {NAMES[0]}: 1 templates" in answer.err
        assert (NAMES[0] in people(dest)) == bool(code)
        assert bool(answer.out) == (not code)
