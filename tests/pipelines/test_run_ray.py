"""What tasks on Ray ask of a node."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ironmask.params import preset
from pipelines.job import EnrolJob, SourceKind
from pipelines.run_ray import RayExecutor
from pipelines.wiring import Spec

SPEC = Spec((), Path("/nowhere"), "t")
MIB = 1 << 20


@pytest.fixture
def job():
    return EnrolJob("s", "d", SourceKind.EMBEDDINGS, "m", preset("balanced"))


def test_a_task_keeps_the_memory_of_its_shard_free(job):
    """256 rows of 285 KiB, three times, and the process itself."""
    executor = RayExecutor(SPEC, 2, memory=64 << 30)
    small, large = (executor.needs(replace(job, shard_size=size)) for size in (256, 1024))
    assert 500 * MIB < small["memory"] < 540 * MIB
    assert 1100 * MIB < large["memory"] < 1200 * MIB
    of_images = executor.needs(replace(job, kind=SourceKind.FOLDER))
    assert of_images["memory"] == small["memory"] + 400 * MIB


def test_no_task_asks_for_more_than_a_node_has(job):
    assert RayExecutor(SPEC, 2, memory=100 * MIB).needs(job) == {"memory": 100 * MIB}
    assert RayExecutor(SPEC, 2).needs(job) == {}
