"""Re-protection of real tables: new rows, one live generation at any time, nothing old left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.command import ironmask
from support.enrolling import (
    PowerCutError,
    broken_after,
    enroll,
    request,
    run,
    several,
    unit_vectors,
    write_embeddings,
)
from support.marks import slow
from support.table import checked, data_files, keys_of, open_tables, rows, verified

from infra.keys.key_file import KeyFile
from ironmask.errors import KeyNotFoundError
from pipelines.setup import ports
from pipelines.table import generations
from pipelines.table.row_cipher import open_row

PEOPLE = 10


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return several(tmp_path / "gallery.parquet", PEOPLE)


@pytest.fixture
def dest(source: Path, tmp_path: Path) -> Path:
    made = tmp_path / "table"
    answer = enroll(source, made, "--shard-size=4")
    assert answer.code == 0, answer.err
    return made


def again(dest: Path, *more: object, command: str = "reprotect"):
    return ironmask(command, dest, "--executor=local", f"--keys={keys_of(dest)}", *more)


def states(dest: Path) -> dict[int, str]:
    return {n: str(one.state) for n, one in generations.read(open_tables(dest)).items()}


def answers(dest: Path, probes, skipped: int | None = None) -> list[bool]:
    """Whether each person's own probe matches, and one of somebody else."""
    found = []
    for number in set(range(PEOPLE)) - {skipped}:
        pair = np.stack([probes[number], probes[(number + 1) % PEOPLE]])
        found += verified(dest, f"s{number:03d}", pair)
    return found


GENUINE = [True, False] * PEOPLE


def test_everybody_gets_a_new_template_and_the_old_ones_are_gone(dest: Path) -> None:
    before = rows(dest, "templates")
    old_files = data_files(dest, "templates")
    copy = dest.with_name("copy")
    shutil.copytree(dest, copy)
    answer = again(dest, "--json")
    assert answer.code == 0, answer.err
    done = json.loads(answer.out)
    assert (done["generation"], done["replaced"], done["lost"]) == (2, 1, 0)
    assert states(dest) == {1: "destroyed", 2: "live"}
    after = rows(dest, "templates")
    assert {row["generation"] for row in after} == {2}
    assert {row["subject_id"] for row in after} == {row["subject_id"] for row in before}
    assert not {row["template_id"] for row in after} & {row["template_id"] for row in before}
    assert not {row["key_id"] for row in after} & {row["key_id"] for row in before}
    assert not any(path.exists() for path in old_files)
    assert answers(dest, unit_vectors(PEOPLE)) == GENUINE
    assert checked(dest).code == 0, checked(dest).out
    # The copy that somebody made before: its ciphertext is worth nothing any more.
    with pytest.raises(KeyNotFoundError, match="destroyed"):
        ports.keys(keys_of(dest), open_tables(copy).table_id, 1)


def test_proof(dest: Path) -> None:
    assert again(dest).code == 0
    proved = ironmask("prove", dest, "--generation=1", f"--keys={keys_of(dest)}", "--json")
    assert proved.code == 0, proved.err
    found = json.loads(proved.out)
    assert found["holds"]
    assert found["failures"] == []
    assert found["record"]["files"].startswith("5, ")
    assert len(found["statements"]) == 6
    live = ironmask("prove", dest, "--generation=2", f"--keys={keys_of(dest)}")
    assert (live.code, "not so: generation 2 was destroyed" in _flat(live.out)) == (1, True)
    absent = ironmask("prove", dest, "--generation=7", f"--keys={keys_of(dest)}")
    assert (absent.code, "it is not there" in _flat(absent.out)) == (1, True)
    neither = ironmask("prove", dest, f"--keys={keys_of(dest)}")
    assert (neither.code, "--generation or a --subject" in neither.errors[0]) == (2, True)


def test_a_dry_run_writes_nothing_and_says_what_is_left(dest: Path, monkeypatch) -> None:
    before = {path: path.read_bytes() for path in dest.rglob("*") if path.is_file()}
    forecast = again(dest, "--dry-run", "--json")
    assert forecast.code == 0
    assert (forecast.json()["subjects"], forecast.json()["resumes"]) == (PEOPLE, "")
    assert {path: path.read_bytes() for path in dest.rglob("*") if path.is_file()} == before

    def cut(*_: object) -> None:
        raise PowerCutError

    with monkeypatch.context() as patched:
        patched.setattr("pipelines.reprotection.job.destroy", cut)
        with pytest.raises(PowerCutError):
            again(dest)
    left = again(dest, "--dry-run")
    assert left.code == 0
    assert "generation 2 is live" in left.err
    assert "to destroy generation 1" in left.err
    assert states(dest) == {1: "retired", 2: "live"}
    assert again(dest).code == 0
    assert states(dest) == {1: "destroyed", 2: "live"}


