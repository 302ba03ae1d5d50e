"""Whose templates a destination holds, what they were made from, and what failed lately."""

from __future__ import annotations

import pyarrow as pa
import pytest
from support.destinations import OTHER_RUN, enrolled, failed, row

from pipelines.spec.outcomes import Outcome, Reason
from pipelines.spec.template_job import Purpose
from pipelines.table import contents, generations
from pipelines.table.contents import Failure
from pipelines.table.identities import Identities, with_owner
from pipelines.table.run_records import RunState


def texts(*names: str) -> pa.Array:
    return pa.array(names, pa.string())


def settled(subject: str, outcome: Outcome, reason: Reason, number: int = 0):
    made = row(subject, number)
    made.settle(outcome, reason)
    return made


def erased(subject: str):
    return settled(subject, Outcome.USED, Reason.ERASED)


def lost(subject: str):
    return settled(subject, Outcome.USED, Reason.LOST)


class TestOfAnEmptyDestination:
    def test_nobody_and_nothing(self, dest):
        assert len(contents.live_subjects(dest.tables, 1)) == 0
        assert len(contents.used_contents(dest.tables, 1)) == 0
        assert len(contents.used_by_subject(dest.tables, 1)) == 0
        assert contents.used_inputs(dest.tables, 1) == 0
        assert contents.newest_failures(dest.tables) == {}
        assert len(contents.failed_inputs(dest.tables, ())) == 0
        assert contents.lost_people(dest.tables, 1).again == 0


class TestLive:
    def test_those_with_a_template(self, dest):
        enrolled(dest, ["ann", "bob", failed("cid")])
        found = contents.live_subjects(dest.tables, 1)
        assert found.has(texts("ann", "bob", "cid", "")).tolist() == [True, True, False, False]

    def test_of_another_generation_nobody(self, dest):
        enrolled(dest, ["ann"])
        assert len(contents.live_subjects(dest.tables, 2)) == 0


class TestUsed:
    def test_contents_by_their_keyed_names(self, dest):
        enrolled(dest, ["ann", failed("cid")])
        name = Identities.of(dest.keys, 1).named
        found = contents.used_contents(dest.tables, 1)
        asked = texts(name("sha256:ann"), name("sha256:cid"), "sha256:ann")
        assert found.has(asked).tolist() == [True, False, False]
        assert contents.used_inputs(dest.tables, 1) == 1

    def test_each_with_its_owner(self, dest):
        enrolled(dest, ["ann", "bob"])
        name = Identities.of(dest.keys, 1).named
        found = contents.used_by_subject(dest.tables, 1)
        own, others = texts(name("sha256:ann")), texts(name("sha256:bob"))
        assert found.has(with_owner(texts("ann"), own)).tolist() == [True]
        assert found.has(with_owner(texts("ann"), others)).tolist() == [False]

    @pytest.mark.parametrize("gone", [erased, lost])
    def test_what_is_gone_serves_nobody(self, dest, gone):
        """Its content may be enrolled again."""
        enrolled(dest, ["ann", gone("bob")])
        assert contents.used_inputs(dest.tables, 1) == 1
        assert len(contents.used_contents(dest.tables, 1)) == 1

    def test_only_runs_of_that_generation_count(self, dest):
        enrolled(dest, ["ann"])
        enrolled(dest, ["ann", "bob"], OTHER_RUN, generation=2)
        assert contents.used_inputs(dest.tables, 1) == 1
        assert contents.used_inputs(dest.tables, 2) == 2
        assert contents.used_inputs(dest.tables, 3) == 0

    def test_what_a_run_did_that_was_given_up_counts(self, dest):
        enrolled(dest, ["ann"], state=RunState.CLOSED)
        assert contents.used_inputs(dest.tables, 1) == 1

    @pytest.mark.parametrize(
        ("one", "used", "counted", "is_lost"),
        [
            (row("ann"), False, False, False),
            (settled("ann", Outcome.USED, Reason.NONE), True, False, False),
            (settled("ann", Outcome.USED, Reason.OTHER_FACE), True, False, False),
            (erased("ann"), False, True, False),
            (lost("ann"), False, True, True),
            (settled("ann", Outcome.FAILED, Reason.NO_FACE), False, False, False),
            (settled("ann", Outcome.SKIPPED, Reason.ERASED), False, False, False),
        ],
    )
    def test_every_outcome_is_one_of_these(self, one, used, counted, is_lost):
        rows = pa.table({"outcome": [one.outcome], "reason": [one.reason]})
        assert contents.is_used(rows).to_pylist() == [used]
        assert contents.is_counted(rows).to_pylist() == [counted]
        assert contents.is_lost(rows).to_pylist() == [is_lost]


