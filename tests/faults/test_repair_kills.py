"""Kills of a repair at every kind of step."""

from __future__ import annotations

import pytest
from faults import repair_kills as kills


@pytest.mark.slow
def test_every_kind_of_step(tmp_path):
    assert [line for line in kills.run(1, tmp_path) if not line.holds] == []
