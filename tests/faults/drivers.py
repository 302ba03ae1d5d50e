"""Runs of the command line in processes of their own, which may be killed, and jobs for them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from faults.kill_driver import Order, Point
from support.command import with_tests
from support.enrolling import ALPHA, TOLERANCE, several
from support.table import keys_of

KILLED = -9
EACH = 2
SHARD_SIZE = 4


@dataclass(frozen=True)
class Ended:
    """How a run of the command line ended, after how many seconds, and what it said."""

    code: int
    seconds: float
    said: str


@dataclass
class Driver:
    """Runs the command line in processes that may be killed; see `faults.kill_driver`."""

    folder: Path
    server: subprocess.Popen[str]
    environment: dict[str, str] = field(repr=False)
    runs: int = 0

    def run(
        self,
        arguments: Sequence[str],
        *,
        kill_after: float | None = None,
        point: Point | None = None,
        trace: Path | None = None,
        wave: int | None = None,
    ) -> Ended:
        log = self._next_log()
        traced = str(trace) if trace else None
        order = Order(list(arguments), str(log), kill_after, point, traced, wave)
        stdin, stdout = self._pipes()
        stdin.write(order.to_json() + "\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise RuntimeError(f"the server of runs has ended: {self.server.wait()}")
        return Ended(**json.loads(answer), said=log.read_text(errors="replace"))

    def run_installed(self, arguments: Sequence[str], kill_after: float | None = None) -> Ended:
        """The same with the installed command, whose start includes its imports."""
        log, begun = self._next_log(), time.monotonic()
        command = [str(Path(sys.executable).with_name("ironmask")), *arguments]
        with log.open("w") as out:
            process = subprocess.Popen(
                command,
                stdout=out,
                stderr=out,
                cwd=self.folder,
                env=self.environment,
                start_new_session=True,
            )
            try:
                process.wait(kill_after)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
        code, seconds = process.wait(), time.monotonic() - begun
        return Ended(code, seconds, log.read_text(errors="replace"))

    def _next_log(self) -> Path:
        self.runs += 1
        log = self.folder / f"run-{self.runs:04d}.log"
        # A run that is killed at once has said nothing.
        log.touch()
        return log

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self.server.stdin
        assert self.server.stdout
        return self.server.stdin, self.server.stdout


@contextmanager
def driver(folder: Path, **more: str) -> Iterator[Driver]:
    """A server of runs that works in a folder of its own. more: variables of its environment."""
    folder.mkdir(parents=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("IRONMASK_", "PREFECT_"))}
    environment = {**with_tests(kept), **more}
    server = subprocess.Popen(
        [sys.executable, "-m", "faults.kill_driver"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=folder,
        env=environment,
        text=True,
    )
    try:
        with server:
            yield Driver(folder, server, environment)
    finally:
        server.kill()


@dataclass(frozen=True)
class Job:
    """One enrolment: a file of embeddings, its inputs, and the destination."""

    source: Path
    subjects: int
    dest: Path
    shard_size: int = SHARD_SIZE

    @property
    def arguments(self) -> list[str]:
        return [
            "enroll",
            str(self.source),
            str(self.dest),
            "--executor=local",
            f"--alpha={ALPHA}",
            f"--tolerance={TOLERANCE}",
            f"--shard-size={self.shard_size}",
            f"--keys={keys_of(self.dest)}",
        ]

    @property
    def planned(self) -> set[str]:
        return {f"{self.source}#row={row}" for row in range(self.subjects * EACH)}

    def into(self, dest: Path) -> Job:
        return Job(self.source, self.subjects, dest, self.shard_size)

    def copy(self, dest: Path) -> Job:
        """The same job in a copy of its destination and keys."""
        shutil.copytree(self.dest, dest)
        if keys_of(self.dest).exists():
            shutil.copy2(keys_of(self.dest), keys_of(dest))
        return self.into(dest)


def job(source: Path, subjects: int, dest: Path, shard_size: int = SHARD_SIZE) -> Job:
    """A job over as many subjects, two embeddings each."""
    return Job(several(source, subjects, EACH), subjects, dest, shard_size)
