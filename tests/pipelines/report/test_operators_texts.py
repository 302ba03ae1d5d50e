"""What operators read: all that matters, and no name in it takes effect on a terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from pipelines.operations.check import Report
from pipelines.operations.status import Status
from pipelines.repairing.job import Outlook, Repaired
from pipelines.report import operations, terminal
from pipelines.reprotection.job import Renewed
from pipelines.run.begin import Forecast
from pipelines.run.summary import Summary
from pipelines.table.destroy_generation import Proof
from pipelines.table.evidence import Evidence
from pipelines.verification.probe import Verdict

STATUS = Status(
    dest="/d", run_id="r1", state="running", holder="host 7", shards=10, shards_done=4,
    in_flight=2, waiting=1, inputs=1000, inputs_done=250, inputs_left=750, inputs_waiting=50,
    outcomes={"used": 200, "failed": 50}, failed={"no_face": 50}, per_second=2.5,
    ends_at=datetime.now(UTC) + timedelta(days=400),
)  # fmt: skip
SUMMARY = Summary(
    run_id="r1", dest="/d", settings="n 64", inputs=1000, used=900, failed=50, duplicate=30,
    skipped=20, reasons={"no_face": 50}, subjects_enrolled=400, subjects_not_enrolled=7,
    disagreement={"other_face": 3}, resumed_shards=0, orphans_destroyed=0, bytes_written=2048,
    seconds=4.0, stage_seconds={},
)  # fmt: skip
FORECAST = Forecast("/d", "n 64", "", 1000, 400, 5, 900, {"hidden_file": 4}, 1 << 20)
REPORT = Report("/d", "id", True, 12, 4096, 1000, 400, 400, 1.5)
PROOF = Proof(1, "k1", "2026", 3, 5 << 20, "ab", "2026")


def said(show, *what: object) -> str:
    """What a wide terminal shows, a line a row and one blank between words."""
    out = io.StringIO()
    show(*what, Console(file=out, width=200, color_system=None, markup=False))
    return "\n".join(" ".join(line.split()) for line in out.getvalue().splitlines())


class TestStatus:
    def test_of_a_run_that_is_under_way(self):
        text = said(operations.print_status, STATUS)
        assert "250 of 1,000 (25.0%)" in text
        assert "50 inputs that wait for their commit" in text
        assert "4 of 10" in text
        assert "host 7" in text
        assert "no_face │ 50" in text
        assert "in 399 days" in text or "in 400 days" in text
        assert "at 2.5 inputs/s" in text

    def test_an_end_that_is_past_is_not_negative(self):
        late = replace(STATUS, ends_at=datetime.now(UTC) - timedelta(hours=1))
        assert "in 0:00:00 at" in said(operations.print_status, late)

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"state": "complete"}, "it has ended"),
            ({"state": "closed"}, "it has ended"),
            ({"ends_at": None}, "not known yet"),
            ({"ends_at": None, "holder": None}, "run the same command again to continue it"),
        ],
    )
    def test_where_no_end_is_foretold(self, changes, text):
        assert text in said(operations.print_status, replace(STATUS, **changes))

    def test_of_no_input_all_is_done(self):
        none = replace(STATUS, inputs=0, inputs_done=0, holder=None)
        text = said(operations.print_status, none)
        assert "0 of 0 (100.0%)" in text
        assert "nobody" in text


class TestSummary:
    def test_counts_and_rate(self):
        text = said(terminal.print_summary, SUMMARY)
        assert "4.0 s (250.0 inputs/s)" in text
        assert "2.0 KiB" in text
        assert "subjects with other_face │ 3" in text
        assert "shards done before" not in text
        assert "orphans" not in text

    def test_of_no_time_no_rate(self):
        assert "(0.0 inputs/s)" in said(terminal.print_summary, replace(SUMMARY, seconds=0.0))

    def test_what_earlier_calls_did_is_told(self):
        again = replace(SUMMARY, resumed_shards=3, orphans_destroyed=2)
        text = said(terminal.print_summary, again)
        assert "shards done before │ 3" in text
        assert "orphans destroyed │ 2" in text


class TestForecast:
    def test_what_would_be_done(self):
        text = said(terminal.print_forecast, FORECAST)
        assert "Would enrol into /d" in text
        assert "1,000 in 5 shards" in text
        assert "1.0 MiB at most" in text
        assert "continues run" not in text

    def test_of_an_unfinished_run(self):
        text = said(terminal.print_forecast, replace(FORECAST, resumes="r0"))
        assert "continues run │ r0" in text


class TestReport:
    def test_a_sound_table(self):
        text = said(operations.print_report, REPORT)
        assert "verdict │ sound" in text
        assert "400 helpers opened" in text

    def test_not_deep_no_helper_was_opened(self):
        assert "helpers not opened" in said(operations.print_report, replace(REPORT, deep=False))

    def test_findings_are_counted_and_named(self):
        text = said(operations.print_report, replace(REPORT, findings=["a is gone"], notes=["b"]))
        assert "1 findings" in text
        assert "finding: a is gone" in text
        assert "note: b" in text
        assert "sound" not in text

    def test_of_many_the_first_are_named(self):
        many = replace(REPORT, findings=[f"finding number {n}" for n in range(120)])
        text = said(operations.print_report, many)
        assert "finding number 49" in text
        assert "finding number 50" not in text
        assert "and 70 more" in text

    def test_a_name_in_a_finding_takes_no_effect(self):
        text = said(operations.print_report, replace(REPORT, findings=["\x1b[2J gone [red]x"]))
        assert "\x1b" not in text
        assert "\\x1b[2J gone [red]x" in text


def test_a_reprotection():
    done = Renewed(SUMMARY, 2, 1, 3, 4, PROOF)
    text = said(operations.print_renewed, done)
    assert "generation 2, 400 templates" in text
    assert "3 people" in text
    assert "generation 1: keys k1, 3 files, 5.0 MiB, in every version" in text
    assert "ironmask prove /d --generation 1" in text


def test_evidence_for_and_against():
    found = Evidence("/d", "generation 1", {"keys": "k1"}, ("its keys are gone",), ("not so: x",))
    text = said(operations.print_evidence, found)
    assert "/d, generation 1" in text
    assert "holds │ its keys are gone" in text
    assert "FAILS │ not so: x" in text


def test_a_repair():
    done = Repaired("/d", 2, 5, 4, 1, 0, None)
    text = said(operations.print_repaired, done)
    assert "2, destroyed in every version" in text
    assert "vault" not in text
    kept = replace(done, embeddings=3, summary=SUMMARY)
    text = said(operations.print_repaired, kept)
    assert "3 embeddings were in lost files" in text
    assert "subjects enrolled" in text


def test_a_repair_that_would_be():
    found = Outlook("/d", "n 64", [f"f{n}" for n in range(60)], 9, 7, 0)
    text = said(operations.print_outlook, found)
    assert "60 of templates" in text
    assert "9, of whom the source has 7" in text
    assert "f49" in text
    assert "f50" not in text


def test_answers_and_their_absence():
    verdicts = [
        Verdict("a.jpg", True, "", ""),
        Verdict("b.jpg", False, "", ""),
        Verdict("c.jpg", None, "no_face", "nobody in it"),
    ]
    text = said(terminal.print_verdicts, "ann", verdicts)
    assert "a.jpg │ accepted" in text
    assert "b.jpg │ rejected" in text
    assert "no answer: no_face (nobody in it)" in text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1023, "1,023 bytes"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (5 << 20, "5.0 MiB"),
        (3 << 30, "3.0 GiB"),
        (2 << 40, "2.0 TiB"),
        (5 << 50, "5,120.0 TiB"),
    ],
)
def test_sizes_read_well(count, text):
    assert terminal.size(count) == text