def _flat(out: str) -> str:
    return " ".join(out.replace("│", " ").split())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        slow("file", "none of its files is there"),
        slow("list", "the list of its 5 files"),
        ("keys", "holds no key of it"),
        ("log", "not the one that was sealed"),
    ],
)
def test_a_proof_fails_on_what_speaks_against_it(dest: Path, spoil: str, words: str) -> None:
    kept_keys = keys_of(dest).read_text()
    (old, *_) = data_files(dest, "templates")
    content = old.read_bytes()
    assert again(dest).code == 0
    if spoil == "file":
        old.parent.mkdir(exist_ok=True)
        old.write_bytes(content)
    elif spoil == "list":
        (listed,) = (dest / "_ironmask" / "destroyed").iterdir()
        listed.write_text(listed.read_text().replace("1", "2"))
    elif spoil == "keys":
        both = json.loads(keys_of(dest).read_text())
        both["generations"]["1"] = json.loads(kept_keys)["generations"]["1"]
        keys_of(dest).write_text(json.dumps(both))
    else:
        entry = sorted((dest / "generations" / "_delta_log").glob("*.json"))[-1]
        entry.write_text(entry.read_text() + "\n")
    proved = ironmask("prove", dest, "--generation=1", f"--keys={keys_of(dest)}")
    assert proved.code == 1
    assert words in _flat(proved.out)


@pytest.mark.slow
def test_three_times_in_a_row_and_people_come_in_between(dest: Path, tmp_path: Path) -> None:
    for number in range(3):
        assert again(dest).code == 0
        name = f"late{number}"
        more = write_embeddings(tmp_path / f"{name}.parquet", [name], unit_vectors(1, 90 + number))
        answer = enroll(more, dest)
        assert answer.code == 0, answer.err
        joined = tmp_path / f"joined{number}.parquet"
        old = several(tmp_path / "old.parquet", PEOPLE)
        pq.write_table(_both(old, *sorted(tmp_path.glob("late*.parquet"))), joined)
        moved = again(dest, f"--source={joined}")
        assert moved.code == 0, moved.err
        assert len(rows(dest, "templates")) == PEOPLE + number + 1
        assert checked(dest).code == 0
    assert states(dest) == dict.fromkeys(range(1, 7), "destroyed") | {7: "live"}
    assert answers(dest, unit_vectors(PEOPLE)) == GENUINE


def _both(*paths: Path):
    import pyarrow as pa

    return pa.concat_tables([pq.read_table(path) for path in paths])


def test_several_files_of_embeddings_must_be_named(dest: Path, tmp_path: Path) -> None:
    more = write_embeddings(tmp_path / "more.parquet", ["late"], unit_vectors(1, 90))
    assert enroll(more, dest).code == 0
    answer = again(dest)
    assert (answer.code, "holds all of them with --source" in answer.errors[0]) == (2, True)
    assert states(dest) == {1: "live"}


def test_new_parameters(dest: Path) -> None:
    answer = again(dest, "--alpha=14", "--tolerance=0", "--encoding=float16")
    assert answer.code == 0, answer.err
    row = rows(dest, "templates")[0]
    assert (row["alpha"], row["tolerance"], row["encoding"]) == (14, 0, "float16.1")
    assert checked(dest).code == 0
    refused = enroll(several(dest.with_name("g2.parquet"), PEOPLE + 2), dest)
    assert (refused.code, "run `ironmask reprotect`" in refused.errors[0]) == (1, True)


