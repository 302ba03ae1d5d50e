"""Signals that ask a process to stop: SIGINT and SIGTERM.

The first one raises `Interrupted` wherever the process is, a second one ends it at once. While
shards are committed a signal waits: whoever hands out work asks `wanted`, and stops; what is
finished is committed; then the signal takes its course.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final, NoReturn, TypeVar

T = TypeVar("T")

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
# A shell and a program that started this one may both pass on one and the same wish.
_ECHO_S: Final = 1.0
_SHOW_CURSOR: Final = b"\x1b[?25h"


class Interrupted(KeyboardInterrupt):
    """A signal asks this process to stop."""


class BrokenOff(BaseException):
    """A signal that is held has ended a piece of work; nothing of it counts."""


@dataclass
class _State:
    """asked: the signal that took its course. waiting: one that is held. at: when it came.

    fragile: a held signal may break off what is being done. struck: it did.
    """

    asked: int = 0
    waiting: int = 0
    at: float = 0.0
    fragile: bool = False
    struck: bool = False


_state = _State()


def guarded(command: Callable[[], object]) -> NoReturn:
    """Be a program: run its command, answer signals meanwhile, and end with its exit code."""
    watch()
    code = 0
    try:
        command()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except Interrupted:
        sys.stderr.write("interrupted; the same command starts again\n")
        code = 128 + asked()
    leave(code)


def watch() -> None:
    """Answer signals from now on; one that is ignored stays so, as in the background of a shell."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def asked() -> int:
    """The signal that asked this process to stop; 0 where none has."""
    return _state.asked


def wanted() -> bool:
    """Whether a signal waits until what is finished is committed."""
    return bool(_state.waiting)


@contextmanager
def held() -> Iterator[None]:
    """Let signals wait; afterwards they do what they would have done before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, _wait)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        waiting, _state.waiting = _state.waiting, 0
    if waiting:
        signal.raise_signal(waiting)


def fragile(work: Callable[[], T]) -> T:
    """Do work that a signal breaks off, held or not.

    Raises `BrokenOff` or `Interrupted` after a signal, whatever the work itself made of it.
    """
    _state.fragile, _state.struck = True, False
    try:
        if _state.waiting:
            raise BrokenOff
        result = work()
    except BaseException:
        if _state.struck:
            raise BrokenOff from None
        raise
    finally:
        _state.fragile = False
    # Libraries swallow what a signal raises, and go on with half of their work.
    if _state.struck:
        raise BrokenOff
    if _state.asked:
        raise Interrupted
    return result


def leave(code: int) -> NoReturn:
    """End with an exit code; signals no longer change it."""
    for number in _SIGNALS:
        signal.signal(number, lambda *_: os._exit(code))
    # The farewells of libraries that were broken off are long, and print traces.
    if not _state.asked:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    # The interpreter is not taken down: a thread of a library that still reads ahead would abort.
    _flush()
    os._exit(code)


def _stop(number: int, _frame: FrameType | None) -> None:
    if _state.asked:
        _insist(number)
        return
    _state.asked, _state.at = number, time.monotonic()
    sys.unraisablehook = lambda _: None
    threading.excepthook = lambda _: None
    raise Interrupted


def _wait(number: int, _frame: FrameType | None) -> None:
    if _state.waiting:
        _insist(number)
        return
    _state.waiting, _state.at = number, time.monotonic()
    if _state.fragile:
        _state.struck = True
        raise BrokenOff


def _insist(number: int) -> None:
    """End the process, unless the signal is an echo of the first one."""
    if time.monotonic() - _state.at < _ECHO_S:
        return
    if os.isatty(2):
        os.write(2, _SHOW_CURSOR)
    os._exit(128 + number)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
