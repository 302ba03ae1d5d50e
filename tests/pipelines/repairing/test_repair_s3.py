"""Repairs in a versioned bucket: no version of a lost file survives, nothing else is touched."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.command import ironmask
from support.enrolling import enroll, several

from infra.settings import StorageSettings
from infra.store.delta import DeltaTables
from infra.store.objects import FsspecStore


@pytest.fixture(autouse=True)
def _credentials(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)


def objects(s3: Any, dest: str) -> dict[tuple[str, str], str]:
    """Key and version of every version below a destination, delete markers as well: its tag."""
    bucket, _, prefix = dest.removeprefix("s3://").partition("/")
    found = {}
    pages = s3.client().get_paginator("list_object_versions")
    for page in pages.paginate(Bucket=bucket, Prefix=f"{prefix}/templates/generation="):
        for item in page.get("Versions", []) + page.get("DeleteMarkers", []):
            found[item["Key"], item["VersionId"]] = item.get("ETag", "deleted")
    return found


@pytest.mark.slow
def test_no_version_of_a_lost_file_survives(s3: Any, bucket: str, tmp_path: Any) -> None:
    name = bucket.removeprefix("s3://")
    s3.client().put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    source, dest = f"{bucket}/in/e.parquet", f"{bucket}/out"
    store = FsspecStore(StorageSettings())
    store.write(source, several(tmp_path / "e.parquet", 9).read_bytes())
    keys = f"--keys={tmp_path / 'k.json'}"
    assert enroll(source, dest, "--shard-size=6", keys=tmp_path / "k.json").code == 0
    deleted, damaged, other = sorted({key for key, _ in objects(s3, dest)})
    untouched = {one: tag for one, tag in objects(s3, dest).items() if one[0] == other}
    # One is hidden by a delete marker, the other one by a version of other bytes.
    s3.client().delete_object(Bucket=name, Key=deleted)
    content = bytearray(store.read(f"{bucket}/{damaged}"))
    content[1_000] ^= 1
    s3.client().put_object(Bucket=name, Key=damaged, Body=bytes(content))
    checked = ironmask("check", dest, keys)
    assert checked.code == 1
    assert checked.out.count("ironmask repair") == 2
    answer = ironmask("repair", dest, f"--source={source}", "--executor=local", keys, "--json")
    assert answer.code == 0, answer.err
    done = json.loads(answer.out)
    assert (done["files"], done["enrolled"]) == (2, 6)
    now = objects(s3, dest)
    assert not {deleted, damaged} & {key for key, _ in now}
    assert {one: tag for one, tag in now.items() if one[0] == other} == untouched
    assert "deleted" not in now.values()
    checked = ironmask("check", dest, "--deep", keys)
    assert checked.code == 0, checked.out
    owners = DeltaTables(dest, StorageSettings().delta_options()).table("templates").rows()
    assert sorted(owners["subject_id"].to_pylist()) == [f"s{n:03d}" for n in range(9)]