def test_who_would_be_lost_stops_the_switch(dest: Path, tmp_path: Path) -> None:
    fewer = several(tmp_path / "fewer.parquet", PEOPLE - 1)
    answer = again(dest, f"--source={fewer}")
    assert answer.code == 1
    assert "1 people of generation 1" in answer.errors[0]
    assert "'s009'" in answer.errors[0]
    assert states(dest) == {1: "live", 2: "preparing"}
    assert answers(dest, unit_vectors(PEOPLE)) == GENUINE
    noted = checked(dest)
    assert noted.code == 0, noted.out
    assert "re-protection has not ended" in noted.out
    refused = enroll(several(tmp_path / "more.parquet", PEOPLE + 1), dest)
    assert (refused.code, "finish" in refused.errors[0]) == (1, True)
    let_go = again(dest, f"--source={fewer}", "--max-lost=1")
    assert let_go.code == 3, let_go.err
    assert states(dest) == {1: "destroyed", 2: "live"}
    assert len(rows(dest, "templates")) == PEOPLE - 1
    assert_sound_of_live(dest)


def assert_sound_of_live(dest: Path) -> None:
    answer = checked(dest)
    assert answer.code == 0, answer.out
    owners = [row["subject_id"] for row in rows(dest, "templates")]
    assert len(owners) == len(set(owners))


@pytest.mark.slow
def test_a_restart_takes_what_has_come_back(dest: Path, source: Path, tmp_path: Path) -> None:
    fewer = several(tmp_path / "fewer.parquet", PEOPLE - 1)
    assert again(dest, f"--source={fewer}").code == 1
    answer = again(dest, f"--source={source}", "--restart")
    assert answer.code == 0, answer.err
    assert answers(dest, unit_vectors(PEOPLE)) == GENUINE
    assert_sound_of_live(dest)


def test_giving_up_leaves_the_live_one(dest: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in data_files(dest, "templates")}
    fewer = several(tmp_path / "fewer.parquet", PEOPLE - 1)
    assert again(dest, f"--source={fewer}").code == 1
    answer = again(dest, "--abandon")
    assert answer.code == 0, answer.err
    assert states(dest) == {1: "live", 2: "destroyed"}
    assert {p: p.read_bytes() for p in data_files(dest, "templates")} == before
    assert_sound_of_live(dest)
    nothing = again(dest, "--abandon")
    assert (nothing.code, "no generation is being prepared" in nothing.errors[0]) == (1, True)
    assert again(dest).code == 0
    assert states(dest) == {1: "destroyed", 2: "destroyed", 3: "live"}


