"""Lost data files: their people are enrolled again, and nobody else is touched."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
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
    unit_vectors,
    write_embeddings,
)
from support.forging import FORGERIES, Place
from support.marks import few
from support.table import (
    assert_sound,
    checked,
    copied,
    data_files,
    keys_of,
    open_tables,
    rows,
    verified,
)

from infra.store.delta import DeltaTableHandle
from infra.store.objects import FsspecStore
from ironmask.errors import StorageError
from pipelines.table import layout

PEOPLE = 20
NAMES = [f"person-{number:03d}" for number in range(PEOPLE)]
Damaged = Callable[[Path], None]


def embeddings(path: Path, numbers: Any = range(PEOPLE), seed: int = 1) -> Path:
    """Two captures of each of some people."""
    vectors = unit_vectors(PEOPLE)[list(numbers)]
    owners = [NAMES[number] for number in numbers for _ in range(2)]
    return write_embeddings(path, owners, captures(vectors, 2, seed))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embeddings(tmp_path_factory.mktemp("source") / "gallery.parquet")


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files: of twelve people, in two row groups, and of eight, in one."""
    found = tmp_path_factory.mktemp("made") / "table"
    assert enroll(source, found, "--shard-size=24").code == 0
    assert [len(open_rows(path)) for path in data_files(found, "templates")] == [12, 8]
    return found


@pytest.fixture
def dest(made: Path, tmp_path: Path) -> Path:
    return copied(made, tmp_path / "table")


