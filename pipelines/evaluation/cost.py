"""The cost of protection, measured on this machine, on one core."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from threadpoolctl import threadpool_limits

from ironmask.arrays import F64
from ironmask.comparisons import Setting
from ironmask.digest import ROW_KEY_BYTES
from ironmask.params import Params
from ironmask.random import secure_generator
from ironmask.template import Protector, row_bytes, verify
from pipelines.evaluation.frozen import Evaluation
from pipelines.ports import Tables
from pipelines.table import run_records
from pipelines.table.run_records import RunState

_ROUNDS: Final = 100
_BUDGET_S: Final = 2.0
_LEAST_ROUNDS: Final = 10


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds on one core, over some rounds."""

    p50: float
    p99: float
    rounds: int

    @property
    def per_second(self) -> float:
        """Number of operations at the median."""
        return 1000 / self.p50


@dataclass(frozen=True, slots=True)
class Cost:
    """One setting and tolerance. protect: of a template's row; verify: of a probe against a row."""

    setting: str
    params: Params
    row_bytes: int
    protect: Times
    verify: Times

    @property
    def core_hours_a_million(self) -> float:
        """Core hours to protect a million templates."""
        return self.protect.p50 / 3.6

    @property
    def gib_a_million(self) -> float:
        """GiB of helpers and digests."""
        return self.row_bytes * 1e6 / 2**30


@dataclass(frozen=True)
class Spent:
    """machine: where it was measured. images_per_second: inputs of a table's newest enrolment that
    ran without a break, if any.
    """

    machine: str
    costs: list[Cost]
    images_per_second: float | None


def measure(evaluation: Evaluation, tables: Tables | None, machine: str) -> Spent:
    """Measure each setting at its largest tolerance. Smaller ones take no longer."""
    with threadpool_limits(1):
        costs = [_cost(setting) for setting in evaluation.settings]
    return Spent(machine, costs, _rate(tables) if tables else None)


def _rate(tables: Tables) -> float | None:
    rates = [
        record.counts["inputs"] / record.timings["seconds"]
        for record in run_records.runs(tables)
        if record.state == RunState.COMPLETE and not record.counts.get("resumed_shards")
    ]
    return rates[-1] if rates else None


def _cost(setting: Setting) -> Cost:
    params, key = setting.params, secrets.token_bytes(ROW_KEY_BYTES)
    faces = _faces(params.n)
    with Protector(params, setting.encoding) as protector:
        protect = _measured(lambda: protector.protect(next(faces), key))
        protected = protector.protect(next(faces), key)
    return Cost(
        setting=setting.name,
        params=params,
        row_bytes=row_bytes(params, setting.encoding),
        protect=protect,
        verify=_measured(lambda: verify(protected, next(faces), key)),
    )


def verification(setting: Setting) -> Times:
    """The time of one verification, over few rounds."""
    params, key = setting.params, secrets.token_bytes(ROW_KEY_BYTES)
    faces = _faces(params.n)
    with Protector(params, setting.encoding) as protector:
        protected = protector.protect(next(faces), key)
    return _measured(lambda: verify(protected, next(faces), key), _LEAST_ROUNDS)


def _faces(n: int) -> Iterator[F64]:
    """Random vectors without end. The cost does not depend on the face."""
    rng = secure_generator()
    while True:
        yield rng.standard_normal(n)


def _measured(act: Callable[[], object], rounds: int = _ROUNDS) -> Times:
    act()  # warm-up: some objects are made once and kept
    seconds: list[float] = []
    while len(seconds) < rounds and (sum(seconds) < _BUDGET_S or len(seconds) < _LEAST_ROUNDS):
        start = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - start)
    p50, p99 = 1000 * np.percentile(seconds, [50, 99])
    return Times(float(p50), float(p99), len(seconds))
