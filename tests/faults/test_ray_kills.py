"""Workers that die, hang or are never well, actors and raylets that die: the short versions."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from faults.ray_kills import kill_embedder, kill_raylet, kill_worker, kills, photographs, stored
from support.enrolling import request, run, several
from support.nodes import Cluster, NoClusterError, cluster, command, family
from support.table import assert_sound, keys_of

from infra import ray_cluster
from ironmask.errors import KeyNotFoundError, WorkerError

TASK = "ray::whole_shard"


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    try:
        with cluster(tmp_path_factory.mktemp("nodes"), 2) as found:
            yield found
    except NoClusterError as error:
        pytest.skip(f"no second raylet starts here: {error}")


@pytest.mark.parametrize(
    ("strike", "many"),
    [
        pytest.param(kill_worker, 5, marks=pytest.mark.slow),
        pytest.param(kill_raylet, 1, marks=pytest.mark.slow),
    ],
)
def test_kills_cost_no_row(strike, many, where, tmp_path):
    seen = kills(where, stored(tmp_path, 300), strike, many, 1.0, random.Random(1))
    assert [line for line in seen.lines("kills", many) if not line.holds] == []


@pytest.mark.slow
def test_hosts_of_models_that_are_killed_cost_no_row(where, tmp_path):
    try:
        work = photographs(tmp_path, 30)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    seen = kills(where, work, kill_embedder, 3, 8.0, random.Random(1))
    assert [line for line in seen.lines("kills", 3) if not line.holds] == []


@contextmanager
def striking(action: Callable[[int], bool]) -> Iterator[list[int]]:
    """Meanwhile do something to each process of this one's that runs a task, until it says so."""
    struck: list[int] = []
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.005):
            for pid in family(os.getpid()):
                if pid not in struck and command(pid).startswith(TASK):
                    struck.append(pid)
                    if not action(pid):
                        return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield struck
    finally:
        over.set()
        thread.join()


def stop_once(pid: int) -> bool:
    os.kill(pid, signal.SIGSTOP)
    return False


def kill_always(pid: int) -> bool:
    os.kill(pid, signal.SIGKILL)
    return True


def on_ray(source: Path, dest: Path, **more: object):
    return request(source, dest, executor="ray", workers=2, **more)


def sooner(inner):
    """An executor that waits for a shard for less than half an hour.

    Workers that begin on a busy machine may take a minute, which must not count as hanging.
    """
    return replace(inner, engine=replace(inner.engine, deadline=120.0))


@pytest.mark.slow
def test_a_worker_that_hangs_costs_its_shard_a_deadline(tmp_path):
    source, dest = several(tmp_path / "e.parquet", 60), tmp_path / "dest"
    with striking(stop_once) as struck:
        summary = run(on_ray(source, dest), sooner)
    assert len(struck) == 1
    assert summary.used == 120
    assert_sound(dest, 120)


@pytest.mark.slow
def test_a_shard_that_kills_every_worker_ends_the_job_and_is_named(tmp_path):
    source, dest = several(tmp_path / "e.parquet", 2), tmp_path / "dest"
    with striking(kill_always) as struck, pytest.raises(WorkerError, match=r"shard 0 .*3 times"):
        run(on_ray(source, dest))
    assert 3 <= len(struck) <= 6
    run(request(source, dest))
    assert_sound(dest, 4)


@pytest.mark.slow
def test_keys_that_vanish_end_the_job_with_their_own_error(tmp_path):
    source, dest = several(tmp_path / "e.parquet", 800), tmp_path / "dest"
    kept = keys_of(dest).with_suffix(".kept")

    def hide(_pid: int) -> bool:
        keys_of(dest).rename(kept)
        return False

    with striking(hide), pytest.raises(KeyNotFoundError):
        run(on_ray(source, dest))
    before = set(dest.rglob("*.parquet"))
    time.sleep(2)
    assert set(dest.rglob("*.parquet")) == before, "somebody still writes"
    kept.rename(keys_of(dest))
    run(request(source, dest))
    assert_sound(dest, 1600)


@pytest.mark.slow
def test_a_driver_whose_head_is_gone_says_so(where, tmp_path):
    """The last test here: it leaves no cluster."""
    work = stored(tmp_path, 900)(0)
    process = where.start(
        [*work.arguments[:3], *work.arguments[4:], f"--ray-address={where.address}"]
    )
    while not any(where.busy(place) for place in range(2)):
        assert process.poll() is None
        time.sleep(0.05)
    # The driver lives beside the head, and must outlive it.
    spared = set(family(process.pid))
    for pid in set(where.nodes[0].pids()) - spared:
        os.kill(pid, signal.SIGKILL)
    _, said = process.communicate(timeout=75)
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert process.returncode == 1
    assert len(errors) == 1, said
    assert "run the same command to continue" in errors[0]


def test_a_head_that_answers_again_is_not_lost(monkeypatch):
    """Only misses in a row count."""
    import socket

    monkeypatch.setattr(ray_cluster, "_PROBE_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        pulse = ray_cluster.Pulse(f"127.0.0.1:{port}")
        time.sleep(0.06)
        pulse.check()
    for _ in range(ray_cluster._MISSES - 1):
        time.sleep(0.06)
        pulse.check()
    with socket.create_server(("127.0.0.1", port)):
        time.sleep(0.06)
        pulse.check()
    for _ in range(ray_cluster._MISSES - 1):
        time.sleep(0.06)
        pulse.check()
    time.sleep(0.06)
    with pytest.raises(WorkerError, match="no longer answers"):
        pulse.check()
    assert pulse.lost
