"""The stored vectors are what the independent program writes."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def remade(tmp_path_factory, vectors_folder):
    folder = tmp_path_factory.mktemp("vectors")
    subprocess.run([sys.executable, vectors_folder / "make_vectors.py", folder], check=True)
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "codewords.json",
        "digests.json",
        "helpers.json",
        "digests_v2.json",
        "helpers_v2.json",
        "quaternions.json",
        "shuffles.json",
    ],
)
def test_stored_vectors_are_reproducible(name, remade, vectors_folder):
    assert (remade / name).read_text() == (vectors_folder / name).read_text()


def test_generator_does_not_use_the_package(vectors_folder):
    source = (vectors_folder / "make_vectors.py").read_text()
    assert "import ironmask" not in source
    assert "from ironmask" not in source
    assert "numpy" not in source
