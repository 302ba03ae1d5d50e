"""Fixtures of the tests of keys: where a keyset file goes, and one with a generation."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.keys.key_file import KeyFile

TABLE = "7d0c6a3e-table"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "table.json"


@pytest.fixture
def key_file(path: Path) -> KeyFile:
    made = KeyFile.create(path, TABLE)
    made.add_generation(1)
    return made
