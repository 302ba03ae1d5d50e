"""The enrolment as a flow on a real Prefect server: runs, retries, artifacts, refusals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.accounting import committed
from support.command import clean_environment, command
from support.enrolling import write_vectors
from support.made_faces import write_pack, write_zip
from support.prefect import Server, Webhook

RETRIED = """
import sys
from dataclasses import replace
from ironmask.errors import WorkerError
from pipelines.flows import enrol as flow
from pipelines.enrolment import hold
from pipelines.enrolment.request import EnrolRequest, prepare
from pipelines.run.course import Watch
from pipelines.spec.options import assembled
tries = []
class Lost:
    def __init__(self, inner): self.inner, self.standing = inner, inner.standing
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
flat = dict(zip(("source", "dest", "keys"), sys.argv[1:]))
asked = assembled(EnrolRequest, {**flat, "executor": "local"})
print(flow.run_as_flow(asked, prepare(asked), Watch(), 0).used, len(tries))
"""


@pytest.fixture
def enroll(server: Server, tmp_path: Path, webhook: Webhook) -> Callable[..., Any]:
    vectors = np.random.default_rng(1).standard_normal((6, 64)).astype(np.float32)
    vectors[1::2] += 2 * vectors[::2]
    table = pa.table({"subject_id": list("aabbcc"), "embedding": list(vectors)})
    pq.write_table(table, tmp_path / "e.parquet")

    def run(*options: object, url: str = server.url) -> Any:
        base = ["enroll", tmp_path / "e.parquet", tmp_path / "dest", "--executor=local"]
        base.append(f"--keys={tmp_path / 'keys.json'}")
        more = {"PREFECT_API_URL": url, "PREFECT_HOME": str(tmp_path / "home")}
        more["IRONMASK_NOTIFY_URL"] = webhook.url
        return command(tmp_path, *base, "--alpha=12", *options, **more)

    return run


def test_a_run_shows_in_the_server_and_its_end_is_told(enroll, server, webhook, tmp_path):
    answer = enroll("--tolerance=1")
    assert answer.code == 0, answer.err
    newest = max(server.ask("flow_runs"), key=lambda run: run["created"])
    assert (newest["state_type"], newest["parameters"]["settings"]) == (
        "COMPLETED",
        "n 64, code 128 wide, quaternionic, alpha 12, tolerance 1 (58.5 bits against guessing), "
        "int8, centring mean, encrypted helpers, faces agree from 0.376",
    )
    steps = {run["name"].rpartition("-")[0] for run in server.ask("task_runs")}
    assert steps == {"plan", "run and commit", "report"}
    shown = [a for a in server.ask("artifacts") if a["flow_run_id"] == newest["id"]]
    by_key = {artifact["key"]: artifact for artifact in shown}
    assert by_key.keys() == {"ironmask-enrolment", "ironmask-progress"}
    assert '"subjects enrolled", "value": "3"' in by_key["ironmask-enrolment"]["data"]
    assert by_key["ironmask-progress"]["data"] == 100.0
    assert by_key["ironmask-progress"]["description"] == "6 of 6 inputs committed, 6 done"
    said = {line["message"] for line in server.ask("logs") if line["flow_run_id"] == newest["id"]}
    (wave,) = [line for line in said if line.startswith("wave committed, run_id ")]
    assert "shards 1, shards_committed 1, inputs_committed 6, seconds " in wave
    assert {"planned", "started", "completed"} <= {line.partition(",")[0] for line in said}
    assert not any(str(tmp_path) in line for line in said)
    assert "wave committed" not in answer.err
    told = {"flow": "ironmask-enrol", "state": "Completed", "dest": str(tmp_path / "dest")}
    assert [told] == [{k: v for k, v in one.items() if k != "run"} for one in webhook.told]


@pytest.mark.slow
def test_a_refusal_is_one_line_and_a_failed_run(enroll, server, webhook):
    assert enroll("--tolerance=1", "--no-prefect").code == 0
    answer = enroll("--tolerance=0")
    assert answer.code == 1
    assert len(answer.errors) == 1
    assert "Traceback" not in answer.err + answer.out
    newest = max(server.ask("flow_runs"), key=lambda run: run["created"])
    assert newest["state_type"] == "FAILED"
    assert [one["state"] for one in webhook.told] == ["Failed"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_commits_what_is_finished_and_is_told(server, webhook, tmp_path, number):
    vectors = np.random.default_rng(1).standard_normal((600, 64)).astype(np.float32)
    names = [f"s{place}" for place in range(600)]
    source, dest = write_vectors(tmp_path / "e.parquet", names, vectors), tmp_path / "dest"
    words = ["enroll", source, dest, "--executor=local", f"--keys={tmp_path / 'keys.json'}"]
    words += ["--alpha=12", "--tolerance=1", "--shard-size=4"]
    more = {"PREFECT_API_URL": server.url, "PREFECT_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(
        [Path(sys.executable).with_name("ironmask"), *map(str, words)],
        env=clean_environment(tmp_path, **more, IRONMASK_NOTIFY_URL=webhook.url),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and len(list(dest.glob("templates/*/part-*.parquet"))) < 20:
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == 128 + number, said
    assert said.splitlines()[-1] == "interrupted; the same command continues the run"
    assert "Traceback" not in said
    assert committed(dest) >= 19
    newest = max(server.ask("flow_runs"), key=lambda run: run["created"])
    assert newest["state_type"] == "CRASHED"
    assert [one["state"] for one in webhook.told] == ["Crashed"]
    assert command(tmp_path, *words, "--no-prefect").code == 0


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


def flowing(server, folder, name, request, notify="", **more):
    """Run a flow in a process of its own, and print what it gives."""
    program = f"import json, sys; from pipelines.flows.{name} import {name}_flow; "
    program += f"print(*{name}_flow(json.loads(sys.argv[1]), **json.loads(sys.argv[2])))"
    surroundings = {"PREFECT_API_URL": server.url, "PREFECT_HOME": str(folder / "home")}
    surroundings["IRONMASK_NOTIFY_URL"] = notify
    return subprocess.run(
        [sys.executable, "-c", program, json.dumps(request), json.dumps(more)],
        env=clean_environment(folder, **surroundings),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("allowed", [1, 2])
def test_the_state_is_what_the_exit_code_says(server, webhook, tmp_path, allowed):
    """Two inputs of six fail: of a command, and of a flow that is deployed."""
    vectors = np.random.default_rng(1).standard_normal((6, 64)).astype(np.float32)
    vectors[[1, 3]] = 0
    # Of one person.
    vectors[5] = 2 * vectors[4]
    table = pa.table({"subject_id": list("aabbcc"), "embedding": list(vectors)})
    pq.write_table(table, tmp_path / "e.parquet")
    words = ["enroll", tmp_path / "e.parquet", tmp_path / "c", "--executor=local", "--alpha=12"]
    words += ["--tolerance=1", f"--keys={tmp_path / 'c.json'}", f"--max-failures={allowed}"]
    more = {"PREFECT_API_URL": server.url, "PREFECT_HOME": str(tmp_path / "home")}
    answer = command(tmp_path, *words, "--json", **more, IRONMASK_NOTIFY_URL=webhook.url)
    assert answer.code == (0 if allowed == 2 else 3), answer.err
    assert answer.json()["failed"] == 2
    assert "Traceback" not in answer.err
    request = {
        "source": str(tmp_path / "e.parquet"), "dest": str(tmp_path / "f"), "alpha": 12,
        "tolerance": 1, "executor": "local", "keys": str(tmp_path / "f.json"),
    }  # fmt: skip
    done = flowing(server, tmp_path, "enrol", request, webhook.url, max_failures=allowed)
    assert (done.returncode == 0) == (allowed == 2), done.stderr
    state = "COMPLETED" if allowed == 2 else "FAILED"
    newest = sorted(server.ask("flow_runs"), key=lambda run: run["created"])[-2:]
    assert [run["state_type"] for run in newest] == [state, state]
    told = [(one["state"].upper(), one["dest"]) for one in webhook.told]
    assert told == [(state, str(tmp_path / "c")), (state, str(tmp_path / "f"))]


@pytest.mark.slow
def test_a_flow_that_leaves_nobody_with_a_template_fails(server, webhook, tmp_path):
    """Whatever number of failures is allowed, as the command ends with 3."""
    table = pa.table({"subject_id": ["a"], "embedding": [np.zeros(64, dtype=np.float32)]})
    pq.write_table(table, tmp_path / "e.parquet")
    request = {
        "source": str(tmp_path / "e.parquet"), "dest": str(tmp_path / "f"), "alpha": 12,
        "tolerance": 1, "executor": "local", "keys": str(tmp_path / "f.json"),
    }  # fmt: skip
    done = flowing(server, tmp_path, "enrol", request, webhook.url, max_failures=9)
    assert done.returncode != 0
    (newest,) = sorted(server.ask("flow_runs"), key=lambda run: run["created"])[-1:]
    assert newest["state_type"] == "FAILED"
    assert "nobody could be enrolled" in newest["state"]["message"]


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
    assert command(tmp_path, "enroll", few, dest, *settings, "--no-agreement").code == 0
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
    assert str(out / "report.html") in done.stdout.split()
    newest = max(server.ask("flow_runs"), key=lambda run: run["created"])
    assert newest["state_type"] == "COMPLETED"
    mine = [a for a in server.ask("artifacts") if a["flow_run_id"] == newest["id"]]
    assert any("Protected templates" in artifact["description"] for artifact in mine)


@pytest.mark.slow
def test_an_inversion_as_a_flow(server, tmp_path):
    """It fits first, then evaluates; a second run fits nothing."""
    write_pack(tmp_path / "pack")
    faces = str(write_zip(tmp_path / "faces.zip", 120, 2))
    fitted, out = str(tmp_path / "linear"), tmp_path / "out"
    common = {"faces": faces, "model": str(tmp_path / "pack"), "executor": "local"}
    fits = [{**common, "out": fitted}]
    request = {**common, "out": str(out), "inverters": [fitted]}
    done = flowing(server, tmp_path, "invert", request, fits=fits)
    assert done.returncode == 0, done.stderr
    assert str(out / "report.html") in done.stdout.split()
    newest = max(server.ask("flow_runs"), key=lambda run: run["created"])
    assert newest["state_type"] == "COMPLETED"
    mine = [a for a in server.ask("artifacts") if a["flow_run_id"] == newest["id"]]
    assert any("Accepted reconstructions" in artifact["description"] for artifact in mine)
    before = (tmp_path / "linear" / "inverter.npz").stat()
    again = flowing(server, tmp_path, "invert", {**request, "out": f"{out}2"}, fits=fits)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "linear" / "inverter.npz").stat() == before


@pytest.mark.slow
def test_a_server_that_is_not_there(enroll):
    answer = enroll("--tolerance=1", url="http://127.0.0.1:9/api")
    assert answer.code == 1
    assert answer.errors == [
        "error: the Prefect server does not answer (RuntimeError): check PREFECT_API_URL, or add "
        "--no-prefect"
    ]
