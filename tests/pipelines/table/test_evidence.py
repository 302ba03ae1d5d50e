"""What is found about something that is gone: each fact speaks for it or against it."""

from __future__ import annotations

from pipelines.table.evidence import Evidence

BARE = Evidence("/memory/dest", "generation 1", {"keys": "k"})


def test_nothing_looked_for_is_nothing_against_it():
    assert BARE.holds
    assert BARE.found([]) == BARE


def test_each_fact_goes_to_its_side():
    found = BARE.found([("its keys are gone", True), ("its files are gone", False)])
    assert found.statements == ("its keys are gone",)
    assert found.failures == ("not so: its files are gone",)
    assert not found.holds
    assert (found.dest, found.what, found.record) == (BARE.dest, BARE.what, BARE.record)


def test_one_failure_is_never_made_good():
    found = BARE.found([("a", False)]).found([("b", True)]).found(iter([("c", True)]))
    assert not found.holds
    assert found.statements == ("b", "c")
    assert BARE.holds
