"""Cases of which some are slow ones: `make test` runs the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow(*values: object) -> Any:
    """A case that `make test-slow` runs."""
    return pytest.param(*values, marks=pytest.mark.slow)


def few(every: Iterable[Any], *kept: object) -> list[Any]:
    """All cases of one value each, slow but for those that are kept."""
    cases = list(every)
    assert all(one in cases for one in kept), "a case that is kept must be there"
    return [one if one in kept else slow(one) for one in cases]