def open_rows(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
    return found


def repair(dest: Path, source: Path, *more: object) -> Answer:
    return ironmask(
        "repair", dest, f"--source={source}", "--executor=local", f"--keys={keys_of(dest)}",
        "--json", *more,
    )  # fmt: skip


def delete(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def flip_first_group(path: Path) -> None:
    flip(path, 1_000)


def flip_footer(path: Path) -> None:
    flip(path, path.stat().st_size - 20)


def flip_magic(path: Path) -> None:
    flip(path, 0)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def replace_by_another(path: Path) -> None:
    other = next(p for p in path.parent.glob("*.parquet") if p != path)
    shutil.copy(other, path)


# How a file of twelve people in groups of eight and four is damaged, and how many lose their row.
DAMAGES: dict[str, tuple[Damaged, int]] = {
    "deleted": (delete, 12),
    "cut": (cut, 12),
    "a bit of the first group": (flip_first_group, 8),
    "a bit of the footer": (flip_footer, 12),
    "a bit of the magic": (flip_magic, 0),
    "longer": (lengthen, 12),
    "another file": (replace_by_another, 12),
}


def state(dest: Path, but: str = "") -> dict[str, bytes]:
    """All files below a destination but those of the logs and the private ones."""
    found = {str(p.relative_to(dest)): p.read_bytes() for p in dest.rglob("*") if p.is_file()}
    return {
        name: content
        for name, content in found.items()
        if "_delta_log" not in name and "_ironmask" not in name and name != but
    }


def assert_everybody_verifies(dest: Path, numbers: Any = range(PEOPLE)) -> None:
    for number in numbers:
        assert verified(dest, NAMES[number], unit_vectors(PEOPLE)[[number]]) == [True], number
    stranger = unit_vectors(1, 99)
    assert verified(dest, NAMES[0], stranger) == [False]


def inspected(dest: Path) -> dict[str, Any]:
    found: dict[str, Any] = ironmask("inspect", dest, "--json").json()
    return found


@pytest.mark.parametrize("how", few(DAMAGES, "deleted", "a bit of the first group"))
def test_people_of_a_lost_file_are_enrolled_again(how: str, dest: Path, source: Path) -> None:
    damage, people = DAMAGES[how]
    lost, other = data_files(dest, "templates")
    untouched = {str(other.relative_to(dest)): other.read_bytes()}
    issues = {row["subject_id"]: row["template_id"] for row in rows(dest, "templates")}
    name = lost.name
    damage(lost)
    assert checked(dest).code == 1
    answer = repair(dest, source)
    assert answer.code == 0, answer.err
    done = answer.json()
    assert (done["files"], done["lost"], done["enrolled"], done["without"]) == (
        1,
        people,
        people,
        0,
    )
    found = checked(dest)
    assert found.code == 0, found.out
    assert_sound_but_lost(dest)
    assert_everybody_verifies(dest, range(0, PEOPLE, 3))
    now = {row["subject_id"]: row["template_id"] for row in rows(dest, "templates")}
    assert set(now) == set(NAMES)
    assert sum(now[who] != issues[who] for who in NAMES) == people
    assert untouched.items() <= state(dest).items()
    assert (inspected(dest)["two_issues"], inspected(dest)["lost"]) == (people, 0)
    if people:
        assert name not in {path.name for path in data_files(dest, "templates")}
    again = repair(dest, source)
    assert (again.code, again.json()["lost"], again.json()["files"]) == (0, 0, 0)


def assert_sound_but_lost(dest: Path) -> None:
    """What must hold of every destination, where outcomes of lost templates count no more."""
    settled = [row for row in rows(dest, "inputs") if row["reason"] != "lost"]
    owners = [row["subject_id"] for row in rows(dest, "templates")]
    assert len(owners) == len(set(owners)), "two live issues of one person"
    assert {row["subject_id"] for row in settled if row["outcome"] == "used"} == set(owners)
    for name in ("templates", "inputs", "vault"):
        listed = {str(dest / name / path) for path in open_tables(dest).table(name).files()}
        assert {str(path) for path in data_files(dest, name)} == listed, "an orphan survives"


def test_a_deleted_and_a_damaged_file_at_once(dest: Path, source: Path, tmp_path: Path) -> None:
    first, second = data_files(dest, "templates")
    extra = write_embeddings(tmp_path / "e.parquet", ["new-0", "new-1"], unit_vectors(2, 50))
    assert enroll(extra, dest).code == 0
    delete(first)
    flip_first_group(second)
    # Other photos, and people who have a template, or are strangers to the table.
    owners = [*NAMES, "new-1", "stranger"]
    vectors = [*captures(unit_vectors(PEOPLE), 1, 9), *unit_vectors(2, 60)]
    other = write_embeddings(tmp_path / "other.parquet", owners, vectors)
    answer = repair(dest, other)
    assert answer.code == 0, answer.err
    done = answer.json()
    assert (done["files"], done["lost"], done["summary"]["inputs"]) == (2, 20, 20)
    found = checked(dest)
    assert found.code == 0, found.out
    owners = [row["subject_id"] for row in rows(dest, "templates")]
    assert sorted(owners) == sorted([*NAMES, "new-0", "new-1"])
    assert_everybody_verifies(dest, range(0, PEOPLE, 5))


def test_the_error_names_the_people_and_the_command(
    dest: Path, source: Path, tmp_path: Path
) -> None:
    lost, _ = data_files(dest, "templates")
    delete(lost)
    keys = f"--keys={keys_of(dest)}"
    words = f"12 people; restore it from a backup, or enrol them again with `ironmask repair {dest}"
    for command in (
        ["check", dest, keys],
        ["enroll", source, dest, keys, "--executor=local", "--alpha=12", "--tolerance=1"],
        ["reprotect", dest, keys, "--executor=local"],
        ["rekey", dest, keys, "--executor=local"],
        ["evaluate", source, tmp_path / "out", f"--table={dest}", keys, "--executor=local"],
    ):
        answer = ironmask(*command)
        assert answer.code == 1, command
        assert words in " ".join((answer.out + answer.err).split()), command
    with pytest.raises(Exception, match="12 people; restore it from a backup, or enrol them again"):
        verified(dest, NAMES[0], unit_vectors(1))
    flipped = data_files(dest, "templates")[0]
    flip_footer(flipped)
    assert "8 people; restore it" in " ".join(ironmask("check", dest, keys).out.split())


def test_a_damaged_row_group_is_named_by_who_rewrites_it(dest: Path) -> None:
    lost, _ = data_files(dest, "templates")
    flip_first_group(lost)
    answer = ironmask("rekey", dest, "--executor=local", f"--keys={keys_of(dest)}")
    assert answer.code == 1
    assert (
        f"12 people; restore it from a backup, or enrol them again with `ironmask repair {dest}"
        in (answer.err)
    )


def test_who_is_not_in_the_source_stays_without(dest: Path, tmp_path: Path) -> None:
    lost, _ = data_files(dest, "templates")
    delete(lost)
    some = embeddings(tmp_path / "some.parquet", [1, 5, 15])
    answer = repair(dest, some)
    assert answer.code == 3
    done = answer.json()
    assert (done["lost"], done["enrolled"], done["without"]) == (12, 2, 10)
    assert "10 people are without a template still" in answer.err
    found = checked(dest)
    assert found.code == 0, found.out
    assert (inspected(dest)["lost"], inspected(dest)["two_issues"]) == (10, 2)
    # A source that has nobody of them changes nothing, and says so.
    again = repair(dest, some)
    assert (again.code, again.json()["without"], again.json()["enrolled"]) == (3, 10, 0)
    # Another source, or an ordinary enrolment, brings them.
    last = repair(dest, embeddings(tmp_path / "rest.parquet", range(0, 11)))
    assert (last.code, last.json()["without"]) == (3, 1)
    assert enroll(embeddings(tmp_path / "all.parquet"), dest).code == 0
    assert (inspected(dest)["lost"], inspected(dest)["two_issues"]) == (0, 12)
    assert_everybody_verifies(dest, range(0, PEOPLE, 5))
    found = checked(dest)
    assert found.code == 0, found.out


def test_who_fails_is_listed(dest: Path, tmp_path: Path) -> None:
    lost, _ = data_files(dest, "templates")
    delete(lost)
    vectors = [*captures(unit_vectors(11), 1, 9), [float("nan")] * 64]
    some = write_embeddings(tmp_path / "some.parquet", NAMES[:12], vectors)
    answer = repair(dest, some)
    assert (answer.code, answer.json()["without"]) == (3, 1)
    listed = ironmask("failures", dest, f"--keys={keys_of(dest)}", "--json").json()["failures"]
    assert [one["subject"] for one in listed] == [NAMES[11]]


def test_a_source_without_any_of_them_changes_nothing(dest: Path, tmp_path: Path) -> None:
    lost, _ = data_files(dest, "templates")
    flip_first_group(lost)
    before = state(dest)
    wrong = write_embeddings(tmp_path / "wrong.parquet", ["somebody"], unit_vectors(1, 3))
    answer = repair(dest, wrong)
    assert (answer.code, "nothing of the 8 people" in answer.err) == (1, True)
    assert state(dest) == before


def test_a_dry_run_writes_nothing(dest: Path, source: Path) -> None:
    lost, _ = data_files(dest, "templates")
    delete(lost)
    before = state(dest)
    answer = repair(dest, source, "--dry-run")
    assert (answer.code, answer.json()["lost"], answer.json()["listed"]) == (0, 12, 12)
    assert answer.json()["files"] == [str(lost.relative_to(dest / "templates"))]
    assert state(dest) == before


def test_outcomes_that_are_lost_are_refused(dest: Path, source: Path) -> None:
    (inputs,) = data_files(dest, "inputs")
    delete(data_files(dest, "templates")[0])
    content = inputs.read_bytes()
    delete(inputs)
    before = state(dest)
    answer = repair(dest, source)
    assert (answer.code, state(dest) == before) == (1, True)
    assert f"{inputs} held cannot be made anew" in answer.err
    inputs.write_bytes(content)
    assert repair(dest, source).code == 0
    assert checked(dest).code == 0


@pytest.mark.parametrize("table", ["runs", "generations", "metrics"])
def test_records_that_are_lost_are_refused(table: str, dest: Path, source: Path) -> None:
    delete(data_files(dest, "templates")[0])
    delete(data_files(dest, table)[0])
    before = state(dest)
    answer = repair(dest, source)
    assert (answer.code, state(dest) == before) == (1, True)
    assert f"{table}/rows-" in answer.err


def test_the_vault(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "kept"
    assert enroll(source, dest, "--shard-size=24", "--vault").code == 0
    delete(data_files(dest, "templates")[0])
    assert repair(dest, source).code == 0
    kept = [row["subject_id"] for row in rows(dest, "vault")]
    assert kept.count(NAMES[0]) == 4
    lost = data_files(dest, "vault")[0]
    people = {row["subject_id"] for row in open_rows(lost)}
    delete(lost)
    answer = repair(dest, source)
    assert (answer.code, answer.json()["embeddings"]) == (3, 2 * len(people))
    assert answer.json()["lost"] == 0
    found = checked(dest)
    assert found.code == 0, found.out
    assert checked(dest).code == 0


@pytest.mark.slow
def test_the_next_reprotection_ends_the_second_issues(dest: Path, source: Path) -> None:
    delete(data_files(dest, "templates")[0])
    assert repair(dest, source).code == 0
    keys = f"--keys={keys_of(dest)}"
    # Rows that are made from rows are no other issues.
    assert ironmask("rekey", dest, "--executor=local", keys).code == 0
    assert inspected(dest)["two_issues"] == 12
    answer = ironmask("reprotect", dest, "--executor=local", keys, "--json")
    assert answer.code == 0, answer.err
    assert answer.json()["missing"] == 0
    assert inspected(dest)["two_issues"] == 0
    found = checked(dest)
    assert found.code == 0, found.out
    assert_everybody_verifies(dest, [0, 19])


def test_who_was_erased_does_not_come_back(dest: Path, source: Path) -> None:
    keys = f"--keys={keys_of(dest)}"
    assert ironmask("erase", "--yes", dest, f"--subject={NAMES[2]}", keys).code == 0
    lost = next(p for p in data_files(dest, "templates") if len(open_rows(p)) == 11)
    delete(lost)
    answer = repair(dest, source)
    assert (answer.code, answer.json()["lost"]) == (0, 11)
    assert NAMES[2] not in {row["subject_id"] for row in rows(dest, "templates")}
    assert ironmask("prove", dest, f"--subject={NAMES[2]}", keys).code == 0
    # And who is erased after it is gone from what it wrote as well.
    assert ironmask("erase", "--yes", dest, f"--subject={NAMES[3]}", keys).code == 0
    assert ironmask("prove", dest, f"--subject={NAMES[3]}", keys).code == 0
    assert inspected(dest)["two_issues"] == 10
    found = checked(dest)
    assert found.code == 0, found.out


@pytest.mark.slow
def test_the_audit_counts_them_as_two_issues(dest: Path, source: Path, tmp_path: Path) -> None:
    delete(data_files(dest, "templates")[0])
    assert repair(dest, source).code == 0
    thief = write_embeddings(
        tmp_path / "thief.parquet", [f"x{n // 3}" for n in range(90)], unit_vectors(90, 7)
    )
    answer = ironmask(
        "audit", dest, f"--calibration={thief}", f"--out={tmp_path / 'audit'}",
        f"--keys={keys_of(dest)}", "--executor=local", "--seconds=1", "--sample=1", "--pairs=10",
        "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "12 people have two issues" in answer.json()["headline"]
    (attack,) = [one for one in answer.json()["attacks"] if "lost issue" in one["attack"]]
    assert "12 people who were enrolled again" in attack["needs"]


def test_pseudonyms(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "secret"
    assert enroll(source, dest, "--shard-size=24", "--pseudonymous").code == 0
    delete(data_files(dest, "templates")[0])
    answer = repair(dest, source)
    assert (answer.code, answer.json()["enrolled"]) == (0, len(open_rows_lost(dest)))
    found = checked(dest)
    assert found.code == 0, found.out


def open_rows_lost(dest: Path) -> set[str]:
    return {row["subject_id"] for row in rows(dest, "inputs") if row["reason"] == "lost"}


@pytest.mark.parametrize("how", FORGERIES)
@pytest.mark.parametrize("table", ["templates", "inputs"])
def test_a_forged_log_makes_it_do_nothing(
    how: str, table: str, dest: Path, source: Path, tmp_path: Path
) -> None:
    place = Place(str(dest), keys_of(dest), str(source), tmp_path / "out")
    FORGERIES[how](place, table)
    before = state(dest)
    answer = repair(dest, source)
    assert (answer.code, "was changed by other hands" in answer.err) == (1, True)
    assert state(dest) == before


def test_planted_files_make_nobody_lost(dest: Path, source: Path) -> None:
    """What lies beside the listed files is destroyed as leftovers are, and nobody is enrolled."""
    lost, _ = data_files(dest, "templates")
    file = layout.parse_shard_file(lost.name)
    assert file is not None
    planted = lost.with_name(lost.name.replace(file.attempt, "ab" * 8))
    shutil.copy(lost, planted)
    note = dest / "_ironmask" / "repair.json"
    note.write_text(json.dumps({"templates": [lost.name]}))
    answer = repair(dest, source)
    assert (answer.code, answer.json()["lost"], answer.json()["files"]) == (0, 0, 0)
    assert len(rows(dest, "templates")) == PEOPLE
    assert lost.exists()


def test_the_old_file_put_back_counts_for_nothing(dest: Path, source: Path) -> None:
    lost, _ = data_files(dest, "templates")
    content = lost.read_bytes()
    delete(lost)
    assert repair(dest, source).code == 0
    lost.write_bytes(content)
    assert_everybody_verifies(dest, [0])
    assert checked(dest).code == 1
    assert ironmask("vacuum", dest, f"--keys={keys_of(dest)}").code == 0
    assert not lost.exists()
    assert checked(dest).code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "nth"), [("runs", 1), ("inputs", 1), ("templates", 1), ("templates", 2)]
)
def test_one_that_was_broken_off_goes_on(
    table: str, nth: int, dest: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it commits what is taken out, and before it commits who was enrolled again."""
    first, second = data_files(dest, "templates")
    flip_first_group(first)
    delete(second)
    commit, met = DeltaTableHandle.commit, 0

    def cut_off(self: DeltaTableHandle, files: Any, *arguments: Any, **named: Any) -> None:
        nonlocal met
        if self.uri.endswith(f"/{table}"):
            met += 1
            if met == nth:
                raise PowerCutError
        commit(self, files, *arguments, **named)

    with monkeypatch.context() as broken:
        broken.setattr(DeltaTableHandle, "commit", cut_off)
        with pytest.raises(PowerCutError):
            repair(dest, source)
    owners = [row["subject_id"] for row in listed_rows(dest)]
    assert len(owners) == len(set(owners))
    answer = repair(dest, source)
    assert answer.code == 0, answer.err
    found = checked(dest)
    assert found.code == 0, found.out
    assert_sound_but_lost(dest)
    assert len(rows(dest, "templates")) == PEOPLE
    assert inspected(dest)["two_issues"] == 16
    assert_everybody_verifies(dest, [0, 9, 19])
    assert not {first.name, second.name} & {path.name for path in data_files(dest, "templates")}


def listed_rows(dest: Path) -> list[dict[str, Any]]:
    """The rows of those listed files that can be read."""
    found: list[dict[str, Any]] = []
    for path in open_tables(dest).table("templates").files():
        with contextlib.suppress(OSError, pa.ArrowException):
            found += open_rows(dest / "templates" / path)
    return found


def test_whom_nothing_sealed_names_is_not_taken_out(
    dest: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outcomes that name more or fewer people than the file had rows tell nothing."""
    delete(data_files(dest, "templates")[0])
    before = state(dest)
    monkeypatch.setattr("pipelines.repairing.damage._people", lambda *_: frozenset({"somebody"}))
    answer = repair(dest, source)
    assert (answer.code, "says whose its 12 templates were" in answer.err) == (1, True)
    assert state(dest) == before


def test_a_transfer_that_went_wrong_once_is_no_loss(
    dest: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, spoilt = FsspecStore.read, set()

    def once(self: FsspecStore, uri: str, limit: int | None = None) -> bytes:
        content = read(self, uri, limit)
        if "/templates/generation=" in uri and uri not in spoilt:
            spoilt.add(uri)
            return content[:-1]
        return content

    monkeypatch.setattr(FsspecStore, "read", once)
    answer = repair(dest, source)
    assert (answer.code, answer.json()["files"], len(spoilt)) == (0, 0, 2)


def test_a_store_that_does_not_answer_is_no_loss(
    dest: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(dest)
    read = FsspecStore.read

    def refused(self: FsspecStore, uri: str, limit: int | None = None) -> bytes:
        if "/templates/generation=" in uri:
            raise StorageError("the store refused")
        return read(self, uri, limit)

    with monkeypatch.context() as broken:
        broken.setattr(FsspecStore, "read", refused)
        assert repair(dest, source).code == 1
    assert state(dest) == before


def test_an_unfinished_enrolment_comes_first(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "half"
    with pytest.raises(PowerCutError):
        run(request(source, dest), broken_after(2))
    answer = repair(dest, source)
    assert (answer.code, "unfinished run of another kind" in answer.err) == (1, True)
    assert enroll(source, dest, "--shard-size=4").code == 0
    assert_sound(dest)


def test_another_model_is_refused(dest: Path, source: Path, tmp_path: Path) -> None:
    delete(data_files(dest, "templates")[0])
    wide = write_embeddings(tmp_path / "wide.parquet", NAMES, unit_vectors(PEOPLE, 0, 128))
    before = state(dest)
    for given, more in ((source, ["--model=other"]), (wide, [])):
        answer = repair(dest, given, *more)
        assert (answer.code, "other settings" in answer.err) == (1, True), answer.err
    assert state(dest) == before
