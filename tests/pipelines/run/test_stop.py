"""SIGINT and SIGTERM: what is finished is committed, and one line says how to go on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest
import typer
from support.accounting import committed, uncommitted
from support.enrolling import (
    ALPHA,
    TOLERANCE,
    changed,
    enroll,
    request,
    run,
    several,
    unit_vectors,
    write_embeddings,
)
from support.table import assert_sound, keys_of

from pipelines import cli
from pipelines.run import stop
from pipelines.run.local import LocalEngine
from pipelines.run.work import Work

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
PROGRAM = str(Path(sys.executable).with_name("ironmask"))


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Signals as `ironmask` answers them, in this process."""
    monkeypatch.setattr(stop, "_state", stop._State())
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = {number: signal.getsignal(number) for number in stop._SIGNALS}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    stop.watch()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def signalling(number: int, place: int) -> Callable[[int], int]:
    """A unit of work that a signal meets, and that swallows what comes of it."""

    def unit(found: int) -> int:
        if found == place:
            try:
                signal.raise_signal(number)
            except BaseException:  # noqa: BLE001 - as libraries do
                return -found
        return found

    return unit


class TestHeld:
    @SIGNALS
    def test_a_signal_waits(self, number):
        def work() -> None:
            with stop.held():
                signal.raise_signal(number)
                assert stop.wanted()
                assert not stop.asked()

        with pytest.raises(stop.Interrupted):
            work()
        assert stop.asked() == number
        assert not stop.wanted()

    @SIGNALS
    def test_what_was_broken_off_counts_for_nothing(self, number):
        """Whatever it made of the signal itself."""
        work, found = Work(signalling(number, 3), ()), []
        with pytest.raises(stop.Interrupted), stop.held():
            found += LocalEngine().run(work, range(6))
        assert found == [0, 1, 2]

    @SIGNALS
    def test_so_where_nothing_is_held(self, number):
        work, found = Work(signalling(number, 3), ()), []
        with pytest.raises(stop.Interrupted):
            found.extend(LocalEngine().run(work, range(6)))
        assert -3 not in found

    def test_another_handler_gets_it_afterwards(self):
        """Prefect has its own, for a flow that is to be cancelled."""
        told: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
        with stop.held():
            signal.raise_signal(signal.SIGTERM)
            assert told == []
        assert told == [signal.SIGTERM]

    def test_an_ignored_signal_stays_ignored(self):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stop.watch()
        with stop.held():
            signal.raise_signal(signal.SIGINT)
            assert not stop.wanted()


@pytest.mark.slow
@SIGNALS
@pytest.mark.parametrize("after", [0, 1, 7])
def test_finished_shards_are_committed(tmp_path, number, after):
    source, dest = several(tmp_path / "e.parquet", 20), tmp_path / "dest"

    def strike(results):
        for count, result in enumerate(results):
            yield result
            if count == after:
                signal.raise_signal(number)

    with pytest.raises(stop.Interrupted):
        run(request(source, dest), executor=changed(strike))
    assert (committed(dest), uncommitted(dest)) == (after + 1, 0)
    stop._state = stop._State()
    assert run(request(source, dest)).resumed_shards == after + 1
    assert_sound(dest, 40)


def started(*words: object) -> subprocess.Popen[str]:
    """The installed command, as a shell starts it in the foreground."""
    return subprocess.Popen(
        [PROGRAM, *map(str, words)],
        stdout=PIPE,
        stderr=PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def catches(process: subprocess.Popen[str]) -> bool:
    """Whether a process answers SIGTERM itself."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)


@SIGNALS
def test_before_anything_is_loaded(tmp_path, number):
    source, dest = several(tmp_path / "e.parquet", 4), tmp_path / "dest"
    with started("enroll", source, dest, "--alpha=12", "--tolerance=1") as process:
        while not catches(process):
            time.sleep(0.001)
        process.send_signal(number)
        out, err = process.communicate()
    assert process.returncode == 128 + number, err
    assert out == ""
    assert err.splitlines()[-1].startswith("interrupted; the same command ")
    assert "Traceback" not in err
    assert not dest.exists()


@pytest.mark.slow
@SIGNALS
def test_an_evaluation_goes_on(tmp_path, number):
    names = [f"s{number}" for number in range(400) for _ in range(2)]
    vectors = np.repeat(unit_vectors(400), 2, axis=0) + unit_vectors(800, seed=1)
    source, out = write_embeddings(tmp_path / "e.parquet", names, vectors), tmp_path / "out"
    words = ["evaluate", source, out, "--executor=local", "--seed", "5" * 64, "--alpha=8"]
    with started(*words) as process:
        while process.poll() is None and not list(out.glob("blocks/*.counts.*")):
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate()
    assert process.returncode == 128 + number, err
    assert err.splitlines()[-1] == "interrupted; the same command continues the run"
    assert "Traceback" not in err
    # The counts of a block are written last.
    whole = [path.name.partition(".")[0] for path in out.glob("blocks/*.counts.*")]
    made = {path: path.stat().st_mtime_ns for n in whole for path in out.glob(f"blocks/{n}.*")}
    with started(*words) as process:
        _, err = process.communicate()
    assert process.returncode == 0, err
    assert {path: path.stat().st_mtime_ns for path in made} == made


STUBBORN = """
import signal, sys, time
from pipelines.run import stop
stop.watch()
try:
    print("ready", flush=True)
    time.sleep(600)
except stop.Interrupted:
    print("cleaning", flush=True)
    for _ in range(600): time.sleep(1)
"""


@SIGNALS
def test_a_second_signal_ends_at_once(number):
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        # A wrapper has passed the same wish on.
        process.send_signal(number)
        assert process.stdout.readline() == "cleaning\n"
        time.sleep(2 * stop._ECHO_S)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait() == 128 + number


def test_commands_that_go_on_are_commands():
    assert set(typer.main.get_command(cli.app).commands) >= cli.CONTINUED  # type: ignore[attr-defined]


def test_sigterm_to_an_enrolment(tmp_path):
    source, dest = several(tmp_path / "e.parquet", 100), tmp_path / "dest"
    words = ["enroll", source, dest, "--executor=local", f"--keys={keys_of(dest)}"]
    words += [f"--alpha={ALPHA}", f"--tolerance={TOLERANCE}", "--shard-size=4"]
    with started(*words) as process:
        while process.poll() is None and len(list(dest.glob("templates/*/part-*.parquet"))) < 20:
            time.sleep(0.01)
        process.terminate()
        _, err = process.communicate()
    assert process.returncode == 143, err
    assert err.splitlines()[-1] == "interrupted; the same command continues the run"
    # The shard at work was broken off, perhaps after it had written its files.
    assert committed(dest) >= 19
    assert uncommitted(dest) <= 1
    assert enroll(source, dest, "--shard-size=4", "--json").code == 0
    assert_sound(dest, 200)
