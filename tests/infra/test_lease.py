"""One writer a destination, also when the last one died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.settings import StorageSettings
from infra.store import lease as leases
from infra.store.lease import lease
from infra.store.objects import FsspecStore
from ironmask.errors import BusyError, StorageError

HOLD = (
    "import sys\n"
    "from infra.store.lease import lease\n"
    "from infra.store.objects import FsspecStore\n"
    "with lease(sys.argv[1], FsspecStore()):\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.read()\n"
)


@pytest.fixture
def holder():
    """Starts a process that holds a destination's lease."""
    started = []

    def start(dest: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, dest],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def s3_dest(s3, bucket, monkeypatch) -> str:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    return f"{bucket}/dest"


def test_a_second_run_is_refused_on_this_machine(tmp_path, holder):
    dest = str(tmp_path / "dest")
    process = holder(dest)
    with pytest.raises(BusyError, match="in use by another run"), lease(dest, FsspecStore()):
        pass
    process.stdin.close()
    process.wait()
    with lease(dest, FsspecStore()):
        pass


def test_a_killed_run_holds_nothing(tmp_path, holder):
    dest = str(tmp_path / "dest")
    process = holder(dest)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with lease(dest, FsspecStore()):
        pass


def test_a_destination_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StorageError, match="cannot be written"),
        lease(str(tmp_path / "file" / "dest"), FsspecStore()),
    ):
        pass


@pytest.mark.slow
def test_a_second_run_is_refused_on_s3(s3_dest, holder):
    process = holder(s3_dest)
    store = FsspecStore(StorageSettings())
    with pytest.raises(BusyError, match=f"process {process.pid}: wait"), lease(s3_dest, store):
        pass
    process.stdin.close()
    process.wait()
    with lease(s3_dest, store):
        held = json.loads(store.read(f"{s3_dest}/_ironmask/lease.json"))
        assert held["holder"].endswith(f"process {os.getpid()}")
    assert not store.exists(f"{s3_dest}/_ironmask/lease.json")


def test_the_lease_of_a_process_that_is_dead_here_is_taken_over(s3_dest, holder, monkeypatch):
    process = holder(s3_dest)
    store = FsspecStore(StorageSettings())
    assert leases.holder(s3_dest, store).endswith(f"process {process.pid}")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert leases.holder(s3_dest, store) is None
    monkeypatch.setattr(leases, "_SETTLE_S", 0.05)
    with lease(s3_dest, store):
        assert leases.holder(s3_dest, store).endswith(f"process {os.getpid()}")


def test_a_lease_from_elsewhere_is_taken_over_once_nobody_renews_it(s3_dest, holder, monkeypatch):
    """Elsewhere the same process id may be alive."""
    process = holder(s3_dest)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    monkeypatch.setattr(leases, "_SETTLE_S", 0.05)
    monkeypatch.setattr(leases, "_place", lambda: "another machine")
    store = FsspecStore(StorageSettings())
    with pytest.raises(BusyError), lease(s3_dest, store):
        pass
    monkeypatch.setattr(leases, "_STALE_S", 0.0)
    with lease(s3_dest, store):
        pass


def test_who_comes_back_too_late_is_told(s3_dest, holder, monkeypatch):
    """A run that was paused, and replaced meanwhile, must neither commit nor free the other's."""
    store = FsspecStore(StorageSettings())
    uri = f"{s3_dest}/_ironmask/lease.json"
    with lease(s3_dest, store) as check:
        check()
        other = json.dumps({"token": "other", "holder": "b", "at": time.time()}).encode()
        store.write(uri, other)
        check()
        monkeypatch.setattr(leases, "_RENEW_S", -1.0)
        with pytest.raises(BusyError, match="taken over by another run"):
            check()
    assert store.read(uri) == other


def test_a_renewal_that_fails_is_tried_again(s3_dest, monkeypatch):
    monkeypatch.setattr(leases, "_RENEW_S", 0.05)
    store = FsspecStore(StorageSettings())
    uri = f"{s3_dest}/_ironmask/lease.json"
    with lease(s3_dest, store) as check:
        with monkeypatch.context() as broken:
            broken.setattr(FsspecStore, "write", _fails)
            time.sleep(0.3)
        first = json.loads(store.read(uri))["at"]
        _wait_for_renewal(store, uri, first)
        check()


def _fails(*_arguments: object) -> None:
    raise StorageError("out of order")


def _wait_for_renewal(store: FsspecStore, uri: str, first: float) -> None:
    for _ in range(400):
        if json.loads(store.read(uri))["at"] > first:
            return
    pytest.fail("the lease was not renewed")


def test_a_lease_is_renewed_while_it_is_held(s3_dest, monkeypatch):
    monkeypatch.setattr(leases, "_RENEW_S", 0.05)
    store = FsspecStore(StorageSettings())
    uri = f"{s3_dest}/_ironmask/lease.json"
    with lease(s3_dest, store):
        first = json.loads(store.read(uri))["at"]
        _wait_for_renewal(store, uri, first)
