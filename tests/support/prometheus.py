"""A real Prometheus server for tests, on loopback: the program that IRONMASK_PROMETHEUS names, or
that of the path.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.prefect import free_port

_READY_S = 60.0
_CONFIG = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
- job_name: ironmask
  static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def program_or_skipped() -> Path:
    """The server's program; whoever asks is skipped where there is none."""
    found = os.environ.get("IRONMASK_PROMETHEUS") or shutil.which("prometheus")
    if not found or not os.access(found, os.X_OK):
        pytest.skip("no prometheus on the path: name the program with IRONMASK_PROMETHEUS")
    return Path(found)


@dataclass(frozen=True)
class Prometheus:
    """A running server. url: of its interface for programs."""

    url: str

    def ask(self, what: str, **words: Any) -> Any:
        """The data of an answer. Raises `httpx.HTTPStatusError` for a question that is none."""
        answer = httpx.get(f"{self.url}/api/v1/{what}", params=words, timeout=30)
        return answer.raise_for_status().json()["data"]

    def values(self, expression: str) -> list[float]:
        """What an expression gives now, one for each series."""
        found = self.ask("query", query=expression)["result"]
        return [float(one["value"][1]) for one in found]


@contextmanager
def scraping(program: Path, folder: Path, port: int) -> Iterator[Prometheus]:
    """A server that scrapes a port of this machine five times a second."""
    (folder / "prometheus.yml").write_text(_CONFIG.format(port=port))
    own = free_port()
    command = [program, f"--config.file={folder / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{own}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        _wait(f"http://127.0.0.1:{own}", folder / "prometheus.log")
        yield Prometheus(f"http://127.0.0.1:{own}")
    finally:
        process.kill()
        process.wait()


def _wait(url: str, log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/-/ready", timeout=2).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(log.read_text(errors="replace")[-2000:])
