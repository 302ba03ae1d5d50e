"""The keys that live as long as a table."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from infra.keys.kek import LOCAL
from infra.keys.key_file import KeyFile
from ironmask.errors import KeyFileError, TamperedError, WrongKeyError

TABLE = "7d0c6a3e-table"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def file(path: Path) -> KeyFile:
    made = KeyFile.create(path, TABLE)
    made.add_generation(1)
    return made


def changed(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_every_rotation_keeps_them(file: KeyFile, path: Path) -> None:
    before = file.table()
    names = before.identity_key(1), before.identity_key(2), before.pseudonym_key()
    assert len(set(names)) == 3
    sealed = before.cipher("run").encrypt(b"box", b"row")
    file.succeed(2, 1, rekey=True, rotate_mac=True)
    file.add_generation(3)
    file.destroy_generation(1)
    file.rotate_kek(LOCAL)
    for keys in (file.table(), KeyFile.open(path, TABLE).generation(3).table):
        assert names == (keys.identity_key(1), keys.identity_key(2), keys.pseudonym_key())
        assert keys.cipher("run").decrypt(sealed, b"row") == b"box"


def test_details_are_bound_to_their_row_and_run(file: KeyFile) -> None:
    keys = file.table()
    sealed = keys.cipher("run").encrypt(b"box", b"row")
    assert keys.cipher("run").encrypt(b"box", b"row") != sealed
    for run, value, bound in (
        ("run", sealed, b"other"),
        ("other", sealed, b"row"),
        ("run", sealed[:-1], b"row"),
        ("run", b"", b"row"),
        ("run", bytes([sealed[0] ^ 1]) + sealed[1:], b"row"),
    ):
        with pytest.raises(TamperedError, match="does not open"):
            keys.cipher(run).decrypt(value, bound)


def test_two_tables_have_others(file: KeyFile, tmp_path: Path) -> None:
    other = KeyFile.create(tmp_path / "other.json", "another-table").table()
    assert other.pseudonym_key() != file.table().pseudonym_key()


def test_they_do_not_open_for_another_table(file: KeyFile, path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    KeyFile.create(other, "another-table")
    entry = json.loads(path.read_text())["table"]
    kek = json.loads(path.read_text())["kek"]
    changed(other, lambda content: content.update(table=entry, kek=kek))
    with pytest.raises(WrongKeyError):
        KeyFile.open(other, "another-table").table()


def test_a_file_of_before_gets_them_once(file: KeyFile, path: Path) -> None:
    changed(path, lambda content: content.pop("table"))
    before = KeyFile.open(path, TABLE)
    assert before.table() is None
    assert before.generation(1).table is None
    before.add_table()
    keys = before.table().pseudonym_key()
    before.add_table()
    assert KeyFile.open(path, TABLE).generation(1).table.pseudonym_key() == keys


def test_others_in_their_place_are_noticed(file: KeyFile, path: Path) -> None:
    held = KeyFile.open(path, TABLE)
    changed(path, lambda content: content.pop("table"))
    with pytest.raises(WrongKeyError, match="replaced"):
        held.generation(1)
    held = KeyFile.open(path, TABLE)
    held.add_table()
    with pytest.raises(WrongKeyError, match="replaced"):
        file.generation(1)


@pytest.mark.parametrize("damage", [None, {}, {"salt": "x"}, "text"])
def test_a_damaged_entry_is_refused(file: KeyFile, path: Path, damage) -> None:
    changed(path, lambda content: content.update(table=damage))
    with pytest.raises(KeyFileError, match="damaged"):
        KeyFile.open(path, TABLE)


def test_seals_are_noted_once_and_kept(file: KeyFile, path: Path, monkeypatch) -> None:
    def no_call(*_: object) -> None:
        raise AssertionError("a key was opened")

    held = KeyFile.open(path, TABLE)
    assert not held.has_seals()
    with monkeypatch.context() as patch:
        patch.setattr("infra.keys.kek.Kek.unwrap", no_call)
        patch.setattr("infra.keys.kek.Kek.wrap", no_call)
        held.note_seals()
        first = path.stat().st_ino
        held.note_seals()
        assert path.stat().st_ino == first
        assert file.has_seals()
    file.rotate_kek(LOCAL)
    file.add_generation(2)
    assert KeyFile.open(path, TABLE).has_seals()
    changed(path, lambda content: content["table"].pop("seals"))
    with pytest.raises(WrongKeyError, match="older copy"):
        held.has_seals()
    changed(path, lambda content: content["table"].update(seals="yes"))
    with pytest.raises(KeyFileError, match="damaged"):
        KeyFile.open(path, TABLE)


def test_they_cannot_be_copied_or_printed(file: KeyFile) -> None:
    for keys in (file.table(), file.table().cipher("run")):
        with pytest.raises(TypeError):
            pickle.dumps(keys)
        assert len(repr(keys)) < 100
