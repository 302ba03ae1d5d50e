"""Key-encryption keys of services: Tink's clients against servers, and what fails must fail closed.

AWS's is a real server, moto's, in a process of its own, that encrypts with AES-GCM and checks what
a ciphertext is bound to; Vault's is a double of its transit engine.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import tink
from support.key_services import Denied, Moto, Remote, Service, moto_environment, registered
from tink import _kms_clients

from infra.keys.kek import LOCAL
from infra.keys.key_file import KekRotation, KeyFile
from ironmask.errors import KeyStoreError, WrongKeyError

TABLE = "7d0c6a3e-table"
ASSOCIATED = b"row 1"


@pytest.fixture
def service() -> Iterator[Service]:
    with registered() as made:
        yield made


class TestKeyService:
    def test_wraps_every_generation_and_keeps_no_secret_in_the_file(
        self, service: Service, path: Path
    ) -> None:
        made = KeyFile.create(path, TABLE, "fake-kms://a")
        made.add_generation(1)
        sealed = made.generation(1).encrypt(b"helper", ASSOCIATED)
        content = json.loads(path.read_text())
        assert content["kek"] == {"uri": "fake-kms://a", "keyset": None}
        again = KeyFile.open(path, TABLE)
        assert again.generation(1).decrypt(sealed, ASSOCIATED) == b"helper"

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


def failure_of(call: Callable[[], object]) -> KeyStoreError | None:
    try:
        call()
    except KeyStoreError as error:
        return error
    return None


class TestRotation:
    A, B = "fake-kms://a", "fake-kms://b"

    def test_from_the_file_through_two_keys_and_back(self, service: Service, path: Path) -> None:
        made = KeyFile.create(path, TABLE)
        made.add_generation(1)
        made.succeed(2, 1, rekey=True, rotate_mac=True)
        opened, keys = KeyFile.open(path, TABLE), made.generation(2)
        sealed, row = keys.encrypt(b"helper", ASSOCIATED), keys.row_key("a")
        for old, new in [(LOCAL, self.A), (self.A, self.B), (self.B, self.B), (self.B, LOCAL)]:
            before = json.loads(path.read_text())["generations"]["1"]["data"]
            assert made.rotate_kek(new) == KekRotation(old, new, 7)
            content = json.loads(path.read_text())
            assert content["kek"]["uri"] == new == made.kek_uri
            assert (content["kek"]["keyset"] is None) == (new != LOCAL)
            assert content["generations"]["1"]["data"] != before
            for file in (made, opened, KeyFile.open(path, TABLE)):
                assert file.generation(2).decrypt(sealed, ASSOCIATED) == b"helper"
                assert file.generation(2).row_key("a") == row

    @pytest.mark.parametrize("again", [None, A])
    def test_the_same_address_takes_up_the_newest_version(
        self, service: Service, path: Path, again: str | None
    ) -> None:
        made = KeyFile.create(path, TABLE, self.A)
        made.add_generation(1)
        row, remote = made.generation(1).row_key("a"), service.keys[self.A]
        remote.rotate()
        assert made.rotate_kek(again) == KekRotation(self.A, self.A, 3)
        remote.older.clear()
        assert KeyFile.open(path, TABLE).generation(1).row_key("a") == row

    @pytest.mark.parametrize("failing", ["fake-kms://a", "fake-kms://b"])
    def test_a_service_that_fails_at_any_call_changes_nothing(
        self, service: Service, path: Path, failing: str
    ) -> None:
        made = KeyFile.create(path, TABLE, self.A)
        made.add_generation(1)
        made.succeed(2, 1, rekey=True, rotate_mac=False)
        before, remote = path.read_bytes(), service.keys[failing]
        for calls in range(20):
            remote.calls_left = calls
            error = failure_of(lambda: made.rotate_kek(self.B))
            if error is None:
                break
            assert not isinstance(error, WrongKeyError)
            assert f"{failing} did not serve" in str(error)
            assert path.read_bytes() == before
        # Each of six keysets is opened; wrapped, it is opened again.
        assert calls == {self.A: 6, self.B: 12}[failing]
        assert json.loads(path.read_text())["kek"]["uri"] == self.B

    def test_a_service_that_encrypts_only_does_not_lock_us_out(
        self, service: Service, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = KeyFile.create(path, TABLE)
        made.add_generation(1)
        before = path.read_bytes()

        def denied(*_: object) -> bytes:
            raise tink.TinkError(Denied())

        monkeypatch.setattr(service.keys[self.A], "decrypt", denied)
        with pytest.raises(KeyStoreError, match="did not serve"):
            made.rotate_kek(self.A)
        assert path.read_bytes() == before

    def test_another_key_of_the_service_is_refused(self, service: Service, path: Path) -> None:
        KeyFile.create(path, TABLE, self.A).add_generation(1)
        path.write_text(path.read_text().replace(self.A, self.B))
        before = path.read_bytes()
        with pytest.raises(WrongKeyError):
            KeyFile.open(path, TABLE).rotate_kek(LOCAL)
        assert path.read_bytes() == before

    def test_destroying_needs_no_service(self, service: Service, path: Path) -> None:
        made = KeyFile.create(path, TABLE, self.A)
        made.add_generation(1)
        service.keys[self.A].failure = ConnectionError("refused")
        assert made.destroy_generation(1).state == "destroyed"
        # The keys of the table still need it.
        with pytest.raises(KeyStoreError, match="did not serve"):
            made.rotate_kek(self.B)


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


@pytest.fixture(scope="module")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    for name in ("boto3", "moto", "flask", "flask_cors"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: ironmask[dev]")
    made = Moto(tmp_path_factory.mktemp("moto"))
    yield made
    made.kill()


@pytest.fixture
def aws(moto_server: Moto, monkeypatch: pytest.MonkeyPatch) -> Moto:
    return moto_environment(moto_server, monkeypatch)


class TestAws:
    """The product as it is: Tink's own client, by HTTP to a server that holds the keys."""

    def test_wraps_and_opens_and_keeps_no_secret_in_the_file(self, aws: Moto, path: Path) -> None:
        uri = aws.new_key()
        made = KeyFile.create(path, TABLE, uri)
        made.add_generation(1)
        made.succeed(2, 1, rekey=True, rotate_mac=True)
        content = json.loads(path.read_text())
        assert content["kek"] == {"uri": uri, "keyset": None}
        opened = KeyFile.open(path, TABLE).generation(2)
        sealed = made.generation(2).encrypt(b"helper", ASSOCIATED)
        assert opened.decrypt(sealed, ASSOCIATED) == b"helper"
        assert opened.row_key("a").startswith(made.generation(1).row_key("a"))

    def test_rotates_from_the_file_through_two_keys_and_back(self, aws: Moto, path: Path) -> None:
        a, b = aws.new_key(), aws.new_key()
        made = KeyFile.create(path, TABLE)
        made.add_generation(1)
        opened, keys = KeyFile.open(path, TABLE), made.generation(1)
        sealed, row = keys.encrypt(b"helper", ASSOCIATED), keys.row_key("a")
        for old, new in [(LOCAL, a), (a, b), (b, b), (b, LOCAL)]:
            assert made.rotate_kek(new) == KekRotation(old, new, 3)
            for file in (made, opened, KeyFile.open(path, TABLE)):
                assert file.generation(1).decrypt(sealed, ASSOCIATED) == b"helper"
                assert file.generation(1).row_key("a") == row
            if new == b:
                # Nothing hangs on the old key any more.
                aws.client.schedule_key_deletion(KeyId=a.rpartition("/")[2])

    def test_the_keys_of_another_key_are_refused(self, aws: Moto, path: Path) -> None:
        """moto answers `AccessDeniedException` where AWS answers `IncorrectKeyException`."""
        a, b = aws.new_key(), aws.new_key()
        KeyFile.create(path, TABLE, a).add_generation(1)
        path.write_text(path.read_text().replace(a, b))
        before = path.read_bytes()
        opened = KeyFile.open(path, TABLE)
        for call in (lambda: opened.generation(1), lambda: opened.rotate_kek(LOCAL)):
            with pytest.raises(KeyStoreError):
                call()
        assert path.read_bytes() == before

    def test_a_foreign_key_of_the_same_address_is_a_wrong_key(self, aws: Moto, path: Path) -> None:
        """A server that is set up again from the same seed has the same addresses, other keys."""
        addresses = set()
        for _ in range(2):
            aws.post("reset")
            aws.post("seed?a=1")
            addresses.add(aws.new_key())
            if not path.exists():
                KeyFile.create(path, TABLE, *addresses).add_generation(1)
        assert len(addresses) == 1
        before = path.read_bytes()
        for call in (lambda k: k.generation(1), lambda k: k.rotate_kek(LOCAL)):
            with pytest.raises(WrongKeyError):
                call(KeyFile.open(path, TABLE))
        assert path.read_bytes() == before

    def test_every_changed_byte_is_a_wrong_key_or_a_refusal(self, aws: Moto, path: Path) -> None:
        made = KeyFile.create(path, TABLE, aws.new_key())
        made.add_generation(1)
        content = json.loads(path.read_text())
        whole = base64.b64decode(content["generations"]["1"]["data"])
        for place in range(0, len(whole), 29):
            changed = bytearray(whole)
            changed[place] ^= 1
            content["generations"]["1"]["data"] = base64.b64encode(changed).decode()
            path.write_text(json.dumps(content))
            with pytest.raises(KeyStoreError):
                made.generation(1)

    def test_the_service_itself_refuses_another_place(self, aws: Moto) -> None:
        """What the tests above rely on: the server checks key and context of a ciphertext."""
        client, key = aws.client, aws.new_key().removeprefix("aws-kms://")
        sealed = client.encrypt(KeyId=key, Plaintext=b"p", EncryptionContext={"a": "b"})
        blob = sealed["CiphertextBlob"]
        told = {"CiphertextBlob": blob, "EncryptionContext": {"a": "b"}}
        assert client.decrypt(KeyId=key, **told)["Plaintext"] == b"p"
        other = aws.new_key().removeprefix("aws-kms://")
        for wrong in ({"KeyId": other}, {"KeyId": key, "EncryptionContext": {"a": "c"}}):
            with pytest.raises(Exception, match=r"AccessDenied|InvalidCiphertext"):
                client.decrypt(**(told | wrong))

    def test_a_key_that_does_not_exist_fails_closed(self, aws: Moto, path: Path) -> None:
        made = KeyFile.create(path, TABLE)
        made.add_generation(1)
        before, gone = path.read_bytes(), aws.new_key()[:-4] + "0000"
        with pytest.raises(KeyStoreError, match="did not serve"):
            made.rotate_kek(gone)
        assert path.read_bytes() == before

    def test_a_killed_server_fails_closed(
        self, moto_server: Moto, monkeypatch: pytest.MonkeyPatch, path: Path, tmp_path: Path
    ) -> None:
        own = moto_environment(Moto(tmp_path), monkeypatch)
        try:
            made = KeyFile.create(path, TABLE, own.new_key())
            made.add_generation(1)
            made.generation(1)
        finally:
            own.kill()
        before = path.read_bytes()
        calls: list[Callable[[KeyFile], object]] = [
            lambda file: file.generation(1),
            lambda file: file.add_generation(2),
            lambda file: file.succeed(2, 1, rekey=True, rotate_mac=True),
            lambda file: file.rotate_kek(LOCAL),
            lambda file: file.rotate_kek(),
        ]
        for file in (made, KeyFile.open(path, TABLE)):
            for call in calls:
                with pytest.raises(KeyStoreError, match="did not serve") as caught:
                    call(file)
                assert not isinstance(caught.value, WrongKeyError)
        assert path.read_bytes() == before


