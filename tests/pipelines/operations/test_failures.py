"""Which inputs failed and why, as an operator lists them."""

from __future__ import annotations

import csv
import io
import os
import pty
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.command import Answer, ironmask
from support.enrolling import enroll, unit_vectors, write_embeddings
from support.table import keys_of, rows

from pipelines.operations.failures import FailedInput, Failures
from pipelines.report.failures import as_csv, as_json, as_text, page
from pipelines.table.text_set import Greatest

NAN = [float("nan")] * 64
NAMES = ["Ann", "Ben", "=cmd|' /C calc'!A1", "\x1b[2Jwipe", "zoé"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Somebody is enrolled, with one bad embedding of two; three others have nothing but bad."""
    vectors = [*unit_vectors(2), NAN, NAN, [0.0] * 64, NAN]
    return write_embeddings(tmp_path / "e.parquet", ["Ann", "Ben", *NAMES[1:]], vectors)


@pytest.fixture
def dest(source: Path, tmp_path: Path) -> Path:
    made = tmp_path / "table"
    answer = enroll(source, made)
    assert answer.code == 3
    assert f"4 inputs failed; see `ironmask failures {made}`" in answer.err
    return made


def failures(dest: Path, *more: object) -> Answer:
    return ironmask("failures", dest, *more)


def listed(dest: Path, *more: object) -> list[dict[str, Any]]:
    answer = failures(dest, f"--keys={keys_of(dest)}", "--json", *more)
    assert answer.code == 0, answer.err
    found = answer.json()
    assert found["count"] == len(found["failures"])
    return found["failures"]


def test_what_failed_and_why(dest: Path) -> None:
    found = {one["subject"]: one for one in listed(dest)}
    assert set(found) == set(NAMES[1:])
    assert found["Ben"]["reason"] == "not_finite"
    assert found["Ben"]["detail"] == "the embedding holds NaN or infinity"
    assert found["Ben"]["address"].endswith("e.parquet#row=2")
    assert found[NAMES[3]]["reason"] == "zero_norm"
    assert {one["subject"] for one in listed(dest, "--reason=zero_norm")} == {NAMES[3]}
    assert len(listed(dest, "--reason=zero_norm,not_finite")) == 4


def test_without_keys_there_are_no_details_and_it_is_said(dest: Path) -> None:
    found = failures(dest, "--json").json()
    assert found["seal"] == "not checked against the seal"
    assert "no keys" in found["note"]
    assert [one["detail"] for one in found["failures"]] == [""] * 4
    assert "not checked against the seal (no keys" in failures(dest).out.splitlines()[0]
    assert "not checked against the seal" in failures(dest, "--csv").err


def test_the_keys_that_are_named_must_be_there(dest: Path, tmp_path: Path) -> None:
    answer = failures(dest, f"--keys={tmp_path / 'none.json'}")
    assert (answer.code, answer.out) == (1, "")


def test_the_newest_outcome_counts(dest: Path, source: Path) -> None:
    first = rows(dest, "runs")[0]["run_id"]
    assert len(listed(dest, f"--run={first}")) == 4
    mended = [*unit_vectors(5, 9), NAN]
    write_embeddings(source, ["Ann", "Ben", *NAMES[1:]], mended)
    assert enroll(source, dest, "--retry-failed").code == 3
    again = {one["subject"]: one["run_id"] != first for one in listed(dest)}
    # What failed of somebody who has a template is not tried again.
    assert again == {"Ben": False, "zoé": True}
    assert [one["subject"] for one in listed(dest, f"--run={first}")] == ["Ben"]


def test_what_there_is_not(dest: Path) -> None:
    answer = failures(dest, "--reason=bad_luck,no_face")
    assert (answer.code, "bad_luck;" in answer.err, "no_face" in answer.err) == (2, True, True)
    run = rows(dest, "runs")[0]["run_id"]
    answer = failures(dest, "--run=123")
    assert (answer.code, f"no run 123; its runs are {run}" in answer.err) == (1, True)
    assert failures(dest, "--csv", "--json").code == 2
    assert failures(dest.with_name("nowhere")).code == 1


def test_csv_neither_computes_nor_acts(dest: Path) -> None:
    answer = failures(dest, "--csv", f"--keys={keys_of(dest)}")
    assert answer.code == 0
    found = list(csv.DictReader(io.StringIO(answer.out)))
    assert {one["subject"] for one in found} == {
        "Ben", "'=cmd|' /C calc'!A1", r"\x1b[2Jwipe", "zoé"
    }  # fmt: skip
    assert "\x1b" not in answer.out


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r=1"])
def test_every_formula_is_a_text(text: str) -> None:
    one = FailedInput(text, text, "no_face", text, "0" * 12)
    (_, line) = as_csv(Failures("d", "", "", iter([one])))
    cells = next(csv.reader([line]))
    shown = [cells[place].lstrip() for place in (0, 1, 3)]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in shown)


def test_a_sealed_table_that_was_changed_is_refused(dest: Path) -> None:
    entry = max((dest / "inputs" / "_delta_log").glob("*.json"))
    entry.write_text(entry.read_text().replace("not_finite", "no_face"))
    path = next((dest / "inputs").glob("wave-*.parquet"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    answer = failures(dest, f"--keys={keys_of(dest)}")
    assert (answer.code, answer.out) == (1, "")


def test_pseudonyms_are_opened_by_the_keys(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "secret"
    assert enroll(source, dest, "--pseudonymous").code == 3
    assert {one["subject"] for one in listed(dest)} == set(NAMES[1:])
    assert all("e.parquet#row=" in one["address"] for one in listed(dest))
    bare = failures(dest)
    assert "pseudonyms" in bare.out.splitlines()[0]
    assert not any(word in bare.out for word in ("Ben", "e.parquet", "zoé"))


def test_erased_people_are_not_listed(dest: Path) -> None:
    assert ironmask("erase", "--yes", dest, "--subject=zoé", f"--keys={keys_of(dest)}").code == 0
    assert "zoé" not in {one["subject"] for one in listed(dest)}
    assert len(listed(dest)) == 3


def many(count: int) -> Failures:
    inputs = (FailedInput(f"s{n}", f"/a/{n}.jpg", "no_face", "", "0" * 12) for n in range(count))
    return Failures("/t", "checked", "", inputs)


@pytest.mark.parametrize("lines", [as_text, as_csv, as_json])
def test_a_long_list_is_never_in_memory(lines: Any) -> None:
    """What is read ahead of what is printed is bounded, however long the list is."""
    asked = 0

    def counted() -> Any:
        nonlocal asked
        for one in many(10**9).inputs:
            asked += 1
            yield one

    printed = lines(Failures("/t", "", "", counted()))
    for _ in range(1_000):
        next(printed)
    assert 900 < asked < 2_000


class TestPager:
    @pytest.fixture
    def seen(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """What came to the pager."""
        script = tmp_path / "pager"
        script.write_text(f"#!/bin/sh\nexec cat > {tmp_path / 'seen'}\n")
        script.chmod(0o755)
        monkeypatch.setenv("PAGER", str(script))
        return tmp_path / "seen"

    @pytest.fixture
    def terminal(self) -> Any:
        ours, theirs = pty.openpty()
        with os.fdopen(theirs, "w") as out:
            yield out
        os.close(ours)

    def test_a_long_list_pages(self, seen: Path, terminal: Any) -> None:
        page(as_text(many(100_000)), terminal)
        lines = seen.read_text().splitlines()
        assert (len(lines), lines[-1]) == (100_003, "100,000 failed inputs")

    def test_a_short_one_does_not(self, seen: Path, terminal: Any) -> None:
        page(as_text(many(3)), terminal)
        assert not seen.exists()

    def test_nor_one_that_is_piped(self, seen: Path, capsys: pytest.CaptureFixture[str]) -> None:
        page(as_text(many(1_000)), sys.stdout)
        assert not seen.exists()
        assert capsys.readouterr().out.count("\n") == 1_003

    def test_who_leaves_the_pager_early(
        self, terminal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        script = tmp_path / "pager"
        script.write_text("#!/bin/sh\nexec head -1 > /dev/null\n")
        script.chmod(0o755)
        monkeypatch.setenv("PAGER", str(script))
        page(as_text(many(100_000)), terminal)


def test_the_greatest_number_of_each_text() -> None:
    found = Greatest([(pa.array(["a", "b", "a"]), np.array([1, 5, 3]))])
    found.raise_to(pa.array(["b", "c"]), np.array([7, 9]))
    asked = pa.array(["a", "a", "b", "b", "c"])
    assert found.are(asked, np.array([3, 1, 7, 5, 9])).tolist() == [True, False, True, False, False]
    assert not Greatest([]).are(asked, np.zeros(5, np.int64)).any()
