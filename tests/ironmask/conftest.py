"""Shared fixtures: seeded generators, row keys and the stored vectors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

VECTORS = Path(__file__).parent.parent / "vectors"


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator; the package itself never makes one."""
    return np.random.default_rng(20210401)


@pytest.fixture(scope="session")
def row_key() -> bytes:
    return bytes(range(32))


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], list[dict[str, Any]]]:
    return lambda name: json.loads((VECTORS / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def vectors_folder() -> Path:
    return VECTORS