class TestLost:
    def test_people_of_lost_files(self, dest):
        enrolled(dest, ["ann", lost("bob"), lost("cid")])
        found = contents.lost_people(dest.tables, 1)
        assert found.gone.has(texts("ann", "bob", "cid")).tolist() == [False, True, True]
        assert found.again == 0

    def test_who_was_enrolled_again_has_another_issue(self, dest):
        enrolled(dest, [lost("bob"), lost("cid")])
        enrolled(dest, ["bob"], OTHER_RUN)
        found = contents.lost_people(dest.tables, 1)
        assert found.gone.has(texts("bob", "cid")).tolist() == [False, True]
        assert found.again == 1

    def test_the_erased_are_not_lost(self, dest):
        enrolled(dest, ["ann", erased("bob")])
        assert len(contents.lost_people(dest.tables, 1).gone) == 0

    @pytest.mark.parametrize(
        ("purpose", "gone"), [(Purpose.ROTATE_MAC, 1), (Purpose.REKEY, 1), (Purpose.REPROTECT, 0)]
    )
    def test_rows_that_were_made_from_rows_are_no_other_issues(self, place, purpose, gone):
        """What was lost before a re-protection is past; what was lost before a rekey is not."""
        first = place.held()
        enrolled(first, ["ann", lost("bob")])
        first.log_seal.end()
        place.keyring.succeed(2, 1, rekey=True, rotate_mac=False)
        held = place.held()
        held.log_seal.rekey(place.keyring.generation(2))
        second = place.held(2)
        generations.prepare(second, 2, 1, purpose)
        enrolled(second, ["ann"], OTHER_RUN, generation=2, purpose=purpose, renews=1)
        generations.switch(second, 2, {})
        found = contents.lost_people(second.tables, 2)
        assert (len(found.gone), found.again) == (gone, 0)


class TestFailures:
    def test_by_address_with_owner_and_reason(self, dest):
        enrolled(dest, ["ann", failed("bob"), failed("cid", Reason.ZERO_NORM)])
        assert contents.newest_failures(dest.tables) == {
            "bob/0.jpg": Failure("bob", "no_face"),
            "cid/0.jpg": Failure("cid", "zero_norm"),
        }

    def test_a_later_success_ends_one(self, dest):
        enrolled(dest, ["ann", failed("bob")])
        enrolled(dest, ["bob"], OTHER_RUN)
        assert contents.newest_failures(dest.tables) == {}
        assert len(contents.failed_inputs(dest.tables, ())) == 0

    def test_an_earlier_success_does_not(self, dest):
        enrolled(dest, ["bob"])
        enrolled(dest, [failed("bob"), "ann"], OTHER_RUN)
        assert contents.newest_failures(dest.tables) == {"bob/0.jpg": Failure("bob", "no_face")}

    def test_the_newest_reason_is_told_once(self, dest):
        enrolled(dest, ["ann", failed("bob")])
        enrolled(dest, ["cid", failed("bob", Reason.TRUNCATED)], OTHER_RUN)
        assert contents.newest_failures(dest.tables) == {"bob/0.jpg": Failure("bob", "truncated")}
        batches = contents.failures(dest.tables, ["run_id", "reason"])
        found = [one for batch in batches for one in batch.to_pylist()]
        assert found == [{"run_id": OTHER_RUN, "reason": "truncated"}]

    def test_inputs_of_one_person_fail_apart(self, dest):
        enrolled(dest, ["ann", failed("bob"), failed("bob", number=1)])
        assert set(contents.newest_failures(dest.tables)) == {"bob/0.jpg", "bob/1.jpg"}

    def test_the_erased_have_none(self, dest):
        enrolled(dest, ["ann", settled("bob", Outcome.FAILED, Reason.ERASED)])
        assert contents.newest_failures(dest.tables) == {}

    def test_some_reasons_can_be_asked_for(self, dest):
        enrolled(dest, ["ann", failed("bob"), failed("cid", Reason.ZERO_NORM)])
        asked = texts("ann/0.jpg", "bob/0.jpg", "cid/0.jpg")
        for reasons, expected in (
            ((), [False, True, True]),
            (("zero_norm",), [False, False, True]),
            (("no_face", "truncated"), [False, True, False]),
            (("truncated",), [False, False, False]),
        ):
            found = contents.failed_inputs(dest.tables, reasons)
            assert found.has(asked).tolist() == expected


def test_people_with_faces_of_several_are_counted_once():
    rows = pa.table(
        {
            "subject_id": ["ann", "ann", "bob", "cid", "dan"],
            "reason": ["other_face", "other_face", "other_face", "faces_disagree", "no_face"],
        }
    )
    assert contents.people_by_disagreement(rows) == {"other_face": 2, "faces_disagree": 1}
    assert contents.people_by_disagreement(rows.slice(4)) == {}
