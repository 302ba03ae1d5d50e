"""Fixtures of the pipeline tests: a quiet environment, and real faces where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.destinations import Place
from support.disk import unsynced
from support.shared import shared_or_skipped

from infra.store.objects import FsspecStore
from pipelines.table.held import Destination

__all__ = ["unsynced"]


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the user reaches a test, and no test leaves keys in the user's folders."""
    for name in list(os.environ):
        if (
            name.startswith("IRONMASK_") and name != "IRONMASK_SHARED"
        ) or name == "PREFECT_API_URL":
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("IRONMASK_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def place() -> Place:
    """A destination in memory, before anybody holds it."""
    return Place()


@pytest.fixture
def dest(place: Place) -> Destination:
    """The same, held by a writer."""
    return place.held()


@pytest.fixture
def local_store() -> FsspecStore:
    return FsspecStore()


@pytest.fixture(scope="session")
def face_data() -> Path:
    """The folder with models and sample faces."""
    return shared_or_skipped()
