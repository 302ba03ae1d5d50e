"""The checks at the door, and unit rows of any scale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ironmask.arrays import as_batch, unit_rows
from ironmask.errors import TemplateError

steady = settings(deadline=None, derandomize=True, database=None, max_examples=100)


def test_one_vector_becomes_a_batch_of_one():
    assert as_batch([1, 2, 3], 3).tolist() == [[1.0, 2.0, 3.0]]
    assert as_batch(np.ones((2, 3), dtype=np.float16), 3).dtype == np.float64


@pytest.mark.parametrize("shape", [(2,), (4,), (5, 4), (3, 2), (2, 2, 3), (), (0,)])
def test_wrong_width(shape):
    with pytest.raises(TemplateError) as caught:
        as_batch(np.ones(shape), 3)
    assert caught.value.reason == "wrong_width"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("check", [as_batch, unit_rows])
def test_not_finite(bad, check):
    with pytest.raises(TemplateError) as caught:
        check([[1.0, 2.0], [bad, 1.0]], 2)
    assert caught.value.reason == "not_finite"


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_zero_norm(zero):
    with pytest.raises(TemplateError) as caught:
        unit_rows([[1.0, 2.0], [zero, zero]], 2)
    assert caught.value.reason == "zero_norm"


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-200, 1.0, 1e200, 1.7e308])
def test_extreme_scales_keep_their_direction(scale):
    rows = unit_rows(np.array([[0.0, 1.0, -1.0]]) * scale, 3)
    assert rows[0] == pytest.approx([0, 0.5**0.5, -(0.5**0.5)])


@steady
@given(
    st.lists(st.floats(-1e300, 1e300, allow_subnormal=False), min_size=4, max_size=4),
    st.sampled_from([1e-5, 0.5, 3.0, 1e7]),
)
def test_rows_have_length_one_whatever_the_scale(values, scale):
    if max(abs(v) for v in values) < 1e-290:
        return
    rows = unit_rows([values, np.multiply(values, scale)], 4)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, rel=1e-12)
    assert rows[1] == pytest.approx(rows[0], abs=1e-12)


def test_input_is_left_alone():
    given_rows = np.array([[3.0, 4.0]])
    unit_rows(given_rows, 2)
    assert given_rows.tolist() == [[3.0, 4.0]]
