"""Enrolment from and into a real object store: same outcomes, same guarantees."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import numpy as np
import pytest
from support.command import ironmask
from support.enrolling import (
    PowerCutError,
    broken_after,
    enroll,
    request,
    run,
    several,
    unit_vectors,
    write_embeddings,
)

from infra.settings import StorageSettings
from infra.store.delta import DeltaTables
from infra.store.objects import FsspecStore
from pipelines.setup import ports
from pipelines.verification import probe as verification_probe


@pytest.fixture(autouse=True)
def _credentials(s3, monkeypatch):
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def store(_credentials) -> FsspecStore:
    return FsspecStore(StorageSettings())


def open_tables(dest: str) -> DeltaTables:
    return DeltaTables(dest, StorageSettings().delta_options())


def test_embeddings_in_a_bucket_become_templates_in_a_bucket(tmp_path, bucket, store):
    source, dest, keys = f"{bucket}/in/e.parquet", f"{bucket}/out", tmp_path / "keys.json"
    store.write(source, several(tmp_path / "e.parquet", 7).read_bytes())
    answer = enroll(source, dest, keys=keys)
    assert answer.code == 0, answer.err
    tables = open_tables(dest)
    rows = tables.table("templates").rows().to_pylist()
    assert sorted(row["subject_id"] for row in rows) == [f"s{n:03d}" for n in range(7)]
    opened = ports.keys(keys, tables.table_id, 1)
    for row in rows:
        probe = unit_vectors(7)[int(row["subject_id"][1:])][None]
        answers = verification_probe.verify_embeddings(
            tables.table_id, row, np.concatenate([probe, -probe]), opened
        )
        assert answers == [True, False]
    for name in ("templates", "inputs"):
        handle = tables.table(name)
        found = {e.uri for e in store.entries(handle.uri) if "/_delta_log/" not in e.uri}
        assert found == {f"{handle.uri}/{path}" for path in handle.files()}
    assert not store.exists(f"{dest}/_ironmask/lease.json")


@pytest.mark.slow
def test_a_run_that_broke_off_is_continued(tmp_path, bucket, store, monkeypatch):
    """What was committed stays, what was not is destroyed, and nobody is enrolled twice."""
    source, dest, keys = f"{bucket}/in/e.parquet", f"{bucket}/out", tmp_path / "keys.json"
    store.write(source, several(tmp_path / "e.parquet", 8).read_bytes())
    asked = request(tmp_path, tmp_path, source=source, dest=dest, keys=str(keys))
    monkeypatch.setattr("pipelines.run.steps.WAVE_SHARDS", 1)

    with pytest.raises(PowerCutError):
        run(asked, executor=broken_after(1))
    summary = run(asked)
    assert (summary.resumed_shards, summary.orphans_destroyed) == (1, 0)
    tables = open_tables(dest)
    subjects = tables.table("templates").rows()["subject_id"].to_pylist()
    assert sorted(subjects) == [f"s{n:03d}" for n in range(8)]
    inputs = tables.table("inputs").rows()["uri"].to_pylist()
    assert set(Counter(inputs).values()) == {1}
    handle = tables.table("templates")
    stored = {e.uri for e in store.entries(handle.uri) if "/_delta_log/" not in e.uri}
    assert stored == {f"{handle.uri}/{path}" for path in handle.files()}


def test_photos_in_a_bucket(tmp_path, bucket, store, face_data):
    """A folder tree of keys: subjects are prefixes, contents are known by their tags."""
    people = {"Abdullah_Gul": 3, "Serena_Williams": 2}
    for name, count in people.items():
        photos = sorted((face_data / "faces" / "lfw_dev" / name).glob("*.jpg"))
        for photo in photos[:count]:
            store.write(f"{bucket}/photos/{name}/{photo.name}", photo.read_bytes())
        shutil.copyfile(photos[-1], tmp_path / f"{name}.jpg")
    store.write(f"{bucket}/photos/Nobody é/empty.jpg", b"")
    model, keys = face_data / "models" / "buffalo_sc", tmp_path / "keys.json"
    answer = ironmask(
        "enroll", f"{bucket}/photos", f"{bucket}/out", "--executor=local", f"--keys={keys}",
        f"--model={model}", "--max-failures=1",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    inputs = open_tables(f"{bucket}/out").table("inputs").rows().to_pylist()
    assert Counter((row["subject_id"], row["outcome"], row["reason"]) for row in inputs) == {
        ("Abdullah_Gul", "used", ""): 3,
        ("Serena_Williams", "used", ""): 2,
        ("Nobody é", "failed", "empty_file"): 1,
    }
    probes = [tmp_path / f"{name}.jpg" for name in people]
    answer = ironmask(
        "verify", f"{bucket}/out", *probes, "--subject=Abdullah_Gul", f"--keys={keys}",
        f"--model={model}",
    )  # fmt: skip
    assert answer.code == 4
    assert ("accepted" in answer.out, "rejected" in answer.out) == (True, True)


@pytest.mark.slow
def test_the_same_photo_in_a_later_run(tmp_path, bucket, store, face_data):
    """A bucket's listing knows contents by their tags, also those that earlier runs have used."""
    photo = next((face_data / "faces" / "lfw_dev" / "Al_Gore").iterdir()).read_bytes()
    common = [f"--keys={tmp_path / 'k.json'}", f"--model={face_data / 'models' / 'buffalo_sc'}"]
    common += ["--executor=local"]
    store.write(f"{bucket}/first/alice/a.jpg", photo)
    assert ironmask("enroll", f"{bucket}/first", f"{bucket}/out", *common).code == 0
    store.write(f"{bucket}/second/mallory/b.jpg", photo)
    answer = ironmask("enroll", f"{bucket}/second", f"{bucket}/out", *common, "--json")
    assert answer.code == 3, answer.err
    assert "nobody could be enrolled" in answer.err
    assert json.loads(answer.out)["reasons"] == {"duplicate_other_subject": 1}
    (row,) = open_tables(f"{bucket}/out").table("templates").rows(["subject_id"]).to_pylist()
    assert row["subject_id"] == "alice"


@pytest.mark.slow
def test_credentials_from_a_file(tmp_path, bucket, store, s3, monkeypatch):
    """Workers find what the settings file says, without it travelling to them."""
    source = several(tmp_path / "e.parquet", 2)
    for name in s3.environment():
        monkeypatch.delenv(name)
    (tmp_path / "ironmask.toml").write_text(
        f"[s3]\nendpoint = '{s3.endpoint}'\naccess_key = '{s3.access_key}'\n"
        f"secret_key = '{s3.secret_key}'\nallow_http = true\n"
    )
    # What a run exports is forgotten again with the test.
    for name in ("ACCESS_KEY", "SECRET_KEY"):
        monkeypatch.setenv(f"IRONMASK_S3_{name}", "")
    answer = enroll(source, f"{bucket}/out", keys=tmp_path / "k.json")
    assert answer.code == 0, answer.err


def test_a_bucket_that_is_not_there(tmp_path):
    source = write_embeddings(tmp_path / "e.parquet", ["a"], unit_vectors(1))
    answer = enroll(source, "s3://no-such-bucket-at-all/out", keys=tmp_path / "keys.json")
    assert answer.code == 1
    assert len(answer.errors) == 1
    assert "no-such-bucket-at-all" in answer.errors[0]


def test_a_source_that_is_not_there(bucket, tmp_path):
    answer = enroll(f"{bucket}/none", f"{bucket}/out", keys=tmp_path / "keys.json")
    assert answer.code == 1
    assert "does not exist" in answer.errors[0]
