"""The behaviour that the keys of every table promise, in a keyset file and in memory."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.memory_keys import MemoryKeyring

from infra.keys.key_file import KeyFile
from ironmask.errors import KeyNotFoundError, TamperedError

TABLE = "7d0c6a3e-table"


class KeysContract:
    """What `Keyring`, `GenerationKeys` and `TableKeys` of `pipelines.ports` promise.

    keyring: with keys of generation 1. How more are made is no part of the ports: the methods
    `add_generation` and `succeed` are those of a keyset file.
    """

    @pytest.fixture
    def keyring(self):
        raise NotImplementedError

    @pytest.fixture
    def other(self):
        """The keys of another table."""
        raise NotImplementedError

    def test_a_generation_without_keys_is_not_found(self, keyring):
        for number in (0, 2, -1):
            with pytest.raises(KeyNotFoundError):
                keyring.generation(number)

    def test_opened_twice_they_are_the_same(self, keyring):
        first, second = keyring.generation(1), keyring.generation(1)
        assert first.key_id == second.key_id
        assert first.row_key("row") == second.row_key("row")
        assert second.decrypt(first.encrypt(b"helper", b"row"), b"row") == b"helper"

    @pytest.mark.parametrize("plain", [b"", b"x", bytes(300)])
    def test_what_is_encrypted_is_decrypted(self, keyring, plain):
        keys = keyring.generation(1)
        sealed = keys.encrypt(plain, b"row")
        assert keys.decrypt(sealed, b"row") == plain
        assert keys.encrypt(plain, b"row") != sealed
        assert len(plain) < 8 or plain not in sealed

    def test_a_change_is_noticed(self, keyring):
        keys = keyring.generation(1)
        sealed = keys.encrypt(b"helper", b"row")
        flipped = [
            sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(len(sealed))
        ]
        for value in [*flipped, b"", sealed[:-1], sealed + b"\0", sealed[:20]]:
            with pytest.raises(TamperedError):
                keys.decrypt(value, b"row")

    def test_another_row_and_another_generation_are_noticed(self, keyring, other):
        keyring.add_generation(2)
        first, second = keyring.generation(1), keyring.generation(2)
        sealed = first.encrypt(b"helper", b"row 1")
        for keys, bound in ((first, b"row 2"), (first, b""), (second, b"row 1")):
            with pytest.raises(TamperedError):
                keys.decrypt(sealed, bound)
        with pytest.raises(TamperedError):
            other.generation(1).decrypt(sealed, b"row 1")

    def test_each_row_of_each_generation_has_its_own_key(self, keyring, other):
        keyring.add_generation(2)
        made = [keyring.generation(number).row_key(row) for number in (1, 2) for row in ("", "é")]
        made.append(other.generation(1).row_key(""))
        assert len(set(made)) == 5
        assert {len(key) for key in made} == {32}

    def test_a_row_that_names_too_many_earlier_ids_is_refused(self, keyring):
        keys = keyring.generation(1)
        assert keys.row_key("new", ["old"]) == keys.row_key("old")
        with pytest.raises(TamperedError, match="belongs to other keys"):
            keys.row_key("new", ["old", "older"])

    def test_a_successor_goes_on_from_what_it_succeeds(self, keyring):
        keyring.succeed(2, 1, rekey=True, rotate_mac=True)
        old, new = keyring.generation(1), keyring.generation(2)
        assert new.row_key("a").startswith(old.row_key("a"))
        assert len(new.row_key("a")) == 64
        assert new.content_key() == old.content_key()
        assert (old.shuffle_key("a"), len(new.shuffle_key("a"))) == (None, 32)
        assert new.log_seal_key() != old.log_seal_key()
        assert new.key_id != old.key_id
        with pytest.raises(TamperedError):
            new.decrypt(old.encrypt(b"helper", b"row"), b"row")

    @pytest.mark.parametrize("sealed", [True, False])
    def test_whether_helpers_are_encrypted_is_the_keys_word(self, keyring, sealed):
        keyring.add_generation(2, sealed=sealed)
        keyring.succeed(3, 2, rekey=False, rotate_mac=False)
        assert keyring.generation(2).sealed is sealed
        assert keyring.generation(3).sealed is sealed

    def test_no_two_uses_share_a_key(self, keyring):
        keyring.succeed(2, 1, rekey=True, rotate_mac=True)
        keys, table = keyring.generation(2), keyring.table()
        row = keys.row_key("")
        made = [row[:32], row[32:], keys.shuffle_key(""), keys.content_key(), keys.log_seal_key()]
        made += [table.identity_key(1), table.identity_key(2), table.pseudonym_key()]
        made.append(table.destruction_key())
        assert len(set(made)) == len(made) == 9
        assert {len(key) for key in made} == {32}

    def test_the_keys_of_the_table_outlive_generations(self, keyring, other):
        before = keyring.table()
        sealed = before.cipher("run").encrypt(b"box", b"row")
        keyring.succeed(2, 1, rekey=True, rotate_mac=True)
        keyring.destroy_generation(1)
        now = keyring.generation(2).table
        assert now.pseudonym_key() == before.pseudonym_key()
        assert now.destruction_key() == before.destruction_key()
        assert now.identity_key(2) == before.identity_key(2)
        assert now.cipher("run").decrypt(sealed, b"row") == b"box"
        assert other.table().pseudonym_key() != now.pseudonym_key()

    def test_details_are_bound_to_their_run_and_row(self, keyring):
        keys = keyring.table()
        sealed = keys.cipher("run").encrypt(b"box", b"row")
        for run, value, bound in (
            ("other", sealed, b"row"),
            ("run", sealed, b"other"),
            ("run", sealed[:-1], b"row"),
            ("run", b"", b"row"),
        ):
            with pytest.raises(TamperedError):
                keys.cipher(run).decrypt(value, bound)

    def test_a_destroyed_generation_has_no_keys_and_a_time(self, keyring):
        began = datetime.now(UTC).replace(microsecond=0)
        key_id = keyring.generation(1).key_id
        record = keyring.destroy_generation(1)
        assert record.key_id == key_id
        assert record.destroyed_at is not None
        assert began <= datetime.fromisoformat(record.destroyed_at) <= datetime.now(UTC)
        with pytest.raises(KeyNotFoundError, match="destroyed"):
            keyring.generation(1)

    def test_destroyed_again_nothing_changes(self, keyring):
        first = keyring.destroy_generation(1)
        assert keyring.destroy_generation(1) == first

    def test_what_never_had_keys_cannot_lose_them(self, keyring):
        with pytest.raises(KeyNotFoundError, match="never"):
            keyring.destroy_generation(2)

    def test_a_successor_outlives_what_it_came_from(self, keyring):
        keyring.succeed(2, 1, rekey=False, rotate_mac=False)
        before = keyring.generation(2).row_key("a")
        keyring.destroy_generation(1)
        assert keyring.generation(2).row_key("a") == before

    def test_they_are_not_copied_and_not_printed(self, keyring):
        keys, table = keyring.generation(1), keyring.table()
        secrets = [keys.row_key(""), keys.content_key(), table.pseudonym_key()]
        for one in (keyring, keys, table, table.cipher("run")):
            for leak in (pickle.dumps, copy.copy, copy.deepcopy):
                with pytest.raises(TypeError):
                    leak(one)
            shown = f"{one!r} {one}"
            assert not any(key.hex() in shown or repr(key) in shown for key in secrets)


class TestKeyFile(KeysContract):
    @pytest.fixture
    def keyring(self, tmp_path: Path) -> KeyFile:
        made = KeyFile.create(tmp_path / "keys" / "table.json", TABLE)
        made.add_generation(1)
        return made

    @pytest.fixture
    def other(self, tmp_path: Path) -> KeyFile:
        made = KeyFile.create(tmp_path / "keys" / "other.json", "other")
        made.add_generation(1)
        return made


class TestInMemory(KeysContract):
    @pytest.fixture
    def keyring(self) -> MemoryKeyring:
        made = MemoryKeyring(TABLE)
        made.add_generation(1)
        return made

    @pytest.fixture
    def other(self) -> MemoryKeyring:
        made = MemoryKeyring("other")
        made.add_generation(1)
        return made
