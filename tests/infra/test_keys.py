"""Keyset files: what opens them, what is refused, and that keys never leave their process."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import subprocess
import sys
import threading
from pathlib import Path

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.keys import kek
from infra.keys.key_file import KeyFile
from infra.keys.keysets import Keysets, TinkGenerationKeys
from infra.keys.paths import default_keys_path
from ironmask.errors import (
    KeyFileError,
    KeyNotFoundError,
    KeyStoreError,
    TamperedError,
    WrongKeyError,
)

TABLE = "7d0c6a3e-table"
ID = "2f1c7a52-9a4e-4c0b-8f7d-0123456789ab"
ASSOCIATED = b"row 1"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> TinkGenerationKeys:
    made = KeyFile.create(tmp_path_factory.mktemp("keys") / "table.json", TABLE)
    made.add_generation(1)
    return made.generation(1)


class TestGenerationKeys:
    @given(plain=st.binary(max_size=300), associated=st.binary(max_size=40))
    def test_opens_what_it_sealed(
        self, keys: TinkGenerationKeys, plain: bytes, associated: bytes
    ) -> None:
        sealed = keys.encrypt(plain, associated)
        assert keys.decrypt(sealed, associated) == plain
        assert keys.encrypt(plain, associated) != sealed
        assert len(plain) < 8 or plain not in sealed

    @given(data=st.data(), plain=st.binary(min_size=1, max_size=80))
    def test_a_flipped_bit_is_noticed(
        self, keys: TinkGenerationKeys, data: st.DataObject, plain: bytes
    ) -> None:
        sealed = bytearray(keys.encrypt(plain, ASSOCIATED))
        sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        with pytest.raises(TamperedError, match="row was changed"):
            keys.decrypt(bytes(sealed), ASSOCIATED)

    def test_another_row_another_generation_and_nothing_are_refused(
        self, key_file: KeyFile
    ) -> None:
        key_file.add_generation(2)
        first, second = key_file.generation(1), key_file.generation(2)
        sealed = first.encrypt(b"helper", ASSOCIATED)
        for keys, value, bound in [
            (first, sealed, b"row 2"),
            (second, sealed, ASSOCIATED),
            (first, b"", ASSOCIATED),
            (first, sealed[:20], ASSOCIATED),
        ]:
            with pytest.raises(TamperedError, match="another"):
                keys.decrypt(value, bound)

    def test_row_keys_differ_by_row_and_generation_and_last(
        self, key_file: KeyFile, path: Path
    ) -> None:
        key_file.add_generation(2)
        made = [key_file.generation(g).row_key(row) for g in (1, 2) for row in ("a", "b", "é")]
        assert len(set(made)) == 6
        assert {len(key) for key in made} == {32}
        assert KeyFile.open(path, TABLE).generation(1).row_key("a") == made[0]

    def test_a_row_key_is_not_the_public_check_value(self, key_file: KeyFile) -> None:
        keys = key_file.generation(1)
        assert not keys.row_key("").hex().startswith(keys.key_id)


class TestNothingLeaks:
    @pytest.fixture(params=["file", "generation", "keysets", "kek"])
    def secret(self, request: pytest.FixtureRequest, key_file: KeyFile) -> object:
        local = kek.resolve(kek.LOCAL, kek.local_keyset())
        secrets = {
            "file": key_file,
            "generation": key_file.generation(1),
            "keysets": Keysets.fresh(),
            "kek": local,
        }
        return secrets[request.param]

    @pytest.mark.parametrize(
        "leak",
        [
            *[lambda s, p=p: pickle.dumps(s, p) for p in range(pickle.HIGHEST_PROTOCOL + 1)],
            cloudpickle.dumps,
            copy.copy,
            copy.deepcopy,
            lambda s: s.__reduce__(),
            lambda s: s.__getstate__(),
            vars,
            lambda s: pickle.dumps({"inside": [s]}),
            lambda s: cloudpickle.dumps(lambda: s),
            json.dumps,
        ],
    )
    def test_no_copy_leaves_the_process(self, secret: object, leak) -> None:
        with pytest.raises(TypeError):
            leak(secret)

    def test_names_in_text_are_public_ones(self, key_file: KeyFile, path: Path) -> None:
        keys = key_file.generation(1)
        assert repr(keys) == (
            f"TinkGenerationKeys(table_id='{TABLE}', generation=1, key_id='{keys.key_id}')"
        )
        assert repr(key_file) == f"KeyFile(path='{path}', table_id='{TABLE}')"
        assert f"{keys}" == repr(keys)

    def test_no_error_quotes_the_file(self, key_file: KeyFile, path: Path) -> None:
        content = json.loads(path.read_text())
        key = json.loads(content["kek"]["keyset"])["key"][0]["keyData"]["value"]
        entry = content["generations"]["1"]
        entry["data"] = wrapped = entry["prf"][0]
        path.write_text(json.dumps(content))
        with pytest.raises(WrongKeyError) as caught:
            KeyFile.open(path, TABLE).generation(1)
        assert caught.value.__cause__ is None
        assert key not in str(caught.value)
        assert wrapped not in str(caught.value)


class TestFile:
    def test_only_the_owner_may_read_it(self, key_file: KeyFile, path: Path) -> None:
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert sorted(p.name for p in path.parent.iterdir()) == [".table.json.lock", "table.json"]

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o777])
    def test_a_file_open_to_others_is_refused(
        self, key_file: KeyFile, path: Path, mode: int
    ) -> None:
        path.chmod(mode)
        with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
            KeyFile.open(path, TABLE)
        with pytest.raises(KeyFileError, match="chmod 600"):
            key_file.add_generation(2)

    def test_a_missing_file_says_where_and_why(self, path: Path) -> None:
        with pytest.raises(KeyNotFoundError, match=f"{path}.*--keys.*cannot be"):
            KeyFile.open(path, TABLE)

    def test_another_table_is_refused(self, key_file: KeyFile, path: Path) -> None:
        with pytest.raises(WrongKeyError, match="not of other"):
            KeyFile.open(path, "other")

    def test_never_overwritten(self, key_file: KeyFile, path: Path) -> None:
        before = path.read_bytes()
        with pytest.raises(KeyFileError, match="never overwritten"):
            KeyFile.create(path, TABLE)
        with pytest.raises(KeyFileError, match="never"):
            key_file.add_generation(1)
        assert path.read_bytes() == before

    def test_generations_are_listed_without_keys(self, key_file: KeyFile) -> None:
        key_file.add_generation(7)
        assert {g: r.state for g, r in key_file.generations().items()} == {1: "live", 7: "live"}
        assert key_file.generations()[7].key_id == key_file.generation(7).key_id
        assert len(bytes.fromhex(key_file.generations()[7].key_id)) == 8

    def test_an_open_file_sees_a_generation_added_elsewhere(
        self, key_file: KeyFile, path: Path
    ) -> None:
        other = KeyFile.open(path, TABLE)
        key_file.add_generation(2)
        assert other.generation(2).key_id == key_file.generation(2).key_id

    def test_generations_without_keys_are_refused(self, key_file: KeyFile) -> None:
        for number in (2, 0, -1):
            with pytest.raises(KeyNotFoundError, match=f"generation {number} "):
                key_file.generation(number)
        with pytest.raises(KeyFileError, match="count from 1"):
            key_file.add_generation(0)

    def test_a_replaced_file_is_noticed(self, key_file: KeyFile, path: Path) -> None:
        path.unlink()
        KeyFile.create(path, TABLE)
        with pytest.raises(WrongKeyError, match="replaced"):
            key_file.add_generation(2)

    def test_another_table_in_its_place_is_noticed(self, key_file: KeyFile, path: Path) -> None:
        path.write_text(path.read_text().replace(TABLE, "other"))
        with pytest.raises(WrongKeyError, match="replaced"):
            key_file.generation(1)

    def test_a_link_is_followed_and_kept(self, key_file: KeyFile, path: Path) -> None:
        link = path.with_name("link.json")
        link.symlink_to(path)
        KeyFile.open(link, TABLE).add_generation(2)
        assert link.is_symlink()
        assert 2 in KeyFile.open(path, TABLE).generations()

    def test_an_unwritable_place_is_an_error_of_ours(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(KeyFileError, match="cannot be written"):
            KeyFile.create(tmp_path / "file" / "keys.json", TABLE)

    def test_a_failed_write_keeps_the_old_file(
        self, key_file: KeyFile, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = path.read_bytes()

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(KeyFileError, match="No space left"):
            key_file.add_generation(2)
        monkeypatch.undo()
        assert path.read_bytes() == before
        assert len(list(path.parent.iterdir())) == 2
        assert list(key_file.generations()) == [1]

    def test_default_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("IRONMASK_KEYS", raising=False)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        assert default_keys_path(ID) == tmp_path / "ironmask" / "keys" / f"{ID}.json"
        monkeypatch.delenv("XDG_CONFIG_HOME")
        assert default_keys_path(ID) == Path.home() / f".config/ironmask/keys/{ID}.json"
        assert default_keys_path(ID.upper()).stem == ID.upper()
        monkeypatch.setenv("IRONMASK_KEYS", "~/k.json")
        assert default_keys_path("t") == Path.home() / "k.json"

    @pytest.mark.parametrize(
        "table_id", ["../../../planted", "t", "", "-" * 36, ID + "\n", f"../{ID}", ID[:-1] + "/"]
    )
    def test_an_id_of_a_log_names_no_other_place(
        self, monkeypatch: pytest.MonkeyPatch, table_id: str
    ) -> None:
        monkeypatch.delenv("IRONMASK_KEYS", raising=False)
        with pytest.raises(KeyFileError, match=r"no UUID.*name the file with --keys"):
            default_keys_path(table_id)


DAMAGE = [
    b"",
    b"{}",
    b"[]",
    b"null",
    b'{"format": "ironmask-keys/2"}',
    b"[" * 100_000,
    b"\xff\xfe",
    json.dumps({"format": "ironmask-keys/1", "table_id": 3, "kek": {}, "generations": {}}).encode(),
]


ENTRIES = [
    {"state": "destroyed"},
    {"state": "retired"},
    {"data": None},
    {"prf": []},
    {"prf": "x"},
    {"prf": [None]},
    {"shuffle": 3},
    {"salt": ""},
    {"key_id": "g" * 16},
    {"helpers": "open"},
    {"made_at": "yesterday"},
    {"made_at": "2026-01-01T00:00:00"},
    {"made_at": "2026-01-01T00:00:00+01:00"},
    {"made_at": None},
    {"destroyed_at": "2026-01-01T00:00:00+00:00"},
    {"more": 1},
]


class TestDamage:
    @pytest.mark.parametrize("content", DAMAGE)
    def test_what_is_no_keyset_file(self, path: Path, key_file: KeyFile, content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(KeyFileError, match=str(path)):
            KeyFile.open(path, TABLE)

    @pytest.mark.parametrize("change", ENTRIES)
    def test_what_is_no_entry(self, path: Path, key_file: KeyFile, change: dict) -> None:
        content = json.loads(path.read_text())
        content["generations"]["1"] |= change
        path.write_text(json.dumps(content))
        with pytest.raises(KeyFileError, match="damaged"):
            KeyFile.open(path, TABLE)

    def test_every_bit_flip_is_refused_or_harmless(self, path: Path, key_file: KeyFile) -> None:
        """A changed file never yields another key: it gives the same keys or an error of ours."""
        keys = key_file.generation(1)
        sealed, row_key = keys.encrypt(b"helper", ASSOCIATED), keys.row_key("row")
        whole = path.read_bytes()
        chooser = random.Random(1)
        outcomes = {"same": 0, "refused": 0}
        for place in range(len(whole)):
            changed = bytearray(whole)
            changed[place] ^= 1 << chooser.randrange(8)
            path.write_bytes(changed)
            try:
                again = KeyFile.open(path, TABLE).generation(1)
            except KeyStoreError:
                outcomes["refused"] += 1
                continue
            assert again.key_id == keys.key_id
            assert again.row_key("row") == row_key
            assert again.decrypt(sealed, ASSOCIATED) == b"helper"
            outcomes["same"] += 1
        assert outcomes["refused"] > 0.8 * len(whole), outcomes

    def test_every_truncation_is_refused(self, path: Path, key_file: KeyFile) -> None:
        whole = path.read_bytes()
        for length in range(0, len(whole), 7):
            path.write_bytes(whole[:length])
            with pytest.raises(KeyFileError):
                KeyFile.open(path, TABLE)

    @pytest.mark.parametrize("field", ["key_id", "salt", "helpers", "data", "prf"])
    def test_parts_of_another_generation_are_refused(
        self, path: Path, key_file: KeyFile, field: str
    ) -> None:
        key_file.add_generation(2, sealed=False)
        content = json.loads(path.read_text())
        content["generations"]["1"][field] = content["generations"]["2"][field]
        path.write_text(json.dumps(content))
        with pytest.raises(WrongKeyError):
            KeyFile.open(path, TABLE).generation(1)

    def test_keysets_renamed_to_another_table_are_refused(
        self, path: Path, key_file: KeyFile
    ) -> None:
        path.write_text(path.read_text().replace(TABLE, "other"))
        with pytest.raises(WrongKeyError, match="another table"):
            KeyFile.open(path, "other").generation(1)


class TestConcurrentWriters:
    def test_one_of_many_creates(self, path: Path) -> None:
        made: list[object] = []

        def create() -> None:
            try:
                made.append(KeyFile.create(path, TABLE))
            except KeyFileError:
                made.append(None)

        run_all([create] * 8)
        assert sum(item is not None for item in made) == 1
        assert len(made) == 8
        KeyFile.open(path, TABLE)

    def test_no_generation_is_lost(self, path: Path) -> None:
        KeyFile.create(path, TABLE)
        run_all([lambda g=g: KeyFile.open(path, TABLE).add_generation(g) for g in range(1, 13)])
        opened = KeyFile.open(path, TABLE)
        assert sorted(opened.generations()) == list(range(1, 13))
        assert len({opened.generation(g).key_id for g in range(1, 13)}) == 12

    def test_processes_lock_each_other_out(self, path: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from infra.keys.key_file import KeyFile\n"
            f"KeyFile.open(Path(sys.argv[1]), {TABLE!r}).add_generation(int(sys.argv[2]))"
        )
        KeyFile.create(path, TABLE)
        command = [sys.executable, "-c", code, str(path)]
        started = [subprocess.Popen([*command, str(1 + g % 2)], stderr=-3) for g in (0, 2)]
        codes = [process.wait(60) for process in started]
        assert sorted(codes) == [0, 1]
        assert sorted(KeyFile.open(path, TABLE).generations()) == [1]


def run_all(calls: list) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_what_a_killed_writing_left_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "keys [1].json"
    leftover, other = tmp_path / f".{path.name}.{'0a' * 8}", tmp_path / ".another.json.00"
    for file in (leftover, other):
        file.write_text("{}")
    KeyFile.create(path, "table").add_generation(1)
    assert not leftover.exists()
    assert other.exists()
