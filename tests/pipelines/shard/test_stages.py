"""What one shard takes of a machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ironmask.params import Params
from pipelines.shard.context import bytes_in_memory
from pipelines.spec.template_job import SourceKind, TemplateJob

MIB = 1 << 20


@pytest.fixture
def job():
    return TemplateJob("s", "d", SourceKind.EMBEDDINGS, "m", Params(512, 16, 4, version=1))


def test_memory_of_a_shard(job):
    """256 rows of 285 KiB, three times, and the process itself."""
    small, large = (bytes_in_memory(replace(job, shard_size=size)) for size in (256, 1024))
    assert 500 * MIB < small < 540 * MIB
    assert 1100 * MIB < large < 1200 * MIB
    assert bytes_in_memory(replace(job, kind=SourceKind.FOLDER)) == small + 400 * MIB
