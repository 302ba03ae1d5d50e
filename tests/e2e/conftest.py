"""Fixtures of the end-to-end tests: real models and faces, where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.command import clean_environment
from support.prefect import server, webhook
from support.shared import shared_or_skipped

__all__ = ["server", "webhook"]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with models and sample faces."""
    return shared_or_skipped()


@pytest.fixture(scope="session")
def model(shared: Path) -> Path:
    return shared / "models" / "buffalo_sc"


@pytest.fixture(scope="session")
def faces(shared: Path) -> Path:
    """`<subject>/<image>`, five to ten photographs of each of 423 people."""
    return shared / "faces" / "lfw_dev"


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the user reaches a test, and no test leaves keys in the user's folders."""
    wanted = clean_environment(tmp_path)
    for name in set(os.environ) - set(wanted):
        monkeypatch.delenv(name)
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
