"""The engine of this process: units in their order, one at a time, each with what all share."""

from __future__ import annotations

import pytest

from pipelines.run import stop
from pipelines.run.local import LocalEngine
from pipelines.run.work import Work


@pytest.fixture(autouse=True)
def _own_state(monkeypatch) -> None:
    monkeypatch.setattr(stop, "_state", stop._State())


def test_results_come_in_the_order_of_the_units():
    done: list[int] = []

    def unit(base: int, factor: int, number: int) -> int:
        done.append(number)
        return base + factor * number

    results = LocalEngine().run(Work(unit, (100, 2)), iter([5, 1, 3]))
    assert next(results) == 110
    assert done == [5]
    assert list(results) == [102, 106]


def test_of_no_unit_nothing():
    assert list(LocalEngine().run(Work(_refuse, ()), [])) == []


def test_an_error_of_a_unit_is_the_callers():
    results = LocalEngine().run(Work(_refuse, ()), [1, 2])
    with pytest.raises(ValueError, match="unit 1"):
        next(results)


def test_a_signal_that_waits_ends_it_before_the_next_unit():
    results = LocalEngine().run(Work(int, ()), [1, 2, 3])
    assert next(results) == 1
    stop._state.waiting = 2
    assert list(results) == []


def test_units_are_asked_for_as_they_are_needed():
    asked: list[int] = []

    def units():
        for number in range(3):
            asked.append(number)
            yield number

    results = LocalEngine().run(Work(int, ()), units())
    next(results)
    assert asked == [0]


def _refuse(number: int) -> int:
    raise ValueError(f"unit {number}")
