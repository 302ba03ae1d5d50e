"""What a look-up asks of an object store: the seal, and two reads at most."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from support.enrolling import enroll, unit_vectors, write_embeddings
from support.proxy import proxy

from infra.settings import StorageSettings
from infra.store.objects import FsspecStore

PEOPLE = 40
PROBES = unit_vectors(PEOPLE)
MARK = "/answered"
# In a process of its own: the Delta library waits for the proxy without letting its thread work.
ANSWERS = f"""
import os, sys, urllib.error, urllib.request
import numpy as np
from pipelines.verification.verifier import Verifier
dest, keys, probes = sys.argv[1], sys.argv[2], np.load(sys.argv[3])
with Verifier(dest, keys) as held:
    for number in range(len(probes)):
        assert held.verify_embeddings(f"s{{number:03d}}", probes[[number]]) == [True]
        try:
            urllib.request.urlopen(os.environ["IRONMASK_S3_ENDPOINT"] + "{MARK}")
        except urllib.error.HTTPError:
            pass
"""
ORDERS = {"in order": list(range(PEOPLE)), "mixed": [7 * n % PEOPLE for n in range(PEOPLE)]}


@pytest.mark.parametrize("order", ORDERS)
def test_an_answer_takes_two_reads(s3, bucket, tmp_path: Path, monkeypatch, order: str) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    people = [f"s{number:03d}" for number in ORDERS[order]]
    written = write_embeddings(tmp_path / "e.parquet", people, list(PROBES[ORDERS[order]]))
    source, dest, keys = f"{bucket}/e.parquet", f"{bucket}/table", tmp_path / "k.json"
    FsspecStore(StorageSettings()).write(source, written.read_bytes())
    answer = enroll(source, dest, "--shard-size=2", keys=keys)
    assert answer.code == 0, answer.err
    np.save(tmp_path / "probes.npy", PROBES)
    with proxy(s3.endpoint) as between:
        told = subprocess.run(
            [sys.executable, "-c", ANSWERS, dest, str(keys), str(tmp_path / "probes.npy")],
            env={**os.environ, "IRONMASK_S3_ENDPOINT": between.endpoint},
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
    assert told.returncode == 0, told.stderr
    paths = [path for _, path in between.asked]
    marks = [place for place, path in enumerate(paths) if path == MARK]
    assert len(marks) == PEOPLE
    files = set()
    for start, end in pairwise(marks):
        others = [path for path in paths[start + 1 : end] if not path.endswith("/seal.json")]
        assert end - start - 1 - len(others) <= 1
        assert len(others) <= 2, others
        files |= {path for path in others if "/templates/generation" in path}
    # One file for each of two people, and none of them was read for anybody else.
    assert PEOPLE // 2 - 1 <= len(files) <= PEOPLE // 2
