"""Key services that tests can have: one in this process, and AWS's as moto's server plays it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import requests
import tink
from tink import _kms_clients, aead


class Remote(aead.Aead):
    """A key service: a real AEAD that can be unreachable."""

    def __init__(self) -> None:
        handle = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
        self.inner = handle.primitive(aead.Aead)
        self.older: list[aead.Aead] = []
        self.failure: Exception | None = None
        self.calls_left = -1
        self.calls = 0

    def rotate(self) -> None:
        """Encrypt with a new version of the key from now on; the old ones still decrypt."""
        handle = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
        self.older, self.inner = [*self.older, self.inner], handle.primitive(aead.Aead)

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        self._check()
        return self.inner.encrypt(plaintext, associated_data)

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        self._check()
        for version in self.older:
            with suppress(tink.TinkError):
                return version.decrypt(ciphertext, associated_data)
        return self.inner.decrypt(ciphertext, associated_data)

    def _check(self) -> None:
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        if self.calls_left == 0:
            raise ConnectionError("refused")
        self.calls_left -= 1


class Service(tink.KmsClient):
    def __init__(self) -> None:
        self.keys = {f"fake-kms://{name}": Remote() for name in "ab"}

    def does_support(self, key_uri: str) -> bool:
        return key_uri in self.keys

    def get_aead(self, key_uri: str) -> aead.Aead:
        return self.keys[key_uri]


class Denied(Exception):  # noqa: N818
    response = {"Error": {"Code": "AccessDeniedException"}}  # noqa: RUF012


@contextmanager
def registered() -> Iterator[Service]:
    """A service that this process finds at `fake-kms://a` and `fake-kms://b`."""
    made = Service()
    tink.register_kms_client(made)
    try:
        yield made
    finally:
        _kms_clients._kms_clients.remove(made)


class Moto:
    """A running server of AWS's key service, and a client of its own."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self._wait()

    def _wait(self) -> None:
        ends = time.monotonic() + 60
        while time.monotonic() < ends and self.process.poll() is None:
            with suppress(requests.ConnectionError):
                self.post("reset")
                return
            time.sleep(0.1)
        raise RuntimeError(f"moto did not start: {self._log.read_text()}")

    def post(self, what: str) -> None:
        with requests.Session() as session:
            session.trust_env = False  # no proxy
            session.post(f"{self.endpoint}/moto-api/{what}", timeout=10).raise_for_status()

    @cached_property
    def client(self) -> Any:
        import boto3

        return boto3.client("kms", region_name="eu-west-1", endpoint_url=self.endpoint)

    def new_key(self) -> str:
        """Make a key; returns its address."""
        return "aws-kms://" + self.client.create_key()["KeyMetadata"]["Arn"]

    def calls(self) -> int:
        """How many requests it has answered so far."""
        return self._log.read_text().count('"POST / HTTP')

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def moto_environment(server: Moto, monkeypatch: pytest.MonkeyPatch) -> Moto:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL_KMS": server.endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_MAX_ATTEMPTS": "1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    return server
