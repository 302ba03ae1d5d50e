"""A server that runs the command line in processes which it kills: `python -m faults.kill_driver`.

It imports the product once and forks for every run, so that a kill costs no imports. Each order is
one JSON object on a line of standard input, each answer one on a line of standard output. The
forked process leads a process group of its own and runs the real command line. It ends by itself,
by SIGKILL to its group after some seconds, or by a SIGKILL that it sends itself at a point:
directly before or after the nth time of a step.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from infra.keys.key_file import KeyFile
from infra.store.delta import DeltaTableHandle
from infra.store.local_files import LocalFiles
from infra.store.objects import FsspecStore
from pipelines import cli
from pipelines.run import commit, steps
from pipelines.table.layout import PRIVATE
from pipelines.table.schemas import TABLES

BEFORE, AFTER = "before", "after"
Name = Callable[..., str | None]


@dataclass(frozen=True)
class Point:
    """Where a process kills itself: before or after the nth time of a step. nth counts from 1."""

    step: str
    side: str
    nth: int


@dataclass(frozen=True)
class Order:
    """One run of the command line.

    log: where its output goes. kill_after: seconds. trace: a file that every step's name is
    written to. wave: shards in a wave, if not as usual.
    """

    arguments: list[str]
    log: str
    kill_after: float | None = None
    point: Point | None = None
    trace: str | None = None
    wave: int | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Order:
        fields = json.loads(text)
        point = fields.pop("point")
        return Order(**fields, point=Point(**point) if point else None)


class Watch:
    """Counts the steps of this process, writes them down, and ends it at a point."""

    def __init__(self, point: Point | None, trace: str | None) -> None:
        self._point = point
        self._trace = open(trace, "w") if trace else None  # noqa: SIM115
        self._seen: Counter[str] = Counter()

    def around(self, owner: Any, attribute: str, name_of: Name) -> None:
        """Put this watch around a function of the product, which stays what it is."""
        inner = getattr(owner, attribute)

        def watched(*arguments: Any, **named: Any) -> Any:
            name = name_of(*arguments, **named)
            if name is None:
                return inner(*arguments, **named)
            nth = self._count(name)
            self._end_at(Point(name, BEFORE, nth))
            result = inner(*arguments, **named)
            self._end_at(Point(name, AFTER, nth))
            return result

        setattr(owner, attribute, watched)

    def _count(self, name: str) -> int:
        self._seen[name] += 1
        if self._trace:
            self._trace.write(f"{name}\n")
            self._trace.flush()
        return self._seen[name]

    def _end_at(self, here: Point) -> None:
        if here == self._point:
            os.kill(os.getpid(), signal.SIGKILL)


def watch_steps(watch: Watch) -> None:
    """Watch every step after which another process may find something else than before it."""
    watch.around(DeltaTableHandle, "create", _of_table("create table"))
    watch.around(DeltaTableHandle, "commit", _of_table("commit"))
    watch.around(KeyFile, "add_generation", lambda *_, **__: "add keys")
    watch.around(KeyFile, "succeed", lambda *_, **__: "add keys")
    watch.around(KeyFile, "destroy_generation", lambda *_, **__: "destroy keys")
    watch.around(KeyFile, "rotate_kek", lambda *_, **__: "rotate KEK")
    watch.around(FsspecStore, "write", lambda _, uri, __: f"write {_what(uri)}")
    watch.around(LocalFiles, "delete", lambda _, uri: f"destroy {_what(uri)}")
    watch.around(os, "replace", lambda _, path: f"rename {_what(os.fspath(path))}")
    watch.around(commit.Committer, "_roll_forward", lambda *_: "roll forward")


def _of_table(verb: str) -> Name:
    def name(
        table: DeltaTableHandle, files: Any = True, *_: Any, removed: Any = (), **__: Any
    ) -> str | None:
        # A wave without templates commits none.
        return f"{verb} {Path(table.uri).name}" if files or removed else None

    return name


def _what(uri: str) -> str:
    """What a file is for the product."""
    path = Path(uri)
    kind = "part of" if path.name.startswith(".part-") else "file of"
    if PRIVATE in path.parts:
        is_part = "plans" in path.parts and path.suffix != ".json"
        return f"{kind} plan" if is_part else path.stem
    table = next((name for name in path.parts[-3:-1] if name in TABLES), None)
    return f"{kind} {table}" if table else "keys"


def run(order: Order) -> NoReturn:
    """Be the command line, in this process."""
    out = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    if order.wave:
        steps.WAVE_SHARDS = order.wave  # type: ignore[misc]
    if order.point or order.trace:
        watch_steps(Watch(order.point, order.trace))
    sys.argv = ["ironmask", *order.arguments]
    cli.main()


def started(order: Order) -> int:
    """Fork a process for an order; it leads its own group before anybody may kill that."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        run(order)
    with contextlib.suppress(ProcessLookupError):
        os.setpgid(child, child)
    return child


def ended(child: int, kill_after: float | None) -> int:
    """Wait for a process, or kill its group in time. Returns its exit code, -9 if it was killed."""
    descriptor = os.pidfd_open(child)
    ready, _, _ = select.select([descriptor], [], [], kill_after)
    os.close(descriptor)
    if not ready:
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def serve() -> None:
    """Answer orders until standard input ends."""
    for line in iter(sys.stdin.readline, ""):
        order = Order.from_json(line)
        begun = time.monotonic()
        code = ended(started(order), order.kill_after)
        sys.stdout.write(json.dumps({"code": code, "seconds": time.monotonic() - begun}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
