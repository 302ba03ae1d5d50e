"""Figures on a port of this process, as Prometheus reads them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from ironmask.errors import ParameterError

_LOOPBACK: Final = "127.0.0.1"
_PLACE: Final = re.compile(r"(?:(?P<host>[^:\s]+|\[[\da-fA-F:.]+\]):)?(?P<port>\d{1,5})")
_STATM: Final = Path("/proc/self/statm")
_PAGE: Final = 4096

Kind = Literal["counter", "gauge"]


@dataclass(frozen=True)
class Metric:
    """A metric as of one moment. name: without the `_total` that counters end with.

    values: by the values of its labels, in the order of `labels`.
    """

    name: str
    help: str
    kind: Kind
    values: Mapping[tuple[str, ...], float]
    labels: tuple[str, ...] = ()


def place_of(given: str | int) -> tuple[str, int]:
    """Host and port of what a user gave: a port on the loopback interface, or HOST:PORT.

    Raises `ParameterError` for what is neither.
    """
    found = _PLACE.fullmatch(str(given).strip())
    port = int(found["port"]) if found else 0
    if not found or not 0 < port < 1 << 16:
        raise ParameterError(
            "metrics port: give a port from 1 to 65535, which only this machine can reach, or "
            "ADDRESS:PORT, as in 0.0.0.0:9464"
        )
    return (found["host"] or _LOOPBACK).strip("[]"), port


@contextmanager
def served(given: str | int | None, metrics: Callable[[], Iterable[Metric]]) -> Iterator[None]:
    """Serve metrics under `/metrics` of a port meanwhile; None: nowhere.

    metrics: asked at each scrape, in a thread of its own. Raises `ParameterError` where the port
    cannot be listened on.
    """
    if given is None:
        yield
        return
    # Most commands serve nothing.
    from prometheus_client import CollectorRegistry, start_http_server

    host, port = place_of(given)
    registry = CollectorRegistry()
    registry.register(_Asked(metrics))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ParameterError(
            f"metrics port {given}: it cannot be listened on ({error.strerror or error}); choose "
            "another one, or leave it out"
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Asked:
    """A collector of the client library's that asks for the metrics anew each time."""

    def __init__(self, metrics: Callable[[], Iterable[Metric]]) -> None:
        self._metrics = metrics

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        families = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
        for metric in self._metrics():
            family = families[metric.kind](metric.name, metric.help, labels=metric.labels)
            for labels, value in metric.values.items():
                family.add_metric(labels, value)
            yield family


def process() -> list[Metric]:
    """What this process takes: memory and CPU time."""
    return [
        Metric(
            "ironmask_driver_resident_memory_bytes",
            "Memory of the process that plans and commits.",
            "gauge",
            {(): float(_resident())},
        ),
        Metric(
            "ironmask_driver_cpu_seconds",
            "CPU time of the process that plans and commits.",
            "counter",
            {(): time.process_time()},
        ),
    ]


def _resident() -> int:
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0
