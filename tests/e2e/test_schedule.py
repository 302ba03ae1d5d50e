"""The scheduled re-protection on a real Prefect server: it fires, it meets others, it tells."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.command import clean_environment, command
from support.enrolling import write_vectors
from support.prefect import Server, Webhook

from infra.store.delta import DeltaTables
from infra.store.lease import lease
from infra.store.objects import FsspecStore
from pipelines.table import generations

ROOT = Path(__file__).parents[2]
_PATIENCE_S = 240.0


class Prefect:
    """Prefect's own command line against a server, and a worker of it."""

    def __init__(self, server: Server, folder: Path, notify: str) -> None:
        self.server = server
        self.environment = clean_environment(
            folder,
            PREFECT_API_URL=server.url,
            PREFECT_HOME=str(folder / "home"),
            IRONMASK_NOTIFY_URL=notify,
            DO_NOT_TRACK="1",
        )
        self.program = Path(sys.executable).with_name("prefect")

    def __call__(self, *words: str) -> None:
        done = subprocess.run(
            [self.program, "--no-prompt", *words],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @contextmanager
    def worker(self, log: Path) -> Iterator[None]:
        with log.open("wb") as out:
            process = subprocess.Popen(
                [self.program, "worker", "start", "--pool=default"],
                cwd=ROOT,
                env=self.environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            yield
        finally:
            # It may wait without end for a run of its own; what is tested is over by now.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def deployment(folder: Path, dest: Path, keys: Path) -> Path:
    """The project's own deployment of this table, each minute instead of each quarter."""
    found = yaml.safe_load((ROOT / "deploy" / "prefect.yaml").read_text())
    (own,) = [one for one in found["deployments"] if one["name"] == "reprotect"]
    own["schedules"][0]["cron"] = "* * * * *"
    own["parameters"] = {"request": {"dest": str(dest), "keys": str(keys), "executor": "local"}}
    path = folder / "prefect.yaml"
    path.write_text(yaml.safe_dump({**found, "deployments": [own]}))
    return path


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.5)
    raise AssertionError("it did not happen")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_fires_and_a_clashing_run_refuses(
    server: Server, tmp_path: Path, webhook: Webhook
) -> None:
    dest, keys = tmp_path / "table", tmp_path / "keys.json"
    vectors = np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32)
    vectors[1::2] += 2 * vectors[::2]
    source = write_vectors(tmp_path / "e.parquet", list("aabbccdd"), vectors)
    words = ["--executor=local", "--alpha=12", "--tolerance=1", "--keys", keys]
    assert command(tmp_path, "enroll", source, dest, *words).code == 0
    tables = DeltaTables(str(dest), {})
    prefect = Prefect(server, tmp_path, webhook.url)

    def states() -> list[str]:
        runs = [run for run in server.ask("flow_runs") if run["deployment_id"]]
        return [run["state_type"] for run in sorted(runs, key=lambda run: run["created"])]

    prefect("work-pool", "create", "default", "--type=process")
    prefect("deploy", "--all", "--prefect-file", str(deployment(tmp_path, dest, keys)))
    with prefect.worker(tmp_path / "worker.log"):
        until(lambda: generations.live(tables) > 1)
        until(lambda: "COMPLETED" in states())
        # Somebody at work on the table: the next run refuses and changes nothing.
        with lease(str(dest), FsspecStore()):
            before = generations.live(tables)
            until(lambda: "FAILED" in states())
            assert generations.live(tables) == before
        until(lambda: generations.live(tables) > before)
        # Two runs of one deployment at once: the second is cancelled.
        for _ in range(3):
            prefect("deployment", "run", "ironmask-reprotect/reprotect")
        until(lambda: "CANCELLED" in states())
        until(lambda: {m["state"] for m in webhook.told} >= {"Completed", "Failed"})
        until(lambda: not {"PENDING", "RUNNING"} & set(states()))
    assert {message["dest"] for message in webhook.told} == {str(dest)}
    assert {message["flow"] for message in webhook.told} == {"ironmask-reprotect"}
    shown = [a for a in server.ask("artifacts") if a["key"] == "ironmask-reprotection"]
    assert shown
    assert all('"destroyed keys"' in artifact["data"] for artifact in shown)
    assert command(tmp_path, "check", dest, "--deep", "--keys", keys).code == 0
