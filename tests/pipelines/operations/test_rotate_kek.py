"""`rotate-kek`: the keys are wrapped anew, whatever they have sealed stays as it is."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path

import pytest
from support.command import ironmask
from support.enrolling import enroll, several, unit_vectors, write_embeddings
from support.table import generation_keys, keys_of


def digests(dest: Path) -> dict[str, str]:
    return {
        str(path.relative_to(dest)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(dest.rglob("*"))
        if path.is_file()
    }


def rotated(dest: Path, *more: object):
    return ironmask("rotate-kek", dest, f"--keys={keys_of(dest)}", *more, "--json")


@pytest.mark.parametrize("people", [5, pytest.param(50_000, marks=pytest.mark.slow)])
def test_no_file_of_the_table_is_touched(tmp_path: Path, people: int) -> None:
    dest = tmp_path / "table"
    names = [f"s{number:06d}" for number in range(people)]
    source = write_embeddings(tmp_path / "e.parquet", names, unit_vectors(people))
    assert enroll(source, dest, "--tolerance=0", "--shard-size=512").code == 0
    before, content = digests(dest), keys_of(dest).read_text()
    sealed = generation_keys(dest).encrypt(b"x", b"y")
    answer = rotated(dest)
    assert answer.code == 0, answer.err
    assert answer.json() == {"old_uri": "local:", "new_uri": "local:", "keysets": 3}
    assert digests(dest) == before
    assert keys_of(dest).read_text() != content
    assert not set(_wrapped(content)) & set(_wrapped(keys_of(dest).read_text()))
    assert generation_keys(dest).decrypt(sealed, b"y") == b"x"
    assert ironmask("check", dest, f"--keys={keys_of(dest)}").code == 0


def _wrapped(content: str) -> list[str]:
    """Whatever is encrypted, or a key, in a keyset file."""
    return [text for text in re.findall(r'"([A-Za-z0-9+/=]{60,})"', content) if text]


def test_a_wrong_old_key_is_refused(tmp_path: Path) -> None:
    dest, other = tmp_path / "table", tmp_path / "other"
    source = several(tmp_path / "e.parquet", 3)
    for table in (dest, other):
        assert enroll(source, table).code == 0
    mixed = json.loads(keys_of(dest).read_text())
    mixed["kek"] = json.loads(keys_of(other).read_text())["kek"]
    keys_of(dest).write_text(json.dumps(mixed))
    content = keys_of(dest).read_bytes()
    answer = rotated(dest)
    assert answer.code == 1
    assert "does not open with local:" in answer.errors[0]
    assert keys_of(dest).read_bytes() == content


def test_a_service_that_is_not_there_is_refused(tmp_path: Path) -> None:
    dest = tmp_path / "table"
    assert enroll(several(tmp_path / "e.parquet", 3), dest).code == 0
    content = keys_of(dest).read_bytes()
    answer = rotated(dest, "--kek=unknown-kms://x")
    assert (answer.code, "unknown key-encryption key" in answer.errors[0]) == (1, True)
    assert keys_of(dest).read_bytes() == content
