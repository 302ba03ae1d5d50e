"""The vault: templates made anew from encrypted embeddings, and from nothing else."""

from __future__ import annotations

import json
from pathlib import Path

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
from support.table import checked, data_files, keys_of, open_tables, rewrite, rows, verified

from infra.keys.key_file import KeyFile
from pipelines.table import layout

PEOPLE = 6


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return several(tmp_path / "gallery.parquet", PEOPLE)


def vault_keys_of(dest: Path) -> Path:
    return keys_of(dest).with_name(f"{keys_of(dest).stem}.vault.json")


@pytest.fixture
def dest(source: Path, tmp_path: Path) -> Path:
    made = tmp_path / "table"
    answer = enroll(source, made, "--shard-size=4", "--vault")
    assert answer.code == 0, answer.err
    assert "WARNING: the vault keeps everybody's embedding" in answer.err
    return made


def again(dest: Path, *more: object):
    keys = f"--keys={keys_of(dest)}"
    return ironmask("reprotect", dest, "--executor=local", "--vault", keys, *more)


def accepted(dest: Path) -> list[bool]:
    probes = enumerate(unit_vectors(PEOPLE))
    return [verified(dest, f"s{number:03d}", vector[None])[0] for number, vector in probes]


def test_it_is_empty_unless_asked_for(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "plain"
    assert enroll(source, dest).code == 0
    assert rows(dest, "vault") == []
    assert not vault_keys_of(dest).exists()
    answer = again(dest)
    assert answer.code == 2
    assert "enrolled with --vault" in answer.errors[0]
    assert not vault_keys_of(dest).exists()
    assert enroll(source, dest).code == 0, "a refusal leaves nothing behind"


@pytest.mark.slow
def test_templates_without_the_source(dest: Path, source: Path) -> None:
    source.unlink()
    kept = rows(dest, "vault")
    assert len(kept) == 2 * PEOPLE
    for _ in range(2):
        answer = again(dest)
        assert answer.code == 0, answer.err
        assert accepted(dest) == [True] * PEOPLE
        assert rows(dest, "vault") == kept
        assert checked(dest).code == 0
    found = rows(dest, "templates")
    assert {row["generation"] for row in found} == {3}
    assert {row["images_used"] for row in found} == {2}


def test_contents_are_known_by_the_new_keys(dest: Path, source: Path, tmp_path: Path) -> None:
    """Identities of contents are those of the new keys after a re-protection."""
    assert again(dest).code == 0
    stolen = write_embeddings(tmp_path / "other.parquet", ["other"], [_first(source)])
    answer = enroll(stolen, dest, "--json")
    assert json.loads(answer.out)["duplicate"] == 1


def _first(source: Path):
    import pyarrow.parquet as pq

    return pq.read_table(source)["embedding"][0].as_py()


def test_embeddings_lie_there_sealed(dest: Path, source: Path) -> None:
    import numpy as np

    plain = np.asarray(_first(source), "<f4").tobytes()
    for path in dest.rglob("*"):
        if path.is_file():
            assert plain[:16] not in path.read_bytes()
    tables = open_tables(dest)
    file = KeyFile.open(vault_keys_of(dest), layout.vault_id(tables.table_id))
    (record,) = file.generations().values()
    assert {row["key_id"] for row in rows(dest, "vault")} == {record.key_id}


def test_without_its_keys_it_is_closed(dest: Path) -> None:
    content = vault_keys_of(dest).read_text()
    vault_keys_of(dest).unlink()
    answer = again(dest)
    assert answer.code == 1
    assert "keyset file" in answer.errors[0]
    assert not vault_keys_of(dest).exists(), "new keys open nothing, and hide that the old are gone"
    vault_keys_of(dest).write_text(content)
    vault_keys_of(dest).chmod(0o600)
    assert again(dest).code == 0


def test_a_row_of_another_person_is_refused(dest: Path) -> None:
    def swap(found) -> None:
        found[0]["embedding"], found[-1]["embedding"] = (
            found[-1]["embedding"],
            found[0]["embedding"],
        )

    (file, *_) = data_files(dest, "vault")
    rewrite(file, swap)
    answer = again(dest)
    assert answer.code == 1
    assert "is not what was written" in answer.errors[0]


def test_its_keys_lie_apart(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "t"
    answer = enroll(source, dest, "--vault", f"--vault-keys={keys_of(dest)}")
    assert (answer.code, "keep the vault's apart" in answer.errors[0]) == (2, True)
    inside = enroll(source, dest, "--vault", f"--vault-keys={dest / 'v.json'}")
    assert (inside.code, "inside the table" in inside.errors[0]) == (2, True)


def test_a_kill_between_the_commits_of_a_wave_loses_nothing(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "t"
    with pytest.raises(PowerCutError):
        run(request(source, dest, vault=True), broken_after(2))
    assert enroll(source, dest, "--shard-size=4", "--vault").code == 0
    assert sorted(row["uri"] for row in rows(dest, "vault")) == sorted(
        row["uri"] for row in rows(dest, "inputs")
    )
    assert checked(dest).code == 0


@pytest.mark.parametrize("command", [slow("rekey"), "rotate-mac"])
def test_it_stays_when_rows_are_made_from_rows(dest: Path, command: str) -> None:
    kept = rows(dest, "vault")
    keys = vault_keys_of(dest).rename(dest.with_name("elsewhere.json"))
    answer = ironmask(command, dest, "--executor=local", f"--keys={keys_of(dest)}")
    assert answer.code == 0, answer.err
    assert rows(dest, "vault") == kept
    answer = again(dest, f"--vault-keys={keys}")
    assert answer.code == 0, answer.err
    assert accepted(dest) == [True] * PEOPLE


def test_a_source_beside_it_is_refused(dest: Path, source: Path) -> None:
    answer = again(dest, f"--source={source}")
    assert (answer.code, "leave --source out" in answer.errors[0]) == (2, True)


def test_its_kek_rotates(dest: Path) -> None:
    before = vault_keys_of(dest).read_text()
    answer = ironmask("rotate-kek", dest, "--vault", f"--keys={vault_keys_of(dest)}")
    assert answer.code == 0, answer.err
    assert vault_keys_of(dest).read_text() != before
    assert again(dest).code == 0


@pytest.mark.slow
def test_from_the_source_again_after_the_vault(dest: Path, source: Path) -> None:
    assert again(dest).code == 0
    plain = ["--executor=local", f"--keys={keys_of(dest)}"]
    answer = ironmask("reprotect", dest, *plain)
    assert answer.code == 0, answer.err
    assert accepted(dest) == [True] * PEOPLE
    source.unlink()
    gone = ironmask("reprotect", dest, *plain)
    assert (gone.code, "does not exist" in gone.errors[0]) == (1, True)
    assert ironmask("reprotect", dest, *plain, "--abandon").code == 1
