"""A real Prefect server for tests, on loopback; a conftest imports the fixtures."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.command import clean_environment

_READY_S = 300.0


@dataclass(frozen=True)
class Server:
    """A running Prefect server."""

    url: str

    def ask(self, what: str) -> list[dict[str, Any]]:
        answer = httpx.post(f"{self.url}/{what}/filter", json={}, timeout=30)
        found: list[dict[str, Any]] = answer.raise_for_status().json()
        return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("prefect")
    url = f"http://127.0.0.1:{free_port()}/api"
    environment = clean_environment(
        folder,
        PREFECT_HOME=str(folder / "home"),
        PREFECT_SERVER_API_PORT=url.rpartition(":")[2].removesuffix("/api"),
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        DO_NOT_TRACK="1",
    )
    program = Path(sys.executable).with_name("prefect")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "server", "start"],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait(url, folder / "log")
        yield Server(url)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(url: str, log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/health", timeout=2).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.3)
    raise RuntimeError(log.read_text(errors="replace")[-2000:])


@dataclass(frozen=True)
class Webhook:
    """A web server that keeps what is posted to it."""

    url: str
    told: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    found: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield Webhook(f"http://127.0.0.1:{listening.server_port}/", found)
    listening.shutdown()
