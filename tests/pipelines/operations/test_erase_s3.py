"""Erasing and re-protecting in a versioned bucket: no version of anything survives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.command import ironmask
from support.enrolling import enroll, several

from infra.settings import StorageSettings
from infra.store.delta import DeltaTables
from infra.store.objects import FsspecStore


@pytest.fixture(autouse=True)
def _credentials(s3, monkeypatch):
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def table(s3, bucket, tmp_path) -> str:
    s3.client().put_bucket_versioning(
        Bucket=bucket.removeprefix("s3://"), VersioningConfiguration={"Status": "Enabled"}
    )
    source, dest = f"{bucket}/in/e.parquet", f"{bucket}/out"
    FsspecStore(StorageSettings()).write(source, several(tmp_path / "e.parquet", 7).read_bytes())
    answer = enroll(source, dest, "--vault", "--shard-size=6", keys=tmp_path / "k.json")
    assert answer.code == 0, answer.err
    return dest


def versions(s3: Any, dest: str) -> Iterator[tuple[str, bytes]]:
    """Key and bytes of every version below a destination, and its values where it is Parquet."""
    bucket, _, prefix = dest.removeprefix("s3://").partition("/")
    client = s3.client()
    pages = client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        for item in page.get("Versions", []):
            where = {"Bucket": bucket, "Key": item["Key"], "VersionId": item["VersionId"]}
            content = client.get_object(**where)["Body"].read()
            yield item["Key"], content
            if item["Key"].endswith(".parquet"):
                values = pq.ParquetFile(pa.BufferReader(content)).read().to_pylist()
                yield item["Key"], repr(values).encode()


@pytest.mark.parametrize("subject", ["s000", pytest.param("s003", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_person_is_in_no_version(s3, table, tmp_path, subject):
    (row,) = [
        row
        for row in DeltaTables(table, StorageSettings().delta_options())
        .table("templates")
        .rows()
        .to_pylist()
        if row["subject_id"] == subject
    ]
    words = [subject.encode(), row["template_id"].encode(), row["helper"]]
    words += [uri.encode() for uri in row["source_uris"]]
    patterns = [re.compile(re.escape(word) + rb"(?!\d)") for word in words]
    before = list(versions(s3, table))
    assert all(any(p.search(content) for _, content in before) for p in patterns)
    keys = tmp_path / "k.json"
    answer = ironmask("erase", "--yes", table, f"--subject={subject}", f"--keys={keys}", "--json")
    assert answer.code == 0, answer.err
    assert [one["templates"] for one in json.loads(answer.out)] == [1]
    after = list(versions(s3, table))
    assert [key for key, content in after for p in patterns if p.search(content)] == []
    checked = ironmask("check", table, "--deep", f"--keys={keys}")
    assert checked.code == 0, checked.out


@pytest.mark.slow
def test_a_generation_is_in_no_version(s3, table, tmp_path):
    old = [content for key, content in versions(s3, table) if "generation=1" in key]
    assert old
    keys = f"--keys={tmp_path / 'k.json'}"
    answer = ironmask("reprotect", table, "--executor=local", keys)
    assert answer.code == 0, answer.err
    after = list(versions(s3, table))
    assert not [key for key, _ in after if "generation=1/" in key]
    assert not {content for _, content in after} & set(old)
    assert ironmask("prove", table, "--generation=1", keys).code == 0
