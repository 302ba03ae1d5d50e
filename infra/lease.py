"""One writer a destination: a lock file for local folders, a renewed lease object on S3."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from infra.storage import is_s3, join
from ironmask.errors import BusyError, StorageError
from pipelines.layout import PRIVATE
from pipelines.ports import Store

_RENEW_S: Final = 20.0
_STALE_S: Final = 120.0
_SETTLE_S: Final = 2.0


@contextmanager
def lease(dest: str, store: Store) -> Iterator[None]:
    """Hold a destination against other runs. Raises `BusyError` where another run holds it."""
    with _object_lease(dest, store) if is_s3(dest) else _file_lock(dest):
        yield


@contextmanager
def _file_lock(dest: str) -> Iterator[None]:
    folder = os.path.join(dest, PRIVATE)
    try:
        os.makedirs(folder, exist_ok=True)
        descriptor = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StorageError(f"{dest} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise BusyError(f"{dest} is in use by another run on this machine: wait for it") from None
    try:
        # The kernel frees the lock with the process, however it ends.
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _object_lease(dest: str, store: Store) -> Iterator[None]:
    uri = join(dest, PRIVATE, "lease.json")
    token = secrets.token_hex(8)
    if not store.create(uri, _content(token)):
        _take_over(uri, token, dest, store)
    stop = threading.Event()
    renewal = threading.Thread(target=_renew, args=(uri, token, store, stop), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        stop.set()
        renewal.join()
        store.delete([uri])


def _content(token: str) -> bytes:
    holder = f"{socket.gethostname()} process {os.getpid()}"
    return json.dumps({"token": token, "holder": holder, "at": time.time()}).encode()


def _take_over(uri: str, token: str, dest: str, store: Store) -> None:
    """Replace a lease that nobody renews; of several that try at once, the last writer wins."""
    held = json.loads(store.read(uri))
    if time.time() - held["at"] < _STALE_S:
        raise BusyError(f"{dest} is in use by a run on {held['holder']}: wait for it to end")
    store.write(uri, _content(token))
    time.sleep(_SETTLE_S)
    if json.loads(store.read(uri))["token"] != token:
        raise BusyError(f"{dest} was taken by another run just now")


def _renew(uri: str, token: str, store: Store, stop: threading.Event) -> None:
    while not stop.wait(_RENEW_S):
        store.write(uri, _content(token))
