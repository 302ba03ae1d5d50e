"""A fit that is killed goes on where it was, and keeps nothing in the clear meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from support.command import ironmask, with_tests
from support.made_faces import write_pack, write_zip

KILLED_IN_EMBEDDING = """
import os, signal, sys
from pipelines.run.local import LocalEngine
from support.command import ironmask

real = LocalEngine.run

def run(self, work, units):
    for number, result in enumerate(real(self, work, units)):
        yield result
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)

LocalEngine.run = run
ironmask(*sys.argv[1:])
"""

KILLED_IN_TRAINING = """
import os, signal, sys
from infra.store.objects import FsspecStore
from support.command import ironmask

real = FsspecStore.write

def write(self, uri, data):
    real(self, uri, data)
    if uri.endswith("checkpoint.npz"):
        os.kill(os.getpid(), signal.SIGKILL)

FsspecStore.write = write
ironmask(*sys.argv[1:])
"""


@pytest.fixture
def faces(tmp_path):
    write_pack(tmp_path / "pack")
    return write_zip(tmp_path / "faces.zip", 60, 3)


def words(faces, out, *more):
    model = faces.with_name("pack")
    return ["invert", "fit", faces, out, "--model", model, "--executor=local", *more]


def killed(program, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], env=with_tests(os.environ),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_killed_while_photos_are_embedded(faces, tmp_path):
    out = tmp_path / "killed"
    killed(KILLED_IN_EMBEDDING, *words(faces, out))
    kept = sorted((out / "embedded").iterdir())
    assert [path.name for path in kept] == ["000000.bin", "000001.bin"]
    before = {path: path.read_bytes() for path in kept}
    assert not (out / "inverter.npz").exists()
    assert len(list((tmp_path / "config").rglob("*.json"))) == 1
    # Embeddings are unit-like floats; no run of them lies in an encrypted file.
    for data in before.values():
        values = np.frombuffer(data[: len(data) // 4 * 4], "<f4")
        plausible = np.isfinite(values) & (np.abs(values) < 1e3) & (np.abs(values) > 1e-3)
        assert plausible.mean() < 0.5

    for place in (out, tmp_path / "whole"):
        answer = ironmask(*words(faces, place))
        assert answer.code == 0, answer.err
    both = [np.load(place / "inverter.npz") for place in (out, tmp_path / "whole")]
    for name in both[0].files:
        assert np.array_equal(both[0][name], both[1][name]), name
    assert not list((tmp_path / "config").rglob("*.json"))


@pytest.mark.slow
def test_whose_key_is_lost_embeds_anew(faces, tmp_path):
    out = tmp_path / "killed"
    killed(KILLED_IN_EMBEDDING, *words(faces, out))
    (key,) = (tmp_path / "config").rglob("*.json")
    key.unlink()
    answer = ironmask(*words(faces, out))
    assert answer.code == 0, answer.err
    assert (out / "inverter.npz").exists()


def test_whose_faces_changed_meanwhile_is_refused(faces, tmp_path):
    out = tmp_path / "killed"
    killed(KILLED_IN_EMBEDDING, *words(faces, out))
    write_zip(faces, 60, 3, seed=1)
    answer = ironmask(*words(faces, out))
    assert answer.code == 1
    assert "holds another job: listing differ" in answer.errors[0]


@pytest.mark.slow
def test_killed_in_training_gives_the_same_curve(faces, tmp_path):
    pytest.importorskip("torch")
    budget = ("--inverter=hybrid", "--images=256", "--cpu-seconds=600", "--json")
    out = tmp_path / "killed"
    killed(KILLED_IN_TRAINING, *words(faces, out, *budget))
    assert (out / "checkpoint.npz").exists()
    found = []
    for place in (out, tmp_path / "whole"):
        answer = ironmask(*words(faces, place, *budget))
        assert answer.code == 0, answer.err
        found.append(np.array(answer.json()["curve"]))
    assert not (out / "checkpoint.npz").exists()
    assert found[0].shape == found[1].shape
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)
