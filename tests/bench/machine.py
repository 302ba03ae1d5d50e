"""What the machine itself can do, and what processes take: the limits to measure against."""

from __future__ import annotations

import multiprocessing
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import Event, Thread
from typing import Any

from support.nodes import family
from threadpoolctl import threadpool_limits


def together(
    make: Callable[..., Callable[[], int]], processes: int, seconds: float, *args: Any
) -> float:
    """Units a second that so many processes reach together, each in one thread.

    make: called in each process with `args`; gives what does some units and returns how many.
    """
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(processes), context.SimpleQueue()
    children = [
        context.Process(target=_work, args=(make, args, seconds, ready, results))
        for _ in range(processes)
    ]
    for child in children:
        child.start()
    rates = [results.get() for _ in children]
    for child in children:
        child.join()
    return sum(rates)


def _work(
    make: Callable[..., Callable[[], int]],
    args: tuple[Any, ...],
    seconds: float,
    ready: Barrier,
    results: Any,
) -> None:
    with threadpool_limits(1):
        work = make(*args)
        work()
        ready.wait()
        start, done = time.perf_counter(), 0
        while (now := time.perf_counter()) - start < seconds:
            done += work()
        results.put(done / (now - start))


def resident(pid: int) -> int:
    """Bytes of a process that are in memory, shared ones divided among those that share."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return 0


@contextmanager
def peak_memory(process: subprocess.Popen[Any]) -> Iterator[list[int]]:
    """Watch a process and its children; the one number in the list is their peak in bytes."""
    peak, stop = [0], Event()

    def watch() -> None:
        while not stop.wait(0.2):
            peak[0] = max(peak[0], sum(map(resident, family(process.pid))))

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()
