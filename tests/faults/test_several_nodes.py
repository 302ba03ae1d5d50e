"""One enrolment on several nodes: one is killed, or lacks what it needs. The short version."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from faults.drivers import job
from faults.several_nodes import NODES, on_ray, stored
from support.nodes import NoClusterError, cluster
from support.shared import faces_and_model
from support.table import assert_sound, keys_of, rows


@pytest.mark.slow
def test_a_node_that_dies_changes_no_row(tmp_path):
    try:
        with cluster(tmp_path / "nodes", NODES) as where:
            seen = stored(where, job(tmp_path / "e.parquet", 600, tmp_path / "dest"), 16, 1)
    except NoClusterError as error:
        pytest.skip(f"no second raylet starts here: {error}")
    assert [line for line in seen if not line.holds] == []


@pytest.mark.slow
def test_a_node_without_the_model_is_left_out(tmp_path):
    """Whole shards on the workers, and in parts with a process that holds the models."""
    try:
        faces, model = faces_and_model()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    (tmp_path / "tree").mkdir()
    for person in sorted(faces.iterdir())[:40]:
        shutil.copytree(person, tmp_path / "tree" / person.name)
    shutil.copytree(model, tmp_path / "model")
    for embedders in (0, 2):
        dest = tmp_path / f"dest{embedders}"
        arguments = [
            "enroll", str(tmp_path / "tree"), str(dest), f"--model={tmp_path / 'model'}",
            f"--keys={keys_of(dest)}", "--shard-size=2", f"--embedders={embedders}",
            "--max-failures=1000",
        ]  # fmt: skip
        lacks(arguments, tmp_path / f"c{embedders}", tmp_path / "model", "not on this machine")


@pytest.mark.slow
def test_a_cluster_whose_only_node_lacks_the_keys_says_so(tmp_path):
    """As the command ended before: with what is lacking, and where."""
    (tmp_path / "keys").mkdir()
    arguments, dest = with_keys(tmp_path, 20)

    def idle_head(nodes):
        nodes[0].cpus = 0

    try:
        with cluster(tmp_path / "n", 2, hidden=tmp_path / "keys", change=idle_head) as where:
            ended = where.run(on_ray(arguments, where))
            address = where.nodes[1].address
    except NoClusterError as error:
        pytest.skip(f"no second raylet starts here: {error}")
    assert ended.code == 1, ended.err
    assert len(ended.errors) == 1
    for word in ("no keyset file", f"on the Ray node {address}, id "):
        assert word in ended.errors[0]
    assert "Traceback" not in ended.err
    assert not any(row["outcome"] == "failed" for row in rows(dest, "inputs"))


def with_keys(folder, subjects):
    """A job over stored embeddings with its keys in a folder of their own, and its destination."""
    work = job(folder / "e.parquet", subjects, folder / "dest")
    kept = [word for word in work.arguments if not word.startswith("--keys")]
    return [*kept, f"--keys={folder / 'keys' / 'k.json'}"], work.dest


def lacks(arguments, folder, hidden, said):
    """Run a job on two nodes, the second of which lacks something; it is left out, by name."""
    try:
        with cluster(folder / "nodes", 2, hidden=hidden) as where:
            ended = where.run([*on_ray(arguments, where), "--json"])
            address = where.nodes[1].address
    except NoClusterError as error:
        pytest.skip(f"no second raylet starts here: {error}")
    assert ended.code == 0, ended.err
    ((node, why),) = ended.json()["excluded_nodes"].items()
    assert node.startswith(f"{address}, id ")
    assert said in why
    # The last line as well.
    assert ended.err.splitlines()[-1] == f"WARNING: the Ray node {node} was excluded: {why}"
    assert "Traceback" not in ended.err
    assert_sound(Path(arguments[2]), ended.json()["inputs"])
