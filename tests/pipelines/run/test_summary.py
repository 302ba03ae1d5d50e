"""What a run is said to have done: what the log lists, or nothing is said."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from support.destinations import (
    OTHER_RUN,
    RUN,
    Place,
    commit,
    context,
    enrolled,
    failed,
    job,
    plan,
    row,
    written,
)

from ironmask.errors import CountError
from pipelines.run.summary import Summary, Tally, summarise, write_metrics
from pipelines.spec.outcomes import Outcome, Reason


@pytest.fixture
def dest():
    return Place().held()


def summary(dest, inputs: int, run_id: str = RUN) -> Summary:
    frozen = plan(run_id, inputs=inputs)
    return summarise(job(), frozen, Tally(), 0, 0, dest.tables, 1.0)


def settled(subject: str, outcome: Outcome, reason: Reason, number: int = 0):
    made = row(subject, number)
    made.settle(outcome, reason)
    return made


def test_every_input_is_counted_once(dest):
    duplicate = settled("ann", Outcome.DUPLICATE, Reason.DUPLICATE_CONTENT, 1)
    skipped = settled("eve", Outcome.SKIPPED, Reason.ALREADY_ENROLLED)
    enrolled(dest, ["ann", duplicate, "bob", failed("cid"), skipped])
    found = summary(dest, 5)
    assert (found.used, found.failed, found.duplicate, found.skipped) == (2, 1, 1, 1)
    assert found.reasons == {"already_enrolled": 1, "duplicate_content": 1, "no_face": 1}
    assert (found.subjects_enrolled, found.subjects_not_enrolled) == (2, 1)


def test_other_runs_do_not_count(dest):
    enrolled(dest, ["ann", failed("cid")])
    enrolled(dest, ["bob"], OTHER_RUN)
    assert summary(dest, 1, OTHER_RUN).used == 1


@pytest.mark.parametrize("inputs", [0, 1, 3])
def test_a_run_that_is_not_its_plan_is_no_success(dest, inputs):
    enrolled(dest, ["ann", failed("bob")])
    with pytest.raises(CountError, match=f"planned {inputs:,} inputs and has outcomes for 2"):
        summary(dest, inputs)


def test_nobody_whose_inputs_were_used_is_without_template(dest):
    """The file of templates went out of sight between commit and report."""
    result = written(context(dest), ["ann", "bob"])
    commit(dest, result, 1, ["inputs"])
    with pytest.raises(CountError, match=r"2 people of whom inputs were used and 0 templates"):
        summary(dest, 2)


def test_who_failed_once_and_was_used_once_is_enrolled(dest):
    enrolled(dest, ["ann", failed("ann", number=1), failed("bob"), failed("bob", number=1)])
    found = summary(dest, 4)
    assert (found.subjects_enrolled, found.subjects_not_enrolled) == (1, 1)


def test_inputs_of_nobody_fail_without_a_person(dest):
    enrolled(dest, ["ann", failed("", Reason.NO_SUBJECT)])
    assert summary(dest, 2).subjects_not_enrolled == 0


def test_people_with_faces_of_several_are_told(dest):
    enrolled(dest, ["ann", failed("bob", Reason.FACES_DISAGREE)])
    assert summary(dest, 2).disagreement == {"faces_disagree": 1}


class TestShortfall:
    @pytest.fixture
    def done(self, dest) -> Summary:
        enrolled(dest, ["ann", failed("bob")])
        return summary(dest, 2)

    def test_more_failures_than_are_allowed(self, done):
        assert "1 inputs failed; see `ironmask failures" in done.shortfall(0)
        assert done.shortfall(1) == ""

    def test_nobody_enrolled(self, done):
        nobody = replace(done, subjects_enrolled=0)
        assert nobody.served_nobody
        assert "nobody could be enrolled" in nobody.shortfall(1)

    def test_who_was_enrolled_before_is_served(self, done):
        before = replace(done, subjects_enrolled=0, reasons={Reason.ALREADY_ENROLLED: 3})
        assert not before.served_nobody
        assert before.shortfall(1) == ""

    def test_skipped_for_another_reason_is_not_served(self, done):
        other = replace(done, subjects_enrolled=0, reasons={Reason.HIDDEN_FILE: 3})
        assert other.served_nobody


class TestTally:
    def test_of_nothing(self):
        assert (Tally().inputs, Tally().of(Outcome.USED)) == (0, 0)

    def test_adds_what_shards_did(self, dest):
        tally = Tally()
        results = [written(context(dest), ["ann", failed("bob")], shard=n) for n in range(2)]
        for result in results:
            tally.add(result)
        assert (tally.inputs, tally.shards, tally.enrolled) == (4, 2, 2)
        assert (tally.of(Outcome.USED), tally.of(Outcome.FAILED)) == (2, 2)
        assert tally.of(Outcome.SKIPPED) == 0
        sizes = [file.size for result in results for file in result.files.values()]
        assert tally.bytes_written == sum(sizes) > 0
        assert tally.timings["protect"] == sum(one.timings["protect"] for one in results)


class TestMetrics:
    def written(self, dest) -> dict[str, tuple[float, int, int]]:
        found = dest.tables.table("metrics").rows().to_pylist()
        return {one["name"]: (one["value"], one["numerator"], one["denominator"]) for one in found}

    def test_rates_of_what_was_tried(self, dest):
        blurred, unread = failed("bob", Reason.FACE_BLURRED), failed("cid", Reason.TRUNCATED)
        enrolled(dest, ["ann", "dan", blurred, unread])
        write_metrics(dest, summary(dest, 4))
        assert self.written(dest) == {
            "failure_to_acquire": (0.25, 1, 4),
            "failure_to_enrol": (0.5, 2, 4),
        }

    def test_once_however_often_a_run_ends(self, dest):
        enrolled(dest, ["ann"])
        done = summary(dest, 1)
        write_metrics(dest, done)
        write_metrics(dest, replace(done, used=7))
        assert len(dest.tables.table("metrics").rows()) == 2
        assert self.written(dest)["failure_to_acquire"] == (0.0, 0, 1)

    def test_of_nothing_tried_they_are_zero(self, dest):
        enrolled(dest, [settled("ann", Outcome.SKIPPED, Reason.ALREADY_ENROLLED)])
        write_metrics(dest, summary(dest, 1))
        assert self.written(dest) == {
            "failure_to_acquire": (0.0, 0, 0),
            "failure_to_enrol": (0.0, 0, 0),
        }


def test_totals_are_of_counts_alone(dest):
    enrolled(dest, ["ann"])
    frozen = plan(inputs=1)
    tally = Tally(bytes_written=7, timings={"protect": 0.12345}, outcomes=Counter())
    found = summarise(job(), frozen, tally, 3, 4, dest.tables, 2.5)
    assert (found.resumed_shards, found.orphans_destroyed, found.bytes_written) == (3, 4, 7)
    assert (found.seconds, found.stage_seconds) == (2.5, {"protect": 0.123})
    assert "ann" not in repr(found)
