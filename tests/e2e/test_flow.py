"""The enrolment as a flow on a real Prefect server: runs, retries, artifacts, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from endtoend import clean_environment, command
from prefectserver import Server

RETRIED = """
import sys
from dataclasses import replace
from ironmask.errors import WorkerError
from pipelines.flows import enrol as flow
from pipelines.enrolment import hold
from pipelines.enrolment.request import EnrolRequest, prepare
from pipelines.run import steps
tries = []
class Lost:
    def __init__(self, inner): self.inner = inner
    def run(self, job, plan, shards):
        tries.append(1)
        if len(tries) == 1: raise WorkerError("a worker was lost")
        yield from self.inner.run(job, plan, shards)
opened = hold.opened
class opens:
    def __init__(self, *arguments): self.inner = opened(*arguments)
    def __enter__(self):
        held = self.inner.__enter__()
        return replace(held, executor=Lost(held.executor))
    def __exit__(self, *error): return self.inner.__exit__(*error)
hold.opened = opens
asked = EnrolRequest(sys.argv[1], sys.argv[2], executor="local", keys=sys.argv[3])
print(flow.run_as_flow(asked, prepare(asked), steps.quiet).used, len(tries))
"""


@pytest.fixture
def enroll(server: Server, tmp_path: Path) -> Callable[..., Any]:
    vectors = np.random.default_rng(1).standard_normal((6, 64)).astype(np.float32)
    vectors[1::2] += 2 * vectors[::2]
    table = pa.table({"subject_id": list("aabbcc"), "embedding": list(vectors)})
    pq.write_table(table, tmp_path / "e.parquet")

    def run(*options: object, url: str = server.url) -> Any:
        base = ["enroll", tmp_path / "e.parquet", tmp_path / "dest", "--executor=local"]
        base.append(f"--keys={tmp_path / 'keys.json'}")
        more = {"PREFECT_API_URL": url, "PREFECT_HOME": str(tmp_path / "home")}
        return command(tmp_path, *base, "--alpha=12", *options, **more)

    return run


def test_a_run_shows_in_the_server(enroll, server):
    answer = enroll("--tolerance=1")
    assert answer.code == 0, answer.err
    newest = max(server.ask("flow_runs"), key=lambda run: run["created"])
    assert (newest["state_type"], newest["parameters"]["settings"]) == (
        "COMPLETED",
        "n 64, alpha 12, tolerance 1 (46.9 bits against guessing), int8, centring mean, "
        "encrypted helpers, faces agree from 0.376",
    )
    steps = {run["name"].rpartition("-")[0] for run in server.ask("task_runs")}
    assert steps == {"plan", "run and commit", "report"}
    (artifact,) = [a for a in server.ask("artifacts") if a["flow_run_id"] == newest["id"]]
    assert '"subjects enrolled", "value": "3"' in artifact["data"]


@pytest.mark.slow
def test_a_refusal_is_one_line_and_a_failed_run(enroll, server):
    assert enroll("--tolerance=1", "--no-prefect").code == 0
    answer = enroll("--tolerance=0")
    assert answer.code == 1
    assert len(answer.errors) == 1
    assert "Traceback" not in answer.err + answer.out
    newest = max(server.ask("flow_runs"), key=lambda run: run["created"])
    assert newest["state_type"] == "FAILED"


@pytest.mark.slow
def test_nothing_to_retry_is_a_completed_run(enroll, server):
    assert enroll("--tolerance=1", "--no-prefect").code == 0
    answer = enroll("--tolerance=1", "--retry-failed")
    assert answer.code == 0, answer.err
    assert "nothing to retry" in answer.err
    newest = max(server.ask("flow_runs"), key=lambda run: run["created"])
    assert newest["state_type"] == "COMPLETED"


@pytest.mark.slow
def test_a_lost_worker_is_tried_again(server, enroll, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", RETRIED, *(tmp_path / n for n in ("e.parquet", "d", "k.json"))],
        env=clean_environment(
            tmp_path, PREFECT_API_URL=server.url, PREFECT_HOME=str(tmp_path / "home")
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["6", "2"]


def flowing(server, folder, name, request, **more):
    """Run a flow in a process of its own, and print the first address that it gives."""
    program = f"import json, sys; from pipelines.flows.{name} import {name}_flow; "
    program += f"print({name}_flow(json.loads(sys.argv[1]), **json.loads(sys.argv[2]))[0])"
    surroundings = {"PREFECT_API_URL": server.url, "PREFECT_HOME": str(folder / "home")}
    return subprocess.run(
        [sys.executable, "-c", program, json.dumps(request), json.dumps(more)],
        env=clean_environment(folder, **surroundings),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_an_audit_as_a_flow(server, tmp_path):
    """It fails below the floor, once the report is written."""
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((60, 12)) @ rng.standard_normal((12, 64))
    vectors += 0.05 * rng.standard_normal(vectors.shape)
    names = [f"p{place // 2}" for place in range(60)]
    source, dest, out = tmp_path / "faces.parquet", tmp_path / "d", tmp_path / "out"
    pq.write_table(pa.table({"subject_id": names, "embedding": list(vectors)}), source)
    few = tmp_path / "few.parquet"
    pq.write_table(pq.read_table(source).slice(0, 4), few)
    keys = tmp_path / "k.json"
    settings = ("--alpha=8", "--tolerance=0", "--executor=local", "--keys", keys)
    assert command(tmp_path, "enroll", few, dest, *settings).code == 0
    request = {
        "tables": [str(dest)], "source": str(source), "out": str(out), "keys": [str(keys)],
        "executor": "local", "seconds": 1, "sample": 1, "pairs": 10,
    }  # fmt: skip
    for floor, state in ((64, "COMPLETED"), (300, "FAILED")):
        done = flowing(server, tmp_path, "audit", request, floor_bits=floor)
        assert (done.returncode == 0) == (state == "COMPLETED"), done.stderr
        newest = max(server.ask("flow_runs"), key=lambda run: run["created"])
        assert newest["state_type"] == state
        assert (out / "report.html").exists()
    mine = [a for a in server.ask("artifacts") if a["flow_run_id"] == newest["id"]]
    assert any("Irreversibility" in (artifact["description"] or "") for artifact in mine)


@pytest.mark.slow
def test_an_evaluation_as_a_flow(server, tmp_path):
    """Its tables are artifacts of the run, and its report lies where it was asked for."""
    rng = np.random.default_rng(2)
    vectors = np.repeat(rng.standard_normal((12, 64)), 3, axis=0) + rng.standard_normal((36, 64))
    names = [f"p{place // 3}" for place in range(36)]
    source, out = tmp_path / "faces.parquet", tmp_path / "out"
    pq.write_table(pa.table({"subject_id": names, "embedding": list(vectors)}), source)
    request = {"source": str(source), "out": str(out), "alphas": [8], "executor": "local"}
    done = flowing(server, tmp_path, "evaluate", request)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.split()[-1]) == out / "report.html"
    newest = max(server.ask("flow_runs"), key=lambda run: run["created"])
    assert newest["state_type"] == "COMPLETED"
    mine = [a for a in server.ask("artifacts") if a["flow_run_id"] == newest["id"]]
    assert any("Protected templates" in artifact["description"] for artifact in mine)


@pytest.mark.slow
def test_a_server_that_is_not_there(enroll):
    answer = enroll("--tolerance=1", url="http://127.0.0.1:9/api")
    assert answer.code == 1
    assert answer.errors == [
        "error: the Prefect server does not answer (RuntimeError): check PREFECT_API_URL, or add "
        "--no-prefect"
    ]
