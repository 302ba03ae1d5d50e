"""A cluster that changes while a job runs: nodes join, one dies, one lacks the keys, one GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from faults.drivers import job
from faults.several_nodes import on_ray, undisturbed
from support.accounting import NOTHING, committed, counts, row_set
from support.command import clean_environment
from support.enrolling import write_manifest
from support.faces import photographs
from support.nodes import Cluster, NoClusterError, Node, cluster
from support.shared import faces_and_model
from support.table import keys_of

HEAD, FIRST, SECOND, LACKING = range(4)
_PATIENCE_S = 1500.0


@dataclass
class Ended:
    """How a command ended; summary: of its answer."""

    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict:
        return json.loads(self.out)

    def done(self) -> dict[str, int]:
        """Shards by the node that did them, as the last such line of the log says."""
        lines = [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]
        return [line["done"] for line in lines if line.get("event") == "units by node"][-1]


def ended(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=_PATIENCE_S)
    return Ended(process.returncode, out, err)


def until(process: subprocess.Popen[str], what: Callable[[], bool]) -> None:
    """Wait while a job runs; it must not end before."""
    deadline = time.monotonic() + _PATIENCE_S
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def shards_of(done: dict[str, int], node: Node) -> int:
    return sum(count for name, count in done.items() if name.startswith(f"{node.address},"))


@pytest.mark.slow
def test_work_follows_the_nodes_that_are_there(tmp_path: Path) -> None:
    """One node works at first; a second joins, a third lacks the keys, the first one dies."""
    (tmp_path / "keys").mkdir()
    work = job(tmp_path / "e.parquet", 2400, tmp_path / "dest")
    planned = len(work.planned)
    kept = [word for word in work.arguments if not word.startswith("--keys")]
    arguments = [*kept, f"--keys={tmp_path / 'keys' / 'k.json'}"]

    def idle_head(nodes: list[Node]) -> None:
        nodes[HEAD].cpus = 0

    try:
        with cluster(
            tmp_path / "nodes", 4, hidden=tmp_path / "keys", started=2, change=idle_head
        ) as where:
            process = where.start([*on_ray(arguments, where), "--json"], **LOGGED)
            until(process, lambda: committed(work.dest) > 0)
            where.start_node(LACKING)
            where.start_node(SECOND)
            left = planned // 4 - committed(work.dest)
            until(process, lambda: where.busy(SECOND) and committed(work.dest) > planned // 6)
            where.nodes[FIRST].kill()
            seen = ended(process)
            second, lacking = where.nodes[SECOND], where.nodes[LACKING]
    except NoClusterError as error:
        pytest.skip(f"no second raylet starts here: {error}")
    assert seen.code == 0, seen.err
    assert shards_of(seen.done(), second) >= 0.4 * left > 0
    assert shards_of(seen.done(), lacking) == 0
    ((node, why),) = seen.summary["excluded_nodes"].items()
    assert node.startswith(f"{lacking.address}, id ")
    assert "no keyset file" in why
    assert node in seen.err.splitlines()[-1]
    assert counts(work.dest, planned) == NOTHING
    assert row_set(work.dest) == undisturbed(work.arguments, work.dest, tmp_path)


# A node whose Python has no ironmask.
NO_PROGRAM = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ironmask", "infra", "pipelines"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""


@pytest.mark.slow
def test_nodes_without_the_program_or_the_table_are_left_out(tmp_path: Path) -> None:
    """One node works; one cannot load the program, one does not see where the table lies."""
    (tmp_path / "place").mkdir()
    work = job(tmp_path / "e.parquet", 400, tmp_path / "place" / "dest")
    kept = [word for word in work.arguments if not word.startswith("--keys")]
    arguments = [*kept, f"--keys={tmp_path / 'k.json'}"]
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "sitecustomize.py").write_text(NO_PROGRAM)

    def without(nodes: list[Node]) -> None:
        nodes[HEAD].cpus = 0
        nodes[SECOND].environment = {"PYTHONPATH": str(tmp_path / "bare")}

    try:
        with cluster(tmp_path / "nodes", 4, hidden=tmp_path / "place", change=without) as where:
            seen = ended(where.start([*on_ray(arguments, where), "--json"], **LOGGED))
            working, *lacking = where.nodes[FIRST:]
    except NoClusterError as error:
        pytest.skip(f"no second raylet starts here: {error}")
    assert seen.code == 0, seen.err
    assert shards_of(seen.done(), working) == sum(seen.done().values()) == len(work.planned) // 4
    whys = [
        [why for name, why in seen.summary["excluded_nodes"].items() if node.address + "," in name]
        for node in lacking
    ]
    assert ["cannot load ironmask" in why for (why,) in whys] == [True, False]
    assert ["does not exist" in why for (why,) in whys] == [False, True]
    assert counts(work.dest, len(work.planned)) == NOTHING
    assert row_set(work.dest) == undisturbed(work.arguments, work.dest, tmp_path)


LOGGED = {"IRONMASK_LOG_LEVEL": "info", "IRONMASK_LOG_FORMAT": "json"}
# The command with another resource in the place of GPUs, and the provider that is there.
STAND_IN = """
from pipelines.setup import workplace
workplace.GPU = "accelerator"
workplace.needs_gpu = lambda provider: True
from pipelines import cli
cli.main()
"""
# A node on which onnxruntime has no provider at all.
NO_PROVIDER = """
import onnxruntime
onnxruntime.get_available_providers = lambda: []
"""


@pytest.mark.slow
def test_gpus_serve_nodes_that_have_none(tmp_path: Path) -> None:
    """One node decodes, one has an accelerator and no CPU; one without the provider joins them."""
    try:
        faces, model = faces_and_model()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    people = list(photographs(faces).items())[:150]
    entries = [(name, path) for name, paths in people for path in paths[:4]]
    source, dest = write_manifest(tmp_path / "people.csv", entries), tmp_path / "dest"
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(NO_PROVIDER)
    arguments = [
        "enroll", str(source), str(dest), f"--model={model}", f"--keys={keys_of(dest)}",
        "--shard-size=8", "--max-failures=1000", f"--allow-root={faces}", "--executor=local",
    ]  # fmt: skip

    def roles(nodes: list[Node]) -> None:
        nodes[HEAD].cpus = 0
        nodes[FIRST].cpus = 2
        for place in (SECOND, LACKING):
            nodes[place].cpus = 0
            nodes[place].resources = {"accelerator": 1.0}
        found = os.pathsep.join([str(broken), os.environ.get("PYTHONPATH", "")])
        nodes[LACKING].environment = {"PYTHONPATH": found}

    try:
        with cluster(tmp_path / "nodes", 4, started=3, change=roles) as where:
            process = start_on_stand_ins(where, [*on_ray(arguments, where), "--json"])
            until(process, lambda: where.busy(FIRST))
            where.start_node(LACKING)
            seen = ended(process)
            lacking, decoding = where.nodes[LACKING], where.nodes[FIRST]
    except NoClusterError as error:
        pytest.skip(f"no second raylet starts here: {error}")
    assert seen.code == 0, seen.err
    ((node, why),) = seen.summary["excluded_nodes"].items()
    assert node.startswith(f"{lacking.address}, id ")
    assert "is not active" in why
    # Whoever has the models has no CPU for shards.
    assert shards_of(seen.done(), decoding) == sum(seen.done().values()) > 0
    assert counts(dest, len(entries)) == NOTHING
    assert row_set(dest) == undisturbed(arguments, dest, tmp_path)


def start_on_stand_ins(where: Cluster, arguments: list[str]) -> subprocess.Popen[str]:
    return where.start(arguments, [sys.executable, "-c", STAND_IN], **LOGGED)


@pytest.mark.slow
def test_a_driver_without_a_node_beside_it(tmp_path: Path) -> None:
    """As from a pod: `ray://` works, and `host:port` is refused in one line that names it."""
    work = job(tmp_path / "e.parquet", 200, tmp_path / "dest")
    kept = [word for word in work.arguments if not word.startswith("--executor")]
    try:
        with cluster(tmp_path / "nodes", 2, started=1) as where:
            head = where.nodes[HEAD].address
            refused = where.run_outside(1, [*kept, f"--ray-address={where.address}"])
            inside = f"--ray-address=ray://{head}:10001"
            worked = where.run_outside(1, [*kept, inside, "--json"])
    except NoClusterError as error:
        pytest.skip(f"no second raylet starts here: {error}")
    assert refused.code == 1
    assert len(refused.errors) == 1
    assert f"--ray-address ray://{head}:10001" in refused.errors[0]
    assert "Traceback" not in refused.err
    assert worked.code == 0, worked.err
    assert worked.json()["used"] == len(work.planned)
    assert counts(work.dest, len(work.planned)) == NOTHING


# A node that works until the last moment, and is told to leave meanwhile.
LEAVING = """
import subprocess, sys, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from pipelines.run.ray_nodes import WORK, Nodes
from pipelines.run.work import Standing
made = Cluster()
made.add_node(num_cpus=1, include_dashboard=False)
leaving = made.add_node(num_cpus=2)
ray.init(address=made.address, log_to_driver=False)
nodes, seen = Nodes(Standing()), []
def look():
    nodes.look(now=True)
    seen.append(nodes.room(WORK, {"CPU": 1.0}))
look()
begun = ray.remote(num_cpus=2)(lambda: time.sleep(0.1))
ray.get(begun.remote())
working = ray.remote(num_cpus=2)(lambda: time.sleep(600)).remote()
time.sleep(3)
program = [str(Path(sys.executable).with_name("ray")), "drain-node", "--address", made.address]
why = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
when = ["--deadline-remaining-seconds", "300"]
subprocess.run([*program, "--node-id", leaving.node_id, *why, *when], check=True)
look()
print("room", *seen)
"""


@pytest.mark.slow
def test_a_node_that_was_told_to_leave_counts_no_more(tmp_path: Path) -> None:
    environment = clean_environment(tmp_path, RAY_AUTH_MODE="disabled")
    told = subprocess.run(
        [sys.executable, "-c", LEAVING],
        env=environment, capture_output=True, text=True, check=False, timeout=_PATIENCE_S,
    )  # fmt: skip
    assert "room 3 1" in told.stdout, told.stderr