def test_an_unfinished_enrolment_comes_first(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "half"
    with pytest.raises(PowerCutError):
        run(request(source, dest), broken_after(2))
    answer = again(dest)
    assert answer.code == 1
    assert "unfinished run" in answer.errors[0]
    assert states(dest) == {1: "live"}
    resumed = enroll(source, dest, "--shard-size=4")
    assert resumed.code == 0, "a refusal leaves nothing behind"
    assert again(dest).code == 0


@pytest.mark.parametrize("command", [slow("rekey"), slow("rotate-mac"), "reprotect"])
def test_keys_of_a_generation_that_never_began_are_not_taken(dest: Path, command: str) -> None:
    tables = open_tables(dest)
    file = KeyFile.open(keys_of(dest), tables.table_id)
    file.add_generation(2)
    file.succeed(3, 1, rekey=False, rotate_mac=True)
    answer = again(dest, command=command)
    assert answer.code == 0, answer.err
    assert states(dest) == {1: "destroyed", 4: "live"}
    assert answers(dest, unit_vectors(PEOPLE)) == GENUINE


@pytest.mark.slow
def test_a_keyset_file_of_before_it_was_begun(dest: Path, tmp_path: Path) -> None:
    before = keys_of(dest).read_text()
    fewer = several(tmp_path / "fewer.parquet", PEOPLE - 1)
    assert again(dest, f"--source={fewer}").code == 1
    keys_of(dest).write_text(before)
    stuck = again(dest, f"--source={fewer}")
    assert (stuck.code, "--abandon" in stuck.errors[0]) == (1, True)
    assert again(dest, "--abandon").code == 0
    proved = ironmask("prove", dest, "--generation=2", f"--keys={keys_of(dest)}")
    assert proved.code == 0, proved.out
    assert again(dest).code == 0
    assert answers(dest, unit_vectors(PEOPLE)) == GENUINE


def test_photos_that_are_missing_are_told(dest: Path, source: Path) -> None:
    """Everybody keeps a template, one person of an embedding less."""
    whole = pq.read_table(source)
    pq.write_table(whole.slice(1), source)
    answer = again(dest, "--json")
    assert answer.code == 3
    found = json.loads(answer.out)
    assert (found["lost"], found["missing"]) == (0, 1)


def test_keys_of_another_table_are_refused(dest: Path, source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert enroll(source, other).code == 0
    answer = ironmask("reprotect", dest, "--executor=local", f"--keys={keys_of(other)}")
    assert answer.code == 1
    assert states(dest) == {1: "live"}


@pytest.mark.parametrize("command", ["rekey", slow("rotate-mac")])
def test_rows_are_made_from_rows(dest: Path, source: Path, command: str) -> None:
    source.unlink()  # no embedding is needed
    old = {row["subject_id"]: row for row in rows(dest, "templates")}
    tables = open_tables(dest)
    keys = ports.keys(keys_of(dest), tables.table_id, 1)
    opened = {i: open_row(tables.table_id, row, keys) for i, row in old.items()}
    answer = again(dest, command=command)
    assert answer.code == 0, answer.err
    new = {row["subject_id"]: row for row in rows(dest, "templates")}
    assert new.keys() == old.keys()
    assert states(dest) == {1: "destroyed", 2: "live"}
    now = ports.keys(keys_of(dest), tables.table_id, 2)
    for name, row in new.items():
        assert row["helper"] != old[name]["helper"]
        assert row["digests"] != old[name]["digests"]
        assert (row["template_id"] != old[name]["template_id"]) == (command == "rekey")
        stored = now.decrypt(row["helper"], _bound(tables.table_id, row))
        assert (stored != opened[name].helper) == (command == "rekey")
        assert open_row(tables.table_id, row, now).helper == opened[name].helper
    assert answers(dest, unit_vectors(PEOPLE)) == GENUINE
    assert_sound_of_live(dest)


def _bound(table_id: str, row) -> bytes:
    from pipelines.table.row_cipher import associated_data

    return associated_data(table_id, row)


@pytest.mark.slow
def test_one_after_another_of_every_kind(dest: Path, source: Path) -> None:
    for command in ("rekey", "rotate-mac", "rekey", "reprotect", "rotate-mac"):
        answer = again(dest, command=command)
        assert answer.code == 0, answer.err
        assert answers(dest, unit_vectors(PEOPLE)) == GENUINE, command
    assert_sound_of_live(dest)
    more = several(dest.with_name("more.parquet"), PEOPLE + 2)
    answer = enroll(more, dest)
    assert answer.code == 0, answer.err
    assert len(rows(dest, "templates")) == PEOPLE + 2
    assert_sound_of_live(dest)


def test_two_issues_are_never_found_in_what_lies_there(dest: Path) -> None:
    """The attack on two issues, fed every row that any file holds, with the current keys."""
    for _ in range(2):
        assert again(dest).code == 0
    tables = open_tables(dest)
    file = KeyFile.open(keys_of(dest), tables.table_id)
    alive = [n for n, record in file.generations().items() if record.state == "live"]
    assert alive == [3]
    keys = file.generation(3)
    found: dict[str, list] = {}
    for path in dest.rglob("*.parquet"):
        table = pq.ParquetFile(path).read()
        if "helper" in table.column_names:
            for row in table.to_pylist():
                opened = open_row(tables.table_id, {**row, "generation": 3}, keys)
                found.setdefault(row["subject_id"], []).append(opened)
    assert {name: len(issues) for name, issues in found.items()} == {
        f"s{number:03d}": 1 for number in range(PEOPLE)
    }


@pytest.mark.slow
def test_files_of_some_megabytes(tmp_path: Path) -> None:
    """Their bytes take another way to the disk."""
    names = [f"s{number:03d}" for number in range(PEOPLE + 10)]
    vectors = unit_vectors(len(names), width=512)
    source = write_embeddings(tmp_path / "e.parquet", names, vectors)
    dest = tmp_path / "table"
    more = ("--preset=paper", "--alpha=16", "--shard-size=64", "--vault")
    assert enroll(source, dest, *more).code == 0
    for command in ("rekey", "rotate-mac", "reprotect"):
        answer = again(dest, command=command)
        assert answer.code == 0, answer.err
        (file,) = data_files(dest, "templates")
        assert file.stat().st_size > 5 << 20
    assert ironmask("erase", "--yes", dest, "--subject=s003", f"--keys={keys_of(dest)}").code == 0
    assert answers(dest, vectors, skipped=3) == [True, False] * (PEOPLE - 1)
    assert checked(dest).code == 0
