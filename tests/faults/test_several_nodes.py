"""One enrolment on several nodes: one is killed, or lacks what it needs. The short version."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from faults.drivers import job
from faults.several_nodes import NODES, on_ray, stored
from support.nodes import NoClusterError, cluster
from support.shared import faces_and_model
from support.table import keys_of, rows


@pytest.mark.slow
def test_a_node_that_dies_changes_no_row(tmp_path):
    try:
        with cluster(tmp_path / "nodes", NODES) as where:
            seen = stored(where, job(tmp_path / "e.parquet", 600, tmp_path / "dest"), 16, 1)
    except NoClusterError as error:
        pytest.skip(f"no second raylet starts here: {error}")
    assert [line for line in seen if not line.holds] == []


@pytest.mark.slow
def test_a_node_without_the_keys_is_named(tmp_path):
    (tmp_path / "keys").mkdir()
    work = job(tmp_path / "e.parquet", 200, tmp_path / "dest")
    keys = tmp_path / "keys" / "k.json"
    arguments = [*(a for a in work.arguments if not a.startswith("--keys")), f"--keys={keys}"]
    lacks(arguments, tmp_path, tmp_path / "keys", [str(keys), "no keyset file"])


@pytest.mark.slow
def test_a_node_without_the_model_is_named(tmp_path):
    """Whole shards on the workers, and in parts with a process that embeds."""
    try:
        faces, model = faces_and_model()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    (tmp_path / "tree").mkdir()
    # More than the sound node can do before the other one has begun.
    for person in sorted(faces.iterdir())[:200]:
        shutil.copytree(person, tmp_path / "tree" / person.name)
    shutil.copytree(model, tmp_path / "model")
    for embedders in (0, 1):
        dest = tmp_path / f"dest{embedders}"
        arguments = [
            "enroll", str(tmp_path / "tree"), str(dest), f"--model={tmp_path / 'model'}",
            f"--keys={keys_of(dest)}", "--shard-size=2", f"--embedders={embedders}",
        ]  # fmt: skip
        lacks(arguments, tmp_path / f"c{embedders}", tmp_path / "model", ["not on this machine"])


def lacks(arguments, folder, hidden, said):
    """Run a job on two nodes, the second of which lacks something; its end names that node."""
    try:
        with cluster(folder / "nodes", 2, hidden=hidden) as where:
            ended = where.run(on_ray(arguments, where))
            address = where.nodes[1].address
    except NoClusterError as error:
        pytest.skip(f"no second raylet starts here: {error}")
    assert ended.code == 1, ended.err
    assert len(ended.errors) == 1
    for word in (*said, f"on the Ray node {address}, id "):
        assert word in ended.errors[0]
    assert "Traceback" not in ended.err
    dest = Path(arguments[2])
    settled = rows(dest, "inputs") if dest.exists() else []
    assert not any(row["outcome"] == "failed" for row in settled)
