"""Plans of millions of inputs in little memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import resource, sys
import numpy as np
import pyarrow as pa
from infra.store.objects import FsspecStore
from pipelines.plan import plans, sources
from pipelines.plan.arrange import arrange
from pipelines.plan.naming import Known
from pipelines.table.identities import Identities
from pipelines.table.text_set import TextSet

def batches(count):
    # Two photos a person. At the end of so many, one is the same as the one before.
    order = np.random.default_rng(7).permutation(count) if mixed else np.arange(count)
    for start in range(0, count, 50_000):
        numbers = order[start : start + 50_000].tolist()
        rows = {
            "subject_id": [f"person-{n // 2:09d}" for n in numbers],
            "uri": [f"s3://photos/by-person/person-{n // 2:09d}/{n % 2}.jpg" for n in numbers],
            "row": [None] * 50_000,
            "content": [f"md5:{n - (n % every == every - 1):032x}" for n in numbers],
            "before": [None] * 50_000, "address": [None] * 50_000,
            "outcome": [None] * 50_000, "reason": [""] * 50_000, "detail": [""] * 50_000,
        }
        yield pa.table(rows, schema=sources.COLUMNS)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

known = Known(Identities(bytes(32)))
folder, mixed = sys.argv[1], sys.argv[3] == "mixed"
count, every = int(sys.argv[2]), int(sys.argv[4])
for _ in arrange(batches(50_000), TextSet(), known, 256): pass
before = peak()
store = FsspecStore()
rows = arrange(batches(count), TextSet(), known, 256)
frozen = plans.write(rows, "0" * 12, folder, {}, store)
print(frozen.inputs, frozen.todo, frozen.shards, peak() - before)
assert plans.digest_of(frozen, store) == frozen.digest
last = frozen.shard(frozen.shards - 1, store)
print(last[-1]["uri"], sum(e.size for e in store.entries(folder)))
"""


@pytest.mark.parametrize(("order", "every"), [("sorted", 100), ("mixed", 100), ("mixed", 2)])
@pytest.mark.parametrize("count", [200_000, 2_000_000])
@pytest.mark.slow
def test_memory_does_not_follow_the_plan(tmp_path, count, order, every):
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "plan"), str(count), order, str(every)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    inputs, todo, shards, grown, uri, _ = done.stdout.split()
    assert (int(inputs), int(todo)) == (count, count - count // every)
    assert int(shards) == -(-count // 256)
    assert f"/person-{count // 2 - 1:09d}/" in uri
    # A few runs of 64 MiB that are sorted, and what the allocator keeps of them.
    assert int(grown) < 450
