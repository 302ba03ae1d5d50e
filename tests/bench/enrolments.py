"""Enrolments as a user runs them, and their steady rates."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from support.nodes import Cluster

from .machine import peak_memory


@dataclass(frozen=True)
class Enrolment:
    """seen: seconds, inputs and templates done, shard by shard. peak: bytes of all processes."""

    seen: list[tuple[float, int, int]]
    stages: dict[str, float]
    peak: int

    def rate(self, column: int, skip: int) -> float:
        """Inputs (1) or templates (2) a second, from when `skip` shards were done to the end."""
        first, last = self.seen[skip], self.seen[-1]
        return (last[column] - first[column]) / (last[0] - first[0])

    def tenths(self) -> tuple[float, float]:
        """Seconds an input takes in the first and in the last tenth, less where workers start."""
        steady = self.seen[4:]
        part = max(1, len(steady) // 10)
        ends = (steady[: part + 1], steady[-part - 1 :])
        first, last = ((b[0] - a[0]) / (b[1] - a[1]) for a, b in ((e[0], e[-1]) for e in ends))
        return first, last

    def longest_pause(self) -> float:
        return max(b[0] - a[0] for a, b in pairwise(self.seen))


def enrol(
    source: Path, *, watch: bool = False, on: Cluster | None = None, **request: Any
) -> Enrolment:
    """Enrol a source into a new table, which is removed afterwards.

    watch: measure its memory, which costs the kernel some of the cores' time. on: a cluster to do
    it on.
    """
    environment, prefix = {**os.environ, "RAY_DEDUP_LOGS": "0"}, []
    if on:
        environment, prefix = {**environment, **on.environment()}, on.nodes[0].prefix
        request["ray_address"] = on.address
    with tempfile.TemporaryDirectory(dir=source.parent) as name:
        dest, keys = Path(name) / "table", Path(name) / "keys.json"
        asked = {"source": str(source), "dest": str(dest), "keys": str(keys), **request}
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "bench.enrol_once", json.dumps(asked)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        with peak_memory(process) if watch else nullcontext([0]) as peak:
            said, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"the enrolment of {source} ended with {process.returncode}")
        shutil.rmtree(dest)
    told = json.loads(said.splitlines()[-1])
    return Enrolment([tuple(one) for one in told["seen"]], told["stages"], peak[0])