# What AWS documents for Decrypt, and whether it says that the ciphertext is of another key.
ANSWERS = {
    "IncorrectKeyException": True,
    "InvalidCiphertextException": True,
    "AccessDeniedException": False,
    "DisabledException": False,
    "NotFoundException": False,
    "KMSInvalidStateException": False,
    "ThrottlingException": False,
    "ExpiredTokenException": False,
}


def test_answers_of_aws_as_its_client_understands_them(aws: Moto, path: Path) -> None:
    """Through botocore's own parser of answers and Tink's own client."""
    from botocore.stub import Stubber
    from tink.integration import awskms

    uri = aws.new_key()
    KeyFile.create(path, TABLE, uri).add_generation(1)
    registered = awskms.new_client(boto3_client=aws.client, key_uri=uri)
    tink.register_kms_client(registered)
    try:
        made = KeyFile.open(path, TABLE)
        for code, is_foreign in ANSWERS.items():
            with Stubber(aws.client) as stub:
                stub.add_client_error("decrypt", code, "token=abc")
                with pytest.raises(KeyStoreError) as caught:
                    made.generation(1)
                stub.assert_no_pending_responses()
            assert isinstance(caught.value, WrongKeyError) == is_foreign, code
            assert "abc" not in str(caught.value)
    finally:
        _kms_clients._kms_clients.remove(registered)
