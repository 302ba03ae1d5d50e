"""A table that names nobody: subject ids and addresses are stored keyed, and all still works."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.command import ironmask
from support.enrolling import enroll, unit_vectors, write_embeddings
from support.marks import slow
from support.table import checked, keys_of, rows, told, verified

PEOPLE = [f"Zanzibar-Quux-{number:03d}" for number in range(6)]
LOCAL = "--executor=local"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    names = [name for name in PEOPLE for _ in range(2)]
    vectors = [v + 0.001 * n for n, v in enumerate(np.repeat(unit_vectors(len(PEOPLE)), 2, axis=0))]
    vectors[3] = np.full(len(vectors[3]), np.nan)
    return write_embeddings(tmp_path / "Sansibar.parquet", names, vectors)


@pytest.fixture
def dest(source: Path, tmp_path: Path) -> Path:
    made = tmp_path / "table"
    answer = enroll(source, made, "--pseudonymous", "--max-failures=1")
    assert answer.code == 0, answer.err
    return made


def everything(dest: Path) -> bytes:
    return b"".join(path.read_bytes() for path in dest.rglob("*") if path.is_file())


def assert_recognised(dest: Path) -> None:
    for place, vector in enumerate(unit_vectors(len(PEOPLE))):
        answers = [verified(dest, name, vector[None])[0] for name in PEOPLE[:3]]
        assert answers == [place == other for other in range(3)]


def test_no_label_lies_in_the_clear(dest: Path) -> None:
    for table in ("templates", "inputs"):
        found = rows(dest, table)
        assert {row["subject_id"][:2] for row in found} == {"p-"}
        assert len({row["subject_id"] for row in found}) == len(PEOPLE)
    assert {row["uri"][:2] for row in rows(dest, "inputs")} == {"a-"}
    assert b"Zanzibar" not in everything(dest)
    assert b"#row=" not in everything(dest)


def test_who_has_the_keys_sees_the_labels(dest: Path, source: Path) -> None:
    found = [told(dest, row) for row in rows(dest, "inputs")]
    assert sorted(facts["address"] for facts in found) == sorted(
        f"{source}#row={row}" for row in range(2 * len(PEOPLE))
    )
    (failed,) = [row for row in rows(dest, "inputs") if row["outcome"] == "failed"]
    facts = told(dest, failed)
    assert facts["subject"] == PEOPLE[1]
    assert "NaN" in facts["detail"]


def test_people_are_recognised_and_known_again(dest: Path, source: Path) -> None:
    assert_recognised(dest)
    answer = enroll(source, dest, "--pseudonymous", "--json")
    assert answer.json()["reasons"] == {"already_enrolled": 2 * len(PEOPLE)}
    assert checked(dest).code == 0


def test_both_kinds_do_not_mix(dest: Path, source: Path, tmp_path: Path) -> None:
    answer = enroll(source, dest)
    assert (answer.code, "pseudonymous is True there and False here" in answer.err) == (1, True)
    plain = tmp_path / "plain"
    assert enroll(source, plain, "--max-failures=1").code == 0
    answer = enroll(source, plain, "--pseudonymous")
    assert (answer.code, "pseudonymous is False there and True here" in answer.err) == (1, True)


@pytest.mark.parametrize("command", [slow("rekey"), slow("rotate-mac"), "reprotect"])
def test_generations_keep_the_pseudonyms(dest: Path, command: str) -> None:
    before = {row["subject_id"] for row in rows(dest, "templates")}
    answer = ironmask(command, dest, f"--keys={keys_of(dest)}", LOCAL)
    assert answer.code == 0, answer.err
    assert {row["subject_id"] for row in rows(dest, "templates")} == before
    assert b"Zanzibar" not in everything(dest)
    assert_recognised(dest)
    assert checked(dest).code == 0


def test_a_person_is_erased_by_name(dest: Path) -> None:
    keys = f"--keys={keys_of(dest)}"
    gone = PEOPLE[2]
    assert ironmask("erase", "--yes", dest, keys, f"--subject={gone}").code == 0
    proof = ironmask("prove", dest, keys, f"--subject={gone}", "--json")
    assert proof.code == 0, proof.out
    assert len(json.loads(proof.out)["record"]) == 1
    assert len(rows(dest, "templates")) == len(PEOPLE) - 1
    assert checked(dest).code == 0


@pytest.mark.slow
def test_its_templates_are_evaluated_by_the_labels(
    dest: Path, source: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    assert enroll(source, plain, "--max-failures=1").code == 0
    names = [*PEOPLE, *PEOPLE]
    probes = np.concatenate([unit_vectors(len(PEOPLE)), unit_vectors(len(PEOPLE)) + 0.01])
    both = [v + 0.001 * n for n, v in enumerate(np.repeat(unit_vectors(len(PEOPLE)), 2, axis=0))]
    (tmp_path / "Sansibar").mkdir()
    asked = write_embeddings(
        tmp_path / "Sansibar" / "Sansibar.parquet",
        [name for name in PEOPLE for _ in range(2)] + names,
        [*both, *probes],
    )
    told_of = []
    for number, table in enumerate((dest, plain)):
        answer = ironmask(
            "evaluate", asked, tmp_path / f"out{number}", f"--table={table}",
            f"--keys={keys_of(table)}", LOCAL, f"--seed={'ab' * 32}", "--json",
        )  # fmt: skip
        assert answer.code == 0, answer.err
        told_of.append(answer.json()["recogniser"])
    assert told_of[0] == told_of[1]


@pytest.mark.slow
def test_photos_are_read_where_they_are(tmp_path: Path, face_data: Path) -> None:
    people = sorted((face_data / "faces" / "lfw_dev").iterdir())[:2]
    source = tmp_path / "photos"
    for person in people:
        (source / person.name).mkdir(parents=True)
        for photo in sorted(person.iterdir())[:2]:
            (source / person.name / photo.name).write_bytes(photo.read_bytes())
    (source / people[0].name / "wreck.jpg").write_bytes(b"no picture")
    made = tmp_path / "table"
    model = f"--model={face_data / 'models' / 'buffalo_sc'}"
    answer = enroll(
        source, made, "--pseudonymous", model, "--alpha=16", "--tolerance=4", "--max-failures=1"
    )
    assert answer.code == 0, answer.err
    assert len(rows(made, "templates")) == 2
    (failed,) = [told(made, row) for row in rows(made, "inputs") if row["outcome"] == "failed"]
    assert failed["address"] == str(source / people[0].name / "wreck.jpg")
    probe = sorted(people[0].iterdir())[2]
    for person, code in ((people[0], 0), (people[1], 4)):
        asked = ironmask(
            "verify", made, probe, f"--subject={person.name}", model, f"--keys={keys_of(made)}"
        )
        assert asked.code == code, asked.err
    clear = [str(row) for table in ("templates", "inputs") for row in rows(made, table)]
    assert not [text for text in clear if people[0].name in text or str(source) in text]


@pytest.mark.slow
def test_the_vault_keeps_the_labels(source: Path, tmp_path: Path) -> None:
    made = tmp_path / "table"
    assert enroll(source, made, "--pseudonymous", "--vault", "--max-failures=1").code == 0
    used = {told(made, r)["address"] for r in rows(made, "inputs") if r["outcome"] == "used"}
    answer = ironmask("reprotect", made, "--vault", f"--keys={keys_of(made)}", LOCAL)
    assert answer.code == 0, answer.err
    newest = rows(made, "inputs")[-1]["run_id"]
    runs = {row["run_id"] for row in rows(made, "inputs")}
    assert len(runs) == 2
    for run in runs:
        own = [r for r in rows(made, "inputs") if r["run_id"] == run and r["outcome"] == "used"]
        assert {told(made, row)["address"] for row in own} == used
    assert newest in runs


def test_a_run_that_enrolled_nobody_left_labels_too(tmp_path: Path) -> None:
    nothing = [np.zeros(64, np.float32)] * 2
    bad = write_embeddings(tmp_path / "bad.parquet", PEOPLE[:2], nothing)
    made = tmp_path / "table"
    assert enroll(bad, made).code == 3
    answer = enroll(bad, made, "--pseudonymous")
    assert (answer.code, "pseudonymous is False there and True here" in answer.err) == (1, True)


def test_a_plan_that_was_put_back_is_found(dest: Path, tmp_path: Path) -> None:
    keys = f"--keys={keys_of(dest)}"
    plans = dest / "_ironmask" / "plans"
    kept = {path.relative_to(plans): path.read_bytes() for path in plans.rglob("*.parquet")}
    assert kept
    assert ironmask("erase", "--yes", dest, keys, f"--subject={PEOPLE[0]}").code == 0
    for name, content in kept.items():
        (plans / name).parent.mkdir(parents=True, exist_ok=True)
        (plans / name).write_bytes(content)
    proof = ironmask("prove", dest, keys, f"--subject={PEOPLE[0]}", "--json")
    assert proof.code == 1, proof.out
