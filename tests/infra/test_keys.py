"""Keyset files: what opens them, what is refused, and that keys never leave their process."""

from __future__ import annotations

import base64
import copy
import json
import os
import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import cloudpickle
import pytest
import tink
from hypothesis import given
from hypothesis import strategies as st
from tink import _kms_clients, aead

from infra import kek
from infra.keys import KeyFile, TinkGenerationKeys, default_keys_path
from ironmask.errors import (
    KeyFileError,
    KeyNotFoundError,
    KeyStoreError,
    TamperedError,
    WrongKeyError,
)

TABLE = "7d0c6a3e-table"
ASSOCIATED = b"row 1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "table.json"


@pytest.fixture
def key_file(path: Path) -> KeyFile:
    made = KeyFile.create(path, TABLE)
    made.add_generation(1)
    return made


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
        sealed = keys.seal(plain, associated)
        assert keys.open(sealed, associated) == plain
        assert keys.seal(plain, associated) != sealed
        assert len(plain) < 8 or plain not in sealed

    @given(data=st.data(), plain=st.binary(min_size=1, max_size=80))
    def test_a_flipped_bit_is_noticed(
        self, keys: TinkGenerationKeys, data: st.DataObject, plain: bytes
    ) -> None:
        sealed = bytearray(keys.seal(plain, ASSOCIATED))
        sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        with pytest.raises(TamperedError, match="row was changed"):
            keys.open(bytes(sealed), ASSOCIATED)

    def test_another_row_another_generation_and_nothing_are_refused(
        self, key_file: KeyFile
    ) -> None:
        key_file.add_generation(2)
        first, second = key_file.generation(1), key_file.generation(2)
        sealed = first.seal(b"helper", ASSOCIATED)
        for keys, value, bound in [
            (first, sealed, b"row 2"),
            (second, sealed, ASSOCIATED),
            (first, b"", ASSOCIATED),
            (first, sealed[:20], ASSOCIATED),
        ]:
            with pytest.raises(TamperedError, match="another"):
                keys.open(value, bound)

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
    @pytest.fixture(params=["file", "generation", "kek"])
    def secret(self, request: pytest.FixtureRequest, key_file: KeyFile) -> object:
        local = kek.resolve(kek.LOCAL, kek.local_keyset())
        return {"file": key_file, "generation": key_file.generation(1), "kek": local}[request.param]

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
        secrets = [content["kek"]["keyset"], *content["generations"]["1"].values()]
        key = json.loads(secrets[0])["key"][0]["keyData"]["value"]
        content["generations"]["1"]["data"] = content["generations"]["1"]["prf"]
        path.write_text(json.dumps(content))
        with pytest.raises(WrongKeyError) as caught:
            KeyFile.open(path, TABLE).generation(1)
        assert caught.value.__cause__ is None
        assert key not in str(caught.value)
        assert secrets[-1] not in str(caught.value)


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

    def test_absent_and_destroyed_generations(self, key_file: KeyFile, path: Path) -> None:
        with pytest.raises(KeyNotFoundError, match="generation 2"):
            key_file.generation(2)
        content = json.loads(path.read_text())
        content["generations"]["1"] |= {"state": "destroyed", "data": "", "prf": ""}
        path.write_text(json.dumps(content))
        opened = KeyFile.open(path, TABLE)
        assert opened.generations()[1].state == "destroyed"
        with pytest.raises(KeyNotFoundError, match="destroyed"):
            opened.generation(1)
        with pytest.raises(KeyFileError, match="already"):
            opened.add_generation(1)

    def test_a_replaced_file_is_noticed(self, key_file: KeyFile, path: Path) -> None:
        path.unlink()
        KeyFile.create(path, TABLE)
        with pytest.raises(WrongKeyError, match="replaced"):
            key_file.add_generation(2)

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
        assert default_keys_path("t") == tmp_path / "ironmask" / "keys" / "t.json"
        monkeypatch.delenv("XDG_CONFIG_HOME")
        assert default_keys_path("t") == Path.home() / ".config/ironmask/keys/t.json"
        monkeypatch.setenv("IRONMASK_KEYS", "~/k.json")
        assert default_keys_path("t") == Path.home() / "k.json"


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


