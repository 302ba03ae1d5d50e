"""One writer for each destination: a lock file in local folders, a renewed lease object on S3.

A lease can be lost. If a process is paused for longer than a lease lives, another run takes its
place. So the holder calls `check` before each step that cannot be undone.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from infra.store.addresses import is_s3
from infra.store.local_files import why_unwritable
from ironmask.errors import BusyError, StorageError
from pipelines.ports import Store
from pipelines.table.layout import PRIVATE, join

_RENEW_S: Final = 20.0
_STALE_S: Final = 120.0
_SETTLE_S: Final = 2.0
_LOCK: Final = "lock"
_OBJECT: Final = "lease.json"

Check = Callable[[], None]


@contextmanager
def lease(dest: str, store: Store) -> Iterator[Check]:
    """Hold a destination against other runs. Yields a check that raises `BusyError` once lost.

    Raises `BusyError` where another run holds it.
    """
    with _object_lease(dest, store) if is_s3(dest) else _file_lock(dest) as check:
        yield check


def refuse_held(dest: str, store: Store) -> None:
    """Raise `BusyError` where somebody holds a destination. Writes nothing."""
    if found := holder(dest, store):
        raise BusyError(f"{dest} is in use by another run ({found}): wait for it to end")


def refuse_unwritable(dest: str) -> None:
    """Raise `StorageError` for a local folder that cannot be made or written."""
    if not is_s3(dest) and (why := why_unwritable(dest)):
        raise StorageError(f"{dest} cannot be written: {why}")


def holder(dest: str, store: Store) -> str | None:
    """The current holder of a destination; None if there is none."""
    if is_s3(dest):
        try:
            held = json.loads(store.read(join(dest, PRIVATE, _OBJECT)))
        except FileNotFoundError:
            return None
        return None if _is_over(held) else str(held["holder"])
    try:
        descriptor = os.open(os.path.join(dest, PRIVATE, _LOCK), os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return "a process on this machine"
    finally:
        os.close(descriptor)
    return None


@contextmanager
def _file_lock(dest: str) -> Iterator[Check]:
    folder = os.path.join(dest, PRIVATE)
    try:
        os.makedirs(folder, exist_ok=True)
        descriptor = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StorageError(f"{dest} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise BusyError(f"{dest} is in use by another run on this machine: wait for it") from None
    try:
        # The kernel keeps the lock until the process ends, however it ends.
        yield lambda: None
    finally:
        os.close(descriptor)


@contextmanager
def _object_lease(dest: str, store: Store) -> Iterator[Check]:
    held = _ObjectLease(dest, store)
    held.take()
    renewal = threading.Thread(target=held.keep, daemon=True)
    renewal.start()
    try:
        yield held.check
    finally:
        held.stop.set()
        renewal.join()
        held.give_back()


class _ObjectLease:
    """The lease object of one destination, with our token in it."""

    def __init__(self, dest: str, store: Store) -> None:
        self._dest = dest
        self._uri = join(dest, PRIVATE, _OBJECT)
        self._store = store
        self._token = secrets.token_hex(8)
        self._seen = time.monotonic()
        self.stop = threading.Event()

    def take(self) -> None:
        if not self._store.create(self._uri, self._content()):
            self._take_over()
        self._seen = time.monotonic()

    def check(self) -> None:
        """Ask the store if the last renewal is too long ago to rely on."""
        if time.monotonic() - self._seen > 2 * _RENEW_S:
            self._renew()

    def keep(self) -> None:
        """Renew until told to stop. If the store fails once, it may answer the next time."""
        while not self.stop.wait(_RENEW_S):
            try:
                self._renew()
            except BusyError:
                return
            except StorageError:
                continue

    def give_back(self) -> None:
        """Remove the lease if it is still ours. If that fails, it expires by itself."""
        try:
            if self._is_ours():
                self._store.delete([self._uri])
        except StorageError:
            return

    def _renew(self) -> None:
        asked = time.monotonic()
        if not self._is_ours():
            self._seen = float("-inf")
            raise BusyError(f"{self._dest} was taken over by another run: this one has stopped")
        self._store.write(self._uri, self._content())
        self._seen = asked

    def _is_ours(self) -> bool:
        try:
            return bool(json.loads(self._store.read(self._uri))["token"] == self._token)
        except FileNotFoundError:
            return False

    def _content(self) -> bytes:
        return json.dumps(
            {
                "token": self._token,
                "holder": f"{socket.gethostname()} process {os.getpid()}",
                "place": _place(),
                "pid": os.getpid(),
                "at": time.time(),
            }
        ).encode()

    def _take_over(self) -> None:
        """Replace a lease that nobody renews. If several try at once, the last writer wins."""
        held = json.loads(self._store.read(self._uri))
        if not _is_over(held):
            raise BusyError(
                f"{self._dest} is in use by a run on {held['holder']}: wait for it to end"
            )
        self._store.write(self._uri, self._content())
        time.sleep(_SETTLE_S)
        if not self._is_ours():
            raise BusyError(f"{self._dest} was taken by another run just now")


def _is_over(held: dict[str, Any]) -> bool:
    """Whether nobody renews a lease any more: it is too old, or its process is dead."""
    if time.time() - held["at"] >= _STALE_S:
        return True
    if held.get("place") != _place():
        return False
    try:
        os.kill(int(held["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _place() -> str:
    """The scope of a process id: this boot of this machine, and this namespace."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return secrets.token_hex(8)
