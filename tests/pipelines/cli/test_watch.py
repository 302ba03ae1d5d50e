"""`ironmask status --watch`: until a run has ended, and how it ended."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import typer
from rich.console import Console
from support.command import Answer, clean_environment, ironmask
from support.enrolling import (
    PowerCutError,
    after_first,
    broken_after,
    captures,
    changed,
    enroll,
    request,
    run,
    several,
    unit_vectors,
    write_embeddings,
)

from pipelines.cli import following
from pipelines.operations import watching
from pipelines.operations.status import Status
from pipelines.report.operations import status_line, status_table
from pipelines.run import live_note


def watch(dest: Path, *more: object, every: float = 0.1) -> Answer:
    return ironmask("status", dest, "--watch", f"--every={every}", *more)


def test_a_run_that_has_ended_is_one_line_and_its_outcome_the_code(tmp_path):
    enroll(several(tmp_path / "e.parquet", 3), tmp_path / "d")
    answer = watch(tmp_path / "d")
    assert (answer.code, answer.out.count("\n")) == (0, 1)
    assert "complete, 6 of 6 inputs committed, 0 wait, 0 failed" in answer.out


def test_failed_inputs_are_a_code_of_their_own(tmp_path):
    vectors = captures(unit_vectors(2), 2)
    vectors[3] = np.zeros_like(vectors[3])
    enroll(write_embeddings(tmp_path / "e.parquet", list("aabb"), vectors), tmp_path / "d")
    answer = watch(tmp_path / "d", "--json")
    assert answer.code == 3
    assert json.loads(answer.out)["failed"] == {"zero_norm": 1}


def test_a_run_that_nobody_goes_on_with_is_not_waited_for_without_end(tmp_path):
    source, dest = several(tmp_path / "e.parquet", 6), tmp_path / "d"
    with pytest.raises(PowerCutError):
        run(request(source, dest), broken_after(1))
    answer = watch(dest)
    assert answer.code == 1
    assert answer.out.count("\n") == 1, "nothing changed meanwhile"
    assert "nobody works on this run: the same command as then continues it" in answer.err


def test_a_run_that_was_given_up(tmp_path):
    source, dest = several(tmp_path / "e.parquet", 6), tmp_path / "d"
    with pytest.raises(PowerCutError):
        run(request(source, dest), broken_after(1))
    found = Status(**{**vars(watching_once(dest)), "state": "closed"})
    with pytest.raises(typer.Exit) as ended:
        following._end(found)
    assert ended.value.exit_code == 1


def watching_once(dest: Path) -> Status:
    return next(iter(watching.watched(str(dest), 0.1)))


def test_where_there_is_no_table_it_is_said(tmp_path):
    answer = watch(tmp_path / "d")
    assert (answer.code, len(answer.errors)) == (1, 1)


def test_a_run_is_followed_while_it_works(tmp_path, monkeypatch):
    """By another thread that looks often; the run takes its time."""
    monkeypatch.setattr(live_note, "_PAUSE_S", 0.0)
    source, dest = several(tmp_path / "e.parquet", 12), tmp_path / "d"
    seen: list[Status] = []

    def look() -> None:
        seen.extend(watching.watched(str(dest), 0.05))

    watcher = threading.Thread(target=look)

    def slowly(results):
        for number, result in enumerate(results):
            if number == 0:
                watcher.start()
            time.sleep(0.2)
            yield result

    run(request(source, dest), changed(slowly))
    watcher.join(30)
    assert not watcher.is_alive()
    assert (seen[-1].state, seen[-1].inputs_left, seen[-1].in_flight) == ("complete", 0, 0)
    settled = [found.inputs_done + found.inputs_waiting for found in seen]
    assert settled == sorted(settled)
    assert {4, 8} & {found.inputs_waiting for found in seen}
    assert all(found.holder for found in seen if found.in_flight)


def test_between_two_countings_the_note_is_enough(tmp_path, monkeypatch):
    """What is read does not follow the size of the table."""
    monkeypatch.setattr(live_note, "_PAUSE_S", 0.0)
    monkeypatch.setattr(watching, "_REST", 1e9)
    counted: list[int] = []
    status = watching.status
    monkeypatch.setattr(watching, "status", lambda *a: counted.append(1) or status(*a))
    seen: list[Status] = []

    def look() -> None:
        for found, _ in zip(watching.watched(str(tmp_path / "d"), 0.0), range(5), strict=False):
            seen.append(found)

    run(request(several(tmp_path / "e.parquet", 6), tmp_path / "d"), after_first(look))
    assert len(seen) == 5
    assert len(counted) == 1
    assert seen[-1].inputs_waiting == 4
    assert seen[-1].shards == 3


def test_what_was_made_good_by_others_is_said():
    found = Status(
        "d", "ab", "running", "somebody", 10, 2, 3, 1, 100, 20, 80, 10, {"used": 20}, {}, 2.0, None,
        oldest_seconds=75.0, resubmitted=2, nodes_excluded=1,
    )  # fmt: skip
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(status_table(found))
    said = console.export_text()
    assert "handed out 75 s ago" in said
    assert "2 times, and handed out again" in said
    assert "1; the log of the run names them" in said
    assert "2 shards handed out again, 1 nodes excluded" in status_line(found)


@pytest.mark.slow
def test_a_terminal_is_drawn_anew_and_ctrl_c_is_quiet(tmp_path):
    source, dest = several(tmp_path / "e.parquet", 6), tmp_path / "d"
    with pytest.raises(PowerCutError):
        run(request(source, dest), broken_after(1))
    program = [Path(sys.executable).with_name("ironmask"), "status", dest, "--watch", "--every=0.2"]
    leader, follower = pty.openpty()
    child = subprocess.Popen(
        program,
        stdout=follower,
        stderr=subprocess.PIPE,
        env=clean_environment(tmp_path, TERM="xterm-256color"),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(follower)
    shown = b""
    while shown.count(b"inputs committed") < 3:
        shown += os.read(leader, 1 << 16)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    os.close(leader)
    assert child.returncode == 130
    assert said == b""
    assert re.search(rb"\x1b\[\d*A", shown), "the cursor goes up"
