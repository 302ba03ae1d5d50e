"""Template inversion by the installed command: on Ray as in one process, and on real faces."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from support import crops
from support.command import command
from support.made_faces import write_pack, write_zip

pytestmark = pytest.mark.slow

PEOPLE = 600


def stored(out):
    """Rows of the report that rest on no fresh randomness."""
    rows = pq.read_table(out / "inversion.parquet").to_pylist()
    return [row for row in rows if row["input"] in ("stored embedding", "mean face")]


def test_ray_gives_what_one_process_gives(tmp_path):
    write_pack(tmp_path / "pack")
    write_zip(tmp_path / "faces.zip", 120, 2)
    for executor in ("local", "ray"):
        fitted, out = f"fit-{executor}", f"out-{executor}"
        more = ("--model=pack", f"--executor={executor}")
        answer = command(tmp_path, "invert", "fit", "faces.zip", fitted, *more)
        assert answer.code == 0, answer.err
        more = (f"--inverter={fitted}", *more)
        answer = command(tmp_path, "invert", "evaluate", "faces.zip", out, *more)
        assert answer.code == 0, answer.err
    both = [np.load(tmp_path / f"fit-{name}" / "inverter.npz") for name in ("local", "ray")]
    for name in both[0].files:
        assert np.array_equal(both[0][name], both[1][name]), name
    assert stored(tmp_path / "out-local") == stored(tmp_path / "out-ray")


@pytest.fixture(scope="module")
def real(shared, model, tmp_path_factory):
    """A report on the first people of LFW with two photos or more."""
    if not crops.ARCHIVE.is_file():
        pytest.skip(f"no {crops.ARCHIVE.name} among the shared files")
    folder = tmp_path_factory.mktemp("lfw")
    people, counts = np.unique(crops.photos().people, return_counts=True)
    known = people[counts > 1][:PEOPLE].tolist()
    crops.write_crops(folder / "faces.zip", known, each=4)
    asked = ("--executor=local", "--model", model)
    answer = command(folder, "invert", "fit", "faces.zip", "linear", *asked)
    assert answer.code == 0, answer.err
    asked = (*asked, "--inverter=linear", "--other-model", shared / "models" / "edgeface_s")
    answer = command(folder, "invert", "evaluate", "faces.zip", "report", *asked, "--people=60")
    assert answer.code == 0, answer.err
    rows = pq.read_table(folder / "report" / "inversion.parquet").to_pylist()
    return {(row["input"], row["attacked"], row["type"], row["far"]): row for row in rows}


def test_a_linear_map_gives_faces_that_real_recognisers_accept(real):
    assert real["stored embedding", True, 1, 1e-2]["tar"] >= 0.9
    assert real["stored embedding", False, 1, 1e-2]["tar"] >= 0.5
    assert real["stored template of several photos", True, 2, 1e-2]["tar"] >= 0.5


def test_a_helper_alone_gives_nobody_and_a_search_gives_everybody(real):
    found = real["readable helper, random codeword", True, 1, 1e-2]
    assert found["hits"] <= 4
    assert abs(found["mean_cosine"]) < 0.05
    searched = real["readable helper, searched", True, 1, 1e-2]
    assert searched["hits"] == real["stored embedding", True, 1, 1e-2]["hits"]
