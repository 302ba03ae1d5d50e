"""`--retry-failed`: failed inputs again, and nothing else."""

from __future__ import annotations

import csv
from collections import Counter

import pytest
from support.enrolling import (
    PowerCutError,
    broken_after,
    enroll,
    request,
    run,
    unit_vectors,
    write_embeddings,
)
from support.table import assert_sound, keys_of, outcomes, rows

from ironmask.errors import MismatchError
from pipelines.operations import job


@pytest.fixture
def people(tmp_path, face_data):
    """A manifest of photos: two sound ones, one cut short, one that is not there yet."""
    photos = [min(p.iterdir()) for p in sorted((face_data / "faces" / "lfw_dev").iterdir())][:4]
    files = {name: tmp_path / f"{name}.jpg" for name in ("ann", "bob", "cut", "later")}
    for name, photo in zip(files, photos, strict=True):
        files[name].write_bytes(photo.read_bytes())
    whole = files["cut"].read_bytes(), files["later"].read_bytes()
    files["cut"].write_bytes(whole[0][:3000])
    files["later"].unlink()
    source = tmp_path / "people.csv"
    with source.open("w", newline="") as handle:
        csv.writer(handle).writerows([("subject_id", "uri"), *files.items()])
    return source, files, whole


@pytest.fixture
def ask(people, tmp_path, face_data):
    def asked(*more: object):
        model = face_data / "models" / "buffalo_sc"
        common = ("--alpha=16", "--tolerance=4", f"--model={model}", "--json")
        return enroll(people[0], tmp_path / "dest", *common, *more)

    return asked


def test_what_has_been_put_right_is_enrolled(people, ask, tmp_path):
    _, files, (cut, later) = people
    dest = tmp_path / "dest"
    assert ask().code == 3
    files["cut"].write_bytes(cut)
    files["later"].write_bytes(later)
    forecast = ask("--retry-failed", "--dry-run").json()
    assert (forecast["inputs"], forecast["subjects"]) == (2, 2)
    answer = ask("--retry-failed")
    assert answer.code == 0, answer.err
    assert (answer.json()["inputs"], answer.json()["used"]) == (2, 2)
    assert sorted(r["subject_id"] for r in rows(dest, "templates")) == [
        "ann",
        "bob",
        "cut",
        "later",
    ]
    assert_sound(dest)
    answer = ask("--retry-failed")
    assert answer.code == 0
    assert "nothing to retry" in answer.err
    assert job.check(str(dest), str(keys_of(dest)), deep=True).findings == []


def test_only_some_reasons(people, ask, tmp_path):
    _, files, (cut, later) = people
    assert ask().code == 3
    files["cut"].write_bytes(cut)
    files["later"].write_bytes(later)
    answer = ask("--retry-failed=truncated")
    assert answer.code == 0, answer.err
    assert answer.json()["inputs"] == 1
    assert {r["subject_id"] for r in rows(tmp_path / "dest", "templates")} == {"ann", "bob", "cut"}


def test_what_fails_again_can_be_taken_again(ask):
    for _ in range(2):
        assert ask("--retry-failed").code in (0, 3)
    assert ask().code == 3
    for _ in range(2):
        answer = ask("--retry-failed")
        assert answer.code == 3
        assert answer.json()["failed"] == 2


def test_unknown_reasons_are_refused(ask):
    answer = ask("--retry-failed=truncated,bad_hair")
    assert answer.code == 2
    assert "unknown reason to retry bad_hair; the reasons are all, animated" in answer.err


@pytest.fixture
def broken(tmp_path):
    """A table of eight subjects, four of which have a zero embedding only."""
    names = [f"s{n}" for n in range(8)]
    vectors = [v * (n % 2) for n, v in enumerate(unit_vectors(8))]
    source = write_embeddings(tmp_path / "e.parquet", names, vectors)
    run(request(source, tmp_path / "dest", shard_size=1))
    return source, tmp_path / "dest"


def test_a_retry_that_broke_off_goes_on_as_a_retry(broken, monkeypatch):
    source, dest = broken
    monkeypatch.setattr("pipelines.run.steps.WAVE_SHARDS", 1)
    again = request(source, dest, shard_size=1, retry=("zero_norm",))
    with pytest.raises(PowerCutError):
        run(again, executor=broken_after(2))
    with pytest.raises(MismatchError, match=r"retry: \['zero_norm'\] then, \[\] now"):
        run(request(source, dest, shard_size=1))
    summary = run(again)
    assert (summary.inputs, summary.resumed_shards) == (4, 2)
    assert outcomes(dest) == {("used", ""): 4, ("failed", "zero_norm"): 8}
    counted = Counter((row["run_id"], row["uri"]) for row in rows(dest, "inputs"))
    assert set(counted.values()) == {1}


def test_what_is_gone_from_the_source_is_said(broken, tmp_path, caplog):
    _, dest = broken
    fewer = write_embeddings(tmp_path / "e.parquet", ["s0"], [unit_vectors(1)[0]])
    summary = run(request(fewer, dest, retry=("all",)))
    assert (summary.inputs, summary.used) == (1, 1)
    assert "3 failed inputs are no longer in" in caplog.text


def test_failed_photos_of_an_enrolled_person_stay_out(tmp_path):
    vectors = [unit_vectors(1)[0], unit_vectors(1)[0] * 0]
    source = write_embeddings(tmp_path / "e.parquet", ["ann", "ann"], vectors)
    dest = tmp_path / "dest"
    enroll(source, dest, "--max-failures=1")
    answer = enroll(source, dest, "--retry-failed", "--json")
    assert answer.code == 0
    assert "1 failed inputs are of people who have a template, and stay out" in answer.err
    assert "nothing to retry" in answer.err
    assert answer.out == ""
    assert len(rows(dest, "runs")) == 2
