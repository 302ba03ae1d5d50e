"""A short program on the public face alone, and what one of its verifications costs."""

from __future__ import annotations

import secrets
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ironmask import preset, protect, verify_batch

SUBJECTS, EACH, WIDTH = 50, 2, 512
PROBES = 1_000
PROGRAM = """
import numpy as np
import pyarrow.parquet as pq
import pipelines
rows = pq.read_table("faces.parquet").to_pylist()
vectors = np.array([row["embedding"] for row in rows], np.float32)
subjects = [row["subject_id"] for row in rows]
done = pipelines.enroll("faces.parquet", "table/", keys="k.json", executor="local")
answers = []
with pipelines.Verifier("table/", keys="k.json") as verifier:
    begun = time.perf_counter()
    for number in range(PROBES):
        probe = number % len(rows)
        claimed = subjects[probe] if number % 2 else subjects[probe - 2]
        answers += verifier.verify_embeddings(claimed, vectors[probe : probe + 1])
    spent = time.perf_counter() - begun
found = pipelines.evaluate("faces.parquet", "evaluation/", alphas=(16,), executor="local")
gone = pipelines.erase("table/", subjects[:1], keys="k.json")
proof = pipelines.prove("table/", subject=subjects[0], keys="k.json")
"""


def faces(path: Path) -> None:
    """Two captures of each subject, about 17 degrees apart."""
    rng = np.random.default_rng(5)
    subjects = np.repeat(rng.standard_normal((SUBJECTS, WIDTH)), EACH, axis=0)
    vectors = (subjects + 0.2 * rng.standard_normal(subjects.shape)).astype(np.float32)
    names = [f"s{place // EACH:03d}" for place in range(len(vectors))]
    pq.write_table(pa.table({"subject_id": names, "embedding": list(vectors)}), path)


def bare(vector: Any) -> float:
    """Seconds of one verification by the kernel alone, the row at hand in the clear."""
    key = secrets.token_bytes(32)
    row = protect(vector, preset("balanced", WIDTH), key)
    begun = time.perf_counter()
    for _ in range(100):
        verify_batch(row, vector[None], key)
    return (time.perf_counter() - begun) / 100


@pytest.mark.slow
def test_a_program_enrols_verifies_evaluates_and_erases(tmp_path, capsys):
    faces(tmp_path / "faces.parquet")
    names: dict[str, Any] = {"time": time, "PROBES": PROBES}
    assert len(PROGRAM.strip().splitlines()) <= 20
    exec(PROGRAM, names)  # noqa: S102
    assert names["done"].subjects_enrolled == SUBJECTS
    genuine, impostor = names["answers"][1::2], names["answers"][::2]
    assert len(names["answers"]) == PROBES
    assert all(genuine)
    assert not any(impostor)
    assert names["found"].headline
    assert Path(names["found"].files[0]).is_file()
    assert names["proof"].holds
    each, kernel = names["spent"] / PROBES, bare(names["vectors"][0])
    with capsys.disabled():
        said = f"{1e3 * each:.1f} ms a verification, {1e3 * kernel:.1f} ms by the kernel alone"
        sys.stdout.write(f"\n{said}\n")
