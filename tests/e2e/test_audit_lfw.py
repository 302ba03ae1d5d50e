"""An audit on Ray, of a table of real faces: the sentence that a default enrolment gets."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from support.command import command
from support.enrolling import write_vectors

pytestmark = pytest.mark.slow


def test_a_default_enrolment(shared: Path, tmp_path: Path):
    content = np.load(shared / "faces" / "lfw_w600k_mbf_embeddings.npz")
    names = [str(name) for name in content["label"]]
    thief = write_vectors(tmp_path / "all.parquet", names, content["emb"])
    some = list(range(0, 400, 8))
    source = write_vectors(tmp_path / "few.parquet", [names[i] for i in some], content["emb"][some])
    dest, keys = tmp_path / "table", ("--keys", tmp_path / "keys.json")
    answer = command(tmp_path, "enroll", source, dest, *keys, "--calibration", thief)
    assert answer.code == 0, answer.err
    assert "about 26" in answer.err
    assert "its keys are what protects this table" in answer.err
    few = ("--sample=4", "--pairs=10", "--seconds=60", "--json", "--floor-bits=64")
    told = command(
        tmp_path, "audit", dest, *keys, "--calibration", thief, "--out", tmp_path / "out", *few
    )
    assert told.code == 0, told.err
    assert re.match(
        r"Of 4 rows as they lie none could be read; with the keys, one row gave its template in "
        r"(\d) of \1 cases, in \d+\.\d s \(median\)",
        told.json()["headline"],
    )
