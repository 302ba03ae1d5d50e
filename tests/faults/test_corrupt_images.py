"""A few pictures of every kind that goes wrong."""

from __future__ import annotations

import pytest
from faults.corrupt import enrol, lines
from faults.pictures_gone_bad import KINDS
from support.shared import faces_and_model


@pytest.mark.slow
def test_each_ends_in_the_row_it_deserves(tmp_path):
    try:
        faces_and_model()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    count = 2 * len(KINDS)
    found = lines(enrol(tmp_path, count, 5), count)
    assert [line for line in found if not line.holds] == []
