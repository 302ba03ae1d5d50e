"""What a look-up asks of an object store: the seal, and two reads at most."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.enrolling import enroll, unit_vectors, write_embeddings
from support.proxy import proxy

from infra.settings import StorageSettings
from infra.store.objects import FsspecStore
from pipelines.verification.verifier import Verifier

PEOPLE = 40
PROBES = unit_vectors(PEOPLE)
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
    with proxy(s3.endpoint) as between:
        monkeypatch.setenv("IRONMASK_S3_ENDPOINT", between.endpoint)
        with Verifier(dest, str(keys)) as held:
            assert held.verify_embeddings("s000", PROBES[:1]) == [True]
            files = set()
            for number in range(1, PEOPLE):
                between.asked.clear()
                assert held.verify_embeddings(f"s{number:03d}", PROBES[[number]]) == [True]
                seal = [path for _, path in between.asked if path.endswith("/seal.json")]
                others = [path for _, path in between.asked if path not in seal]
                assert len(seal) <= 1
                assert len(others) <= 2, others
                files |= {path for path in others if "/templates/generation" in path}
        # One file for each of two people, and none of them was read for anybody else.
        assert PEOPLE // 2 - 1 <= len(files) <= PEOPLE // 2