class TestDamage:
    @pytest.mark.parametrize("content", DAMAGE)
    def test_what_is_no_keyset_file(self, path: Path, key_file: KeyFile, content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(KeyFileError, match=str(path)):
            KeyFile.open(path, TABLE)

    def test_every_bit_flip_is_refused_or_harmless(self, path: Path, key_file: KeyFile) -> None:
        """A changed file never yields another key: it gives the same keys or an error of ours."""
        keys = key_file.generation(1)
        sealed, row_key = keys.seal(b"helper", ASSOCIATED), keys.row_key("row")
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
            assert again.open(sealed, ASSOCIATED) == b"helper"
            outcomes["same"] += 1
        assert outcomes["refused"] > 0.8 * len(whole), outcomes

    def test_every_truncation_is_refused(self, path: Path, key_file: KeyFile) -> None:
        whole = path.read_bytes()
        for length in range(0, len(whole), 7):
            path.write_bytes(whole[:length])
            with pytest.raises(KeyFileError):
                KeyFile.open(path, TABLE)

    @pytest.mark.parametrize("field", ["key_id", "helpers", "data", "prf"])
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
            "import sys; from pathlib import Path; from infra.keys import KeyFile\n"
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


class Remote(aead.Aead):
    """A key service: a real AEAD that can be unreachable."""

    def __init__(self) -> None:
        handle = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
        self.inner = handle.primitive(aead.Aead)
        self.failure: Exception | None = None

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        self._check()
        return self.inner.encrypt(plaintext, associated_data)

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        self._check()
        return self.inner.decrypt(ciphertext, associated_data)

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure


class Service(tink.KmsClient):
    def __init__(self) -> None:
        self.keys = {f"fake-kms://{name}": Remote() for name in "ab"}

    def does_support(self, key_uri: str) -> bool:
        return key_uri in self.keys

    def get_aead(self, key_uri: str) -> aead.Aead:
        return self.keys[key_uri]


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    tink.register_kms_client(made)
    yield made
    _kms_clients._kms_clients.remove(made)


class Denied(Exception):  # noqa: N818
    response = {"Error": {"Code": "AccessDeniedException"}}  # noqa: RUF012


class TestKeyService:
    def test_wraps_every_generation_and_keeps_no_secret_in_the_file(
        self, service: Service, path: Path
    ) -> None:
        made = KeyFile.create(path, TABLE, "fake-kms://a")
        made.add_generation(1)
        sealed = made.generation(1).seal(b"helper", ASSOCIATED)
        content = json.loads(path.read_text())
        assert content["kek"] == {"uri": "fake-kms://a", "keyset": None}
        again = KeyFile.open(path, TABLE)
        assert again.generation(1).open(sealed, ASSOCIATED) == b"helper"

    def test_another_key_of_the_service_is_refused(self, service: Service, path: Path) -> None:
        KeyFile.create(path, TABLE, "fake-kms://a").add_generation(1)
        path.write_text(path.read_text().replace("fake-kms://a", "fake-kms://b"))
        with pytest.raises(WrongKeyError):
            KeyFile.open(path, TABLE).generation(1)

    def test_what_a_keyset_is_bound_to_holds_without_the_service(
        self, service: Service, path: Path
    ) -> None:
        made = KeyFile.create(path, TABLE, "fake-kms://a")
        made.add_generation(1)
        made.add_generation(2)
        content = json.loads(path.read_text())
        content["generations"]["1"] = content["generations"]["2"]
        path.write_text(json.dumps(content))
        with pytest.raises(WrongKeyError):
            KeyFile.open(path, TABLE).generation(1)

    @pytest.mark.parametrize(
        "failure",
        [
            ConnectionError("refused"),
            TimeoutError(),
            tink.TinkError(Denied("token=abc")),
            RuntimeError("token=abc"),
        ],
    )
    def test_an_unreachable_service_fails_closed(
        self, service: Service, path: Path, failure: Exception
    ) -> None:
        made = KeyFile.create(path, TABLE, "fake-kms://a")
        made.add_generation(1)
        before = path.read_bytes()
        service.keys["fake-kms://a"].failure = failure
        for call in (lambda: made.generation(1), lambda: made.add_generation(2)):
            with pytest.raises(KeyStoreError, match="fake-kms://a did not serve") as caught:
                call()
            assert not isinstance(caught.value, WrongKeyError)
            assert "abc" not in str(caught.value)
        assert path.read_bytes() == before

    def test_unknown_services_leave_no_file(self, path: Path) -> None:
        with pytest.raises(KeyStoreError, match=r"unknown.*local:, aws-kms://"):
            KeyFile.create(path, TABLE, "other-kms://a")
        assert not path.exists()

    @pytest.mark.parametrize(
        ("uri", "module", "extra"),
        [
            ("aws-kms://arn:aws:kms:eu-west-1:1:key/a", "boto3", "aws"),
            ("gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k", "google.cloud", "gcp"),
            ("hcvault://vault:8200/transit/keys/k", "hvac", "vault"),
        ],
    )
    def test_a_missing_client_names_its_extra(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, module: str, extra: str
    ) -> None:
        name = {"aws": "awskms", "gcp": "gcpkms", "vault": "hcvault"}[extra]
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setitem(sys.modules, f"tink.integration.{name}", None)
        with pytest.raises(KeyStoreError, match=rf"ironmask\[{extra}\]"):
            KeyFile.create(path, TABLE, uri)


class Transit(BaseHTTPRequestHandler):
    """Vault's transit engine, as far as wrapping needs it; `sealed` answers like a sealed Vault."""

    remote = Remote()
    sealed = False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            status, answer = (
                (503, {"errors": ["Vault is sealed"]}) if self.sealed else self.work(body)
            )
        except tink.TinkError:
            status, answer = 400, {"errors": ["invalid ciphertext"]}
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def work(self, body: dict[str, str]) -> tuple[int, dict]:
        if "/encrypt/" in self.path:
            sealed = self.remote.encrypt(base64.b64decode(body["plaintext"]), b"")
            return 200, {"data": {"ciphertext": "vault:v1:" + base64.b64encode(sealed).decode()}}
        data = base64.b64decode(body["ciphertext"].removeprefix("vault:v1:"))
        return 200, {
            "data": {"plaintext": base64.b64encode(self.remote.decrypt(data, b"")).decode()}
        }

    do_PUT = do_POST  # noqa: N815

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Transit]]:
    pytest.importorskip("hvac", reason="hvac is not installed: ironmask[vault]")
    server = HTTPServer(("127.0.0.1", 0), Transit)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("VAULT_ADDR", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("VAULT_TOKEN", "t")
    monkeypatch.setattr(Transit, "sealed", False)
    yield Transit
    server.shutdown()
    server.server_close()


def test_vault_wraps_keysets(
    vault: type[Transit], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = KeyFile.create(path, TABLE, "hcvault:///transit/keys/k")
    made.add_generation(1)
    opened = KeyFile.open(path, TABLE)
    assert opened.generation(1).row_key("a") == made.generation(1).row_key("a")
    monkeypatch.setattr(vault, "remote", Remote())
    with pytest.raises(WrongKeyError):
        opened.generation(1)
    monkeypatch.setattr(vault, "sealed", True)
    with pytest.raises(KeyStoreError, match="did not serve"):
        opened.generation(1)


def test_what_a_killed_writing_left_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "keys [1].json"
    leftover, other = tmp_path / f".{path.name}.{'0a' * 8}", tmp_path / ".another.json.00"
    for file in (leftover, other):
        file.write_text("{}")
    KeyFile.create(path, "table").add_generation(1)
    assert not leftover.exists()
    assert other.exists()
