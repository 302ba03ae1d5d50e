"""Unwrapped keys that a process keeps for a while, so that a key service is asked seldom."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from infra.keys.kek import ProcessBound
from ironmask.errors import KeyStoreError, WrongKeyError

T = TypeVar("T")

FRESH_S: Final = 300.0
KEPT_S: Final = 600.0
_PAUSE_S: Final = 10.0


@dataclass(slots=True)
class _Opened(Generic[T]):
    """keys: what the service gave. ask: when it is asked again. until: when they are forgotten."""

    keys: T
    ask: float
    until: float


class KeptKeys(ProcessBound, Generic[T]):
    """Keys by what their keyset file says of them, for `KEPT_S` seconds at most.

    The service is asked again after `FRESH_S` seconds. One that does not answer then is asked every
    few seconds, and the keys go on being used until they are too old. What the file no longer says
    is not found here. Threads may share it.
    """

    __slots__ = ("__known", "__lock", "__now")

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.__now = now
        self.__known: dict[bytes, _Opened[T]] = {}
        self.__lock = threading.Lock()

    def __repr__(self) -> str:
        return f"KeptKeys({len(self.__known)})"

    def get(self, said: bytes, unwrap: Callable[[], T]) -> T:
        """The keys of what a file says, unwrapped anew where they are not fresh.

        Raises as `unwrap` does, but not for a service that fails to answer for a while.
        """
        with self.__lock:
            now, found = self.__now(), self.__known.get(said)
            if found is not None and now < found.ask:
                return found.keys
            try:
                keys = unwrap()
            except KeyStoreError as error:
                if found is None or isinstance(error, WrongKeyError) or now >= found.until:
                    self.__known.pop(said, None)
                    raise
                found.ask = min(now + _PAUSE_S, found.until)
                return found.keys
            self.__forget_old(now)
            self.__known[said] = _Opened(keys, now + FRESH_S, now + KEPT_S)
            return keys

    def forget(self) -> None:
        """Keep none of them."""
        with self.__lock:
            self.__known.clear()

    def __forget_old(self, now: float) -> None:
        self.__known = {said: one for said, one in self.__known.items() if now < one.until}
