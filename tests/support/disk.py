"""What the disk does for tests that look at no disk."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def unsynced() -> Iterator[None]:
    """Files are not synced in this process; the conftest of a folder asks for it by an import.

    A sync makes a difference only to what a power cut leaves, and no test cuts the power. An
    enrolment syncs fifty times, which takes half of its time. `tests/infra` does not ask for it:
    there it is tested that files are synced, and in which order.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield
