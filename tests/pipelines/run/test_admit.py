"""What may be added to a destination: nothing that its rows would not fit with."""

from __future__ import annotations

import logging

import pytest
from support.destinations import OTHER_RUN, RUN, enrolled, failed, job, record

from ironmask.centring import Centring
from ironmask.errors import MismatchError
from ironmask.helper import ENCODINGS
from ironmask.params import Params
from pipelines.run.admit import admit, as_begun, differences
from pipelines.spec.template_job import Purpose, TemplateJob
from pipelines.table import generations, run_records
from pipelines.table.run_records import RunState

OTHERS = {
    "alpha": {"params": Params(64, 13, 1)},
    "tolerance": {"params": Params(64, 12, 0)},
    "encoding": {"encoding": next(one for one in ENCODINGS if one != job().encoding)},
    "sealed": {"sealed": False},
    "model": {"model": "declared:other"},
    "centring": {"centring": next(one for one in Centring if one is not job().centring)},
    "filling": {"filling": 0.5},
    "profile": {"profile": "ab" * 32},
    "pseudonymous": {"pseudonymous": True},
}


def other(name: str) -> TemplateJob:
    """A job that differs in one trait of its rows."""
    return job(**OTHERS[name])


def test_anything_may_begin_in_an_empty_one(dest):
    for name in OTHERS:
        assert admit(dest.tables, other(name)) is None


def test_the_same_again_may_be_added(dest):
    enrolled(dest, ["ann"])
    assert admit(dest.tables, job()) is None
    assert admit(dest.tables, job(shard_size=9, source="/elsewhere")) is None


@pytest.mark.parametrize("name", OTHERS)
def test_rows_that_would_not_fit_are_refused_and_named(dest, name):
    enrolled(dest, ["ann"])
    with pytest.raises(MismatchError, match=f"other settings: {name} is .* there and .* here"):
        admit(dest.tables, other(name))


@pytest.mark.parametrize("name", OTHERS)
def test_where_nobody_was_enrolled_nothing_binds_but_the_labels(dest, name):
    enrolled(dest, [failed("ann")])
    if name == "pseudonymous":
        with pytest.raises(MismatchError, match="pseudonymous is False there and True here"):
            admit(dest.tables, other(name))
    else:
        assert admit(dest.tables, other(name)) is None


def test_a_run_that_was_given_up_binds_by_what_it_committed(dest):
    enrolled(dest, ["ann"], state=RunState.CLOSED)
    with pytest.raises(MismatchError):
        admit(dest.tables, other("alpha"))


def test_every_difference_is_named_at_once(dest):
    enrolled(dest, ["ann"])
    with pytest.raises(MismatchError, match=r"alpha is 12 there.*; filling is 0\.0 there.*bits"):
        admit(dest.tables, job(params=Params(64, 13, 1), filling=0.5))


def test_an_unfinished_run_is_gone_on_with(dest):
    record(dest, job(), RUN)
    found = admit(dest.tables, job())
    assert found is not None
    assert (found.run_id, found.state) == (RUN, "running")


def test_an_unfinished_run_binds_before_it_committed_anything(dest):
    record(dest, job(), RUN)
    with pytest.raises(MismatchError, match="alpha"):
        admit(dest.tables, other("alpha"))
    assert admit(dest.tables, other("alpha"), restart=True).run_id == RUN


def test_restarted_it_binds_by_what_it_committed(dest):
    enrolled(dest, ["ann"], state=RunState.RUNNING)
    with pytest.raises(MismatchError, match="alpha"):
        admit(dest.tables, other("alpha"), restart=True)


def test_an_unfinished_run_of_another_kind_comes_first(dest):
    record(dest, job(purpose=Purpose.REPAIR), RUN)
    with pytest.raises(MismatchError, match=rf"unfinished run of another kind, {RUN} \(repair\)"):
        admit(dest.tables, job())
    with pytest.raises(MismatchError, match="another kind"):
        admit(dest.tables, job(), restart=True)


def test_settings_of_another_generation_do_not_bind(dest):
    enrolled(dest, ["ann"])
    renewed = job(params=Params(64, 13, 1), generation=2, renews=1, purpose=Purpose.REPROTECT)
    assert admit(dest.tables, renewed) is None


def test_a_reprotection_goes_on_with_its_own_settings_or_is_given_up(dest):
    enrolled(dest, ["ann"])
    again = {"generation": 2, "renews": 1, "purpose": Purpose.REPROTECT}
    record(dest, job(**again), OTHER_RUN)
    assert admit(dest.tables, job(**again)).run_id == OTHER_RUN
    with pytest.raises(MismatchError, match="give it up with --abandon"):
        admit(dest.tables, job(**again, filling=0.5))


class TestWhileAReprotectionHasNotEnded:
    @pytest.fixture
    def second(self, place):
        first = place.held()
        enrolled(first, ["ann"])
        place.keyring.succeed(2, 1, rekey=False, rotate_mac=False)
        first.log_seal.rekey(place.keyring.generation(2))
        held = place.held(2)
        generations.prepare(held, 2, 1, Purpose.REPROTECT)
        return held

    def test_before_its_switch(self, second):
        with pytest.raises(MismatchError, match=r"generation 2 is preparing.*ironmask reprotect"):
            admit(second.tables, job())

    def test_after_its_switch(self, second):
        generations.switch(second, 2, {})
        with pytest.raises(MismatchError, match="generation 1 is retired"):
            admit(second.tables, job(generation=2))

    def test_it_may_itself_go_on(self, second):
        asked = job(generation=2, renews=1, purpose=Purpose.REPROTECT)
        assert admit(second.tables, asked) is None

    def test_once_all_is_destroyed_it_has(self, second):
        generations.switch(second, 2, {})
        generations.destroyed(second, 1, {})
        assert admit(second.tables, job(generation=2)) is None


class TestAgreement:
    """Releases of before tested no faces of one subject: what they began ends without it."""

    def begin(self, dest) -> None:
        record(dest, job(), RUN)
        (before,) = run_records.runs(dest.tables)
        before.config["job"].pop("agreement")
        run_records.write(dest, before)

    def test_of_a_run_that_knew_none(self, dest, caplog):
        self.begin(dest)
        with caplog.at_level(logging.WARNING):
            found = as_begun(dest.tables, job(agreement=0.3), restart=False)
        assert found == job()
        assert "without --agreement" in caplog.text

    def test_planned_afresh_it_is_tested(self, dest):
        self.begin(dest)
        asked = job(agreement=0.3)
        assert as_begun(dest.tables, asked, restart=True) == asked

    def test_of_a_run_that_knew_it(self, dest):
        record(dest, job(agreement=0.3), RUN)
        asked = job(agreement=0.3)
        assert as_begun(dest.tables, asked, restart=False) == asked


class TestDifferences:
    def before(self, dest, **changes):
        record(dest, job(**changes), RUN)
        (found,) = run_records.runs(dest.tables)
        return found

    def test_none(self, dest):
        assert differences(self.before(dest), job()) == ""

    def test_also_of_settings_in_settings(self, dest):
        found = differences(self.before(dest), job(shard_size=3, params=Params(64, 13, 1)))
        assert found == " (alpha: 12 then, 13 now; shard_size: 256 then, 3 now)"

    def test_what_a_run_of_before_did_not_know_is_named_where_it_is_used(self, dest):
        found = self.before(dest)
        found.config["job"].pop("agreement")
        assert differences(found, job()) == ""
        assert differences(found, job(agreement=0.3)) == " (agreement: None then, 0.3 now)"
