"""Evaluations of real embeddings through the installed command and Ray."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.command import clean_environment, command

from ironmask import DEFAULT_PRESET, preset
from ironmask.comparisons import Setting

SEED = "c3" * 32
# What the images' own README states for the same model and images.
COSINE_TAR = {1e-3: 0.998, 1e-4: 0.995}
WRONG = ("Michael_Schumacher_0008", "Recep_Tayyip_Erdogan_0004")


@pytest.fixture(scope="module")
def people(shared: Path, faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stored embeddings of the images of `lfw_dev`, as Parquet."""
    content = np.load(shared / "faces" / "lfw_w600k_mbf_embeddings.npz")
    names = [Path(name).stem for name in content["path"].tolist()]
    known = {path.stem for path in faces.rglob("*.jpg")}
    some = [place for place, name in enumerate(names) if name in known]
    table = pa.table(
        {
            "subject_id": content["label"][some].tolist(),
            "image": [names[place] for place in some],
            "embedding": list(content["emb"][some]),
        }
    )
    path = tmp_path_factory.mktemp("lfw") / "people.parquet"
    pq.write_table(table, path)
    (path.parent / "wrong.txt").write_text("\n".join(WRONG))
    return path


def evaluated(folder: Path, source: Path, out: str, *options: object):
    exclude = source.with_name("wrong.txt")
    asked = ("evaluate", source, out, "--exclude", exclude, "--seed", SEED, "--json", *options)
    answer = command(folder, *asked)
    assert answer.code == 0, answer.err
    return answer.json()


@pytest.mark.slow
def test_all_of_them_against_one_another(people, tmp_path):
    told = evaluated(tmp_path, people, "out", "--alpha", 16)
    tar = {row["target_fmr"]: 1 - row["fnmr"] for row in told["recogniser"]}
    for fmr, expected in COSINE_TAR.items():
        assert round(tar[fmr], 3) == expected
    rows = {row["tolerance"]: row for row in told["protected"]}
    assert rows[0]["fmr_trials"] == told["recogniser"][1]["fmr_trials"] > 5_000_000
    # One face makes a template; scheme and search as measured apart on all of LFW.
    assert 1 - rows[4]["fnmr"] == pytest.approx(0.90, abs=0.04)
    assert 1 - rows[0]["fnmr"] == pytest.approx(0.64, abs=0.06)
    assert [row["fmr_errors"] for row in rows.values()] == [0] * 5


@pytest.mark.slow
def test_the_templates_of_a_table(people, tmp_path):
    """Three photos of each person in a table; all others against its rows, on Ray."""
    rows = pq.read_table(people).sort_by([("subject_id", "ascending"), ("image", "ascending")])
    subjects = np.array(rows["subject_id"].to_pylist())
    rows = rows.filter(pa.array(np.isin(subjects, np.unique(subjects)[::3])))
    subjects = np.array(rows["subject_id"].to_pylist())
    place = np.arange(len(subjects)) - np.searchsorted(subjects, subjects)
    kept = np.isin(subjects, subjects[place >= 3]) & (place < 3)
    kept &= ~np.isin(rows["image"].to_pylist(), WRONG)
    pq.write_table(rows.filter(pa.array(kept)).drop_columns("image"), tmp_path / "gallery.parquet")
    images = np.array(rows["image"].to_pylist(), dtype=object)
    images[kept] = [f"gallery.parquet#row={row}" for row in range(kept.sum())]
    pq.write_table(rows.set_column(1, "image", pa.array(images)), tmp_path / "all.parquet")
    (tmp_path / "wrong.txt").write_text("\n".join(image for image in images if image in WRONG))
    here = ("--executor", "local", "--keys", "keys.json")
    answer = command(tmp_path, "enroll", "gallery.parquet", "table", *here)
    assert answer.code == 0, answer.err
    told = evaluated(
        tmp_path, tmp_path / "all.parquet", "out", "--table", "table", "--keys", "keys.json"
    )
    (row,) = told["protected"]
    people_there = len(set(subjects[kept]))
    left_out = sum(image in WRONG for image in images)
    probes = len(rows) - kept.sum() - left_out
    assert row["fmr_trials"] + row["fnmr_trials"] == people_there * probes
    usual = preset(DEFAULT_PRESET, 512)
    told = (row["code_width"], row["structure"], row["alpha"], row["tolerance"])
    assert told == (usual.code_width, usual.structure, usual.alpha, usual.tolerance)
    # Two brothers are among these people: one's photos may pass as the other.
    assert row["fmr_errors"] < 2e-5 * row["fmr_trials"]
    # Three photos of one person recognise better than one, as measured apart.
    assert 1 - row["fnmr"] > 0.93
    stored = pq.read_table(tmp_path / "table" / "metrics").to_pylist()
    label = f"table, mean: {Setting(usual).name} tolerance {usual.tolerance}"
    assert sum(one["label"] == label for one in stored) == 2


def numbers(out: Path) -> dict[str, str]:
    """Digests of everything that an evaluation counted; costs are measured, not counted."""
    files = {*out.glob("blocks/*.parquet"), *out.glob("*.parquet")} - {out / "cost.parquet"}
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.slow
def test_the_same_bits_from_any_number_of_workers_and_after_a_kill(people, tmp_path):
    options = ("--protocol", "all", "--alpha", 12)
    few = tmp_path / "few.parquet"
    table = pq.read_table(people)
    pq.write_table(table.slice(0, 1000), few)
    (tmp_path / "wrong.txt").touch()
    for workers in (1, 2, 4):
        evaluated(tmp_path, few, f"w{workers}", *options, "--workers", workers)
    whole = numbers(tmp_path / "w1")
    assert len(whole) > 8
    assert numbers(tmp_path / "w2") == whole
    assert numbers(tmp_path / "w4") == whole
    _kill_in_the_middle(tmp_path, few, options)
    evaluated(tmp_path, few, "killed", *options)
    assert numbers(tmp_path / "killed") == whole


def _kill_in_the_middle(folder: Path, source: Path, options: tuple[object, ...]) -> None:
    """SIGKILL to the whole evaluation once a first block is done and before the last."""
    program = Path(sys.executable).with_name("ironmask")
    asked = [program, "evaluate", source, "killed", "--exclude", source.with_name("wrong.txt")]
    asked += ["--seed", SEED, "--executor", "local", *options]
    process = subprocess.Popen(
        list(map(str, asked)), cwd=folder, env=clean_environment(folder), start_new_session=True,
        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    blocks = folder / "killed" / "blocks"
    deadline = time.monotonic() + 120
    while not list(blocks.glob("*.counts.parquet")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(list(blocks.glob("*.counts.parquet"))) < 4
