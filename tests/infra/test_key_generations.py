"""A generation's keys: what each is, what the next one takes over, and how they are destroyed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from tink import KeysetHandle, json_proto_keyset_format, secret_key_access

from infra.keys.kek import Kek
from infra.keys.key_file import KeyFile, KeyRecord
from ironmask.errors import KeyFileError, KeyNotFoundError, TamperedError, WrongKeyError

TABLE = "7d0c6a3e-table"
CHOICES = [{"rekey": r, "rotate_mac": m} for r, m in product([False, True], repeat=2)]


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the generations of a keyset file by hand."""
    content = json.loads(path.read_text())
    change(content["generations"])
    path.write_text(json.dumps(content))


def raw_keys(key_file: KeyFile, generation: int, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The 32 bytes of each keyset of a generation, in the order in which they are opened."""
    caught: list[KeysetHandle] = []
    original = Kek.unwrap

    def unwrap(kek: Kek, text: str, bound: bytes) -> KeysetHandle:
        caught.append(original(kek, text, bound))
        return caught[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Kek, "unwrap", unwrap)
        key_file.generation(generation)
    texts = [json_proto_keyset_format.serialize(k, secret_key_access.TOKEN) for k in caught]
    return [base64.b64decode(json.loads(t)["key"][0]["keyData"]["value"])[-32:] for t in texts]


def mac(key: bytes, point: bytes) -> bytes:
    return hmac.new(key, point, hashlib.sha256).digest()


class TestWhatTheKeysAre:
    def test_a_fresh_generation_has_one_layer_and_no_shuffle(self, key_file: KeyFile) -> None:
        keys = key_file.generation(1)
        assert len(keys.row_key("a")) == 32
        assert keys.shuffle_key("a") is None

    def test_every_key_is_the_function_that_is_promised(
        self, key_file: KeyFile, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Against HMAC-SHA-256 of the standard library over the raw keys."""
        key_file.succeed(2, 1, rekey=True, rotate_mac=True)
        keys = key_file.generation(2)
        _, first, second, shuffle, table = raw_keys(key_file, 2, monkeypatch)
        assert first == raw_keys(key_file, 1, monkeypatch)[1]
        row = b"ironmask row key\0" + "é".encode()
        assert keys.row_key("é") == mac(first, row) + mac(second, row)
        assert keys.shuffle_key("é") == mac(shuffle, b"ironmask shuffle key\0" + "é".encode())
        assert keys.content_key() == mac(first, b"ironmask content key\0")
        point = b"ironmask table key\0"
        assert keys.table.identity_key(2) == mac(table, point + b"identities\x002")
        assert keys.table.pseudonym_key() == mac(table, point + b"pseudonyms")
        earlier = keys.row_key("new", ["é"])
        assert earlier == mac(first, row) + mac(second, b"ironmask row key\0new")
        assert keys.log_seal_key() == mac(
            second, b"ironmask seal key\0" + bytes.fromhex(keys.key_id)
        )

        salt = json.loads(path.read_text())["generations"]["2"]["salt"]
        place = f"ironmask-keys/1\0{TABLE}\x002\0key id\0sealed\0{salt}".encode()
        parts = [(b"prf 0", first), (b"prf 1", second), (b"shuffle", shuffle)]
        checks = [name + b"\0" + mac(key, b"ironmask key id\0") for name, key in parts]
        assert hashlib.sha256(place + b"".join(checks)).hexdigest()[:16] == keys.key_id

    def test_no_two_uses_give_the_same_key(self, key_file: KeyFile) -> None:
        key_file.succeed(2, 1, rekey=True, rotate_mac=True)
        keys = key_file.generation(2)
        row = keys.row_key("")
        made = [row[:32], row[32:], keys.shuffle_key(""), keys.content_key(), keys.log_seal_key()]
        assert len(set(made)) == 5


class TestSucceed:
    @pytest.mark.parametrize("choice", CHOICES)
    def test_what_is_carried_over_and_what_is_new(
        self, key_file: KeyFile, path: Path, choice: dict[str, bool]
    ) -> None:
        key_file.succeed(2, 1, **choice)
        old, new = (KeyFile.open(path, TABLE).generation(g) for g in (1, 2))
        assert new.row_key("a").startswith(old.row_key("a"))
        assert len(new.row_key("a")) == (64 if choice["rotate_mac"] else 32)
        assert (new.shuffle_key("a") is not None) == choice["rekey"]
        assert new.content_key() == old.content_key()
        assert new.log_seal_key() != old.log_seal_key()
        assert new.key_id != old.key_id
        assert new.decrypt(new.encrypt(b"helper", b"row"), b"row") == b"helper"
        with pytest.raises(TamperedError):
            new.decrypt(old.encrypt(b"helper", b"row"), b"row")

    def test_a_shuffle_lasts_until_the_next_rekey(self, key_file: KeyFile) -> None:
        key_file.succeed(2, 1, rekey=True, rotate_mac=False)
        key_file.succeed(3, 2, rekey=False, rotate_mac=True)
        key_file.succeed(4, 3, rekey=True, rotate_mac=True)
        made = {g: key_file.generation(g) for g in (2, 3, 4)}
        assert made[2].shuffle_key("a") == made[3].shuffle_key("a")
        assert made[3].shuffle_key("a") != made[4].shuffle_key("a")
        assert [len(keys.row_key("a")) for keys in made.values()] == [32, 64, 96]
        assert len({keys.content_key() for keys in made.values()}) == 1
        assert len({keys.log_seal_key() for keys in made.values()}) == 3
        assert len({keys.key_id for keys in made.values()}) == 3

    @pytest.mark.parametrize("sealed", [True, False])
    def test_whether_helpers_are_sealed_is_carried_over(self, path: Path, sealed: bool) -> None:
        made = KeyFile.create(path, TABLE)
        made.add_generation(1, sealed=sealed)
        made.succeed(2, 1, rekey=True, rotate_mac=True)
        assert made.generation(2).sealed == sealed

    def test_nothing_is_replaced_and_nothing_comes_from_nothing(
        self, key_file: KeyFile, path: Path
    ) -> None:
        key_file.add_generation(2)
        key_file.destroy_generation(2)
        before = path.read_bytes()
        for generation, of, error, match in [
            (1, 1, KeyFileError, "already"),
            (2, 1, KeyFileError, "already"),
            (0, 1, KeyFileError, "count from 1"),
            (3, 2, KeyNotFoundError, "destroyed"),
            (3, 4, KeyNotFoundError, "never had"),
        ]:
            with pytest.raises(error, match=match):
                key_file.succeed(generation, of, rekey=True, rotate_mac=True)
        assert path.read_bytes() == before

    def test_a_generation_made_again_elsewhere_has_another_name(
        self, key_file: KeyFile, path: Path
    ) -> None:
        """Two copies of a file each make generation 2: the one's keys never pass as the other's."""
        copy = path.with_name("copy.json")
        shutil.copy(path, copy)
        for each in (path, copy):
            KeyFile.open(each, TABLE).succeed(2, 1, rekey=False, rotate_mac=False)
        here, there = (KeyFile.open(each, TABLE).generation(2) for each in (path, copy))
        assert here.key_id != there.key_id
        other = json.loads(copy.read_text())["generations"]["2"]
        edit(path, lambda found: found["2"].update(data=other["data"]))
        with pytest.raises(WrongKeyError):
            KeyFile.open(path, TABLE).generation(2)


SWAPS: dict[str, Callable[[dict[str, Any]], None]] = {
    "newest layer dropped": lambda found: found["2"]["prf"].pop(),
    "oldest layer dropped": lambda found: found["2"]["prf"].pop(0),
    "layers swapped": lambda found: found["2"]["prf"].reverse(),
    "layer repeated": lambda found: found["2"]["prf"].append(found["2"]["prf"][1]),
    "layer of the old generation": lambda found: found["2"]["prf"].__setitem__(
        0, found["1"]["prf"][0]
    ),
    "shuffle dropped": lambda found: found["2"].update(shuffle=None),
    "shuffle of another": lambda found: found["2"].update(shuffle=found["3"]["shuffle"]),
    "shuffle as layer": lambda found: found["2"]["prf"].__setitem__(1, found["2"]["shuffle"]),
    "data of the old generation": lambda found: found["2"].update(data=found["1"]["data"]),
    "another name": lambda found: found["2"].update(key_id=found["1"]["key_id"]),
    "another salt": lambda found: found["2"].update(salt=found["1"]["salt"]),
    "another entry": lambda found: found.update({"2": found["3"]}),
}


@pytest.mark.parametrize("swap", SWAPS.values(), ids=SWAPS)
def test_swapped_keysets_are_noticed(
    key_file: KeyFile, path: Path, swap: Callable[[dict[str, Any]], None]
) -> None:
    key_file.succeed(2, 1, rekey=True, rotate_mac=True)
    key_file.succeed(3, 2, rekey=False, rotate_mac=False)
    edit(path, swap)
    with pytest.raises(WrongKeyError):
        KeyFile.open(path, TABLE).generation(2)
    with pytest.raises(WrongKeyError):
        KeyFile.open(path, TABLE).succeed(4, 2, rekey=True, rotate_mac=True)


def test_a_dropped_layer_is_named(key_file: KeyFile, path: Path) -> None:
    key_file.succeed(2, 1, rekey=True, rotate_mac=True)
    key_id = key_file.generations()[2].key_id
    edit(path, SWAPS["newest layer dropped"])
    with pytest.raises(WrongKeyError, match=f"generation 2 are not those named {key_id}"):
        key_file.generation(2)


class TestDestroy:
    NOW = datetime(2031, 5, 6, 9, 8, 7, tzinfo=UTC) + timedelta(milliseconds=5)
    TEXT = "2031-05-06T09:08:07+00:00"

    def test_the_keysets_are_gone_for_good(self, key_file: KeyFile, path: Path) -> None:
        key_file.succeed(2, 1, rekey=True, rotate_mac=True)
        entry = json.loads(path.read_text())["generations"]["2"]
        kept = key_file.generation(1).row_key("a")
        record = key_file.destroy_generation(2, self.NOW)
        made = KeyRecord(entry["key_id"], "destroyed", entry["made_at"], self.TEXT)
        assert record == made == KeyFile.open(path, TABLE).generations()[2]
        text = path.read_text()
        assert not any(w in text for w in [entry["data"], entry["shuffle"], *entry["prf"]])
        assert sorted(p.name for p in path.parent.iterdir()) == [".table.json.lock", "table.json"]
        for opened in (key_file, KeyFile.open(path, TABLE)):
            with pytest.raises(KeyNotFoundError, match=r"generation 2 \(destroyed\)"):
                opened.generation(2)
            assert opened.generation(1).row_key("a") == kept

    def test_again_it_stays_as_it_is(self, key_file: KeyFile, path: Path) -> None:
        first = key_file.destroy_generation(1, self.NOW)
        before = path.read_bytes(), path.stat().st_ino
        assert key_file.destroy_generation(1) == first
        assert KeyFile.open(path, TABLE).destroy_generation(1) == first
        assert (path.read_bytes(), path.stat().st_ino) == before
        with pytest.raises(KeyFileError, match="already"):
            key_file.add_generation(1)

    def test_again_it_is_made_durable(
        self, key_file: KeyFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first try may have been killed between the new file's rename and its fsync."""
        key_file.destroy_generation(1)
        synced, fsync = [], os.fsync
        monkeypatch.setattr(os, "fsync", lambda d: synced.append(os.readlink(f"/proc/self/fd/{d}")))
        key_file.destroy_generation(1)
        monkeypatch.setattr(os, "fsync", fsync)
        assert synced == [str(key_file.path.parent)]

    def test_what_never_had_keys(self, key_file: KeyFile, path: Path) -> None:
        before = path.read_bytes()
        with pytest.raises(KeyNotFoundError, match="never had keys of generation 2"):
            key_file.destroy_generation(2)
        assert path.read_bytes() == before

    def test_times_are_utc(self, key_file: KeyFile) -> None:
        began = datetime.now(UTC).replace(microsecond=0)
        key_file.succeed(2, 1, rekey=False, rotate_mac=False)
        record = key_file.generations()[2]
        assert record.destroyed_at is None
        assert began <= datetime.fromisoformat(record.made_at) <= datetime.now(UTC)
        gone = key_file.destroy_generation(2)
        assert gone.destroyed_at is not None
        assert began <= datetime.fromisoformat(gone.destroyed_at) <= datetime.now(UTC)
        assert gone.destroyed_at.endswith("+00:00")

    def test_the_successor_outlives_what_it_came_from(self, key_file: KeyFile) -> None:
        key_file.succeed(2, 1, rekey=True, rotate_mac=True)
        before = key_file.generation(2)
        key_file.destroy_generation(1)
        assert key_file.generation(2).row_key("a") == before.row_key("a")
        key_file.succeed(3, 2, rekey=False, rotate_mac=False)
        assert key_file.generation(3).content_key() == before.content_key()

    def test_others_see_it_at_once(self, key_file: KeyFile, path: Path) -> None:
        other = KeyFile.open(path, TABLE)
        other.generation(1)
        key_file.add_generation(2)
        key_file.destroy_generation(1)
        with pytest.raises(KeyNotFoundError, match="destroyed"):
            other.generation(1)
        assert other.generation(2).key_id == key_file.generation(2).key_id
        assert [r.state for r in other.generations().values()] == ["destroyed", "live"]
        with pytest.raises(KeyNotFoundError, match="destroyed"):
            other.succeed(3, 1, rekey=True, rotate_mac=True)

    def test_an_older_copy_in_its_place_is_noticed(self, key_file: KeyFile, path: Path) -> None:
        older = path.read_bytes()
        key_file.destroy_generation(1)
        path.write_bytes(older)
        for call in (key_file.generations, lambda: key_file.generation(1)):
            with pytest.raises(WrongKeyError, match="an older copy"):
                call()

    def test_a_failed_write_destroys_nothing(
        self, key_file: KeyFile, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = path.read_bytes()

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(KeyFileError, match="No space left"):
                key_file.destroy_generation(1)
        assert path.read_bytes() == before
        assert key_file.generations()[1].state == "live"
        assert key_file.destroy_generation(1).state == "destroyed"
