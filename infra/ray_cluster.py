"""Connect to a running Ray cluster, or start one here."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ironmask.errors import WorkerError

# One thread in each process: several processes use the cores.
_THREADS: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_NUM_THREADS"), "1"
)
# With the defaults, a silent network partition stays unnoticed for minutes.
_KEEPALIVE: Final = {
    "RAY_grpc_client_keepalive_time_ms": "10000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
}
_PROBE_S: Final = 5.0
_CLIENT: Final = "ray://"
_CLIENT_PORT: Final = 10001
_TRIES: Final = 3
_PAUSE_S: Final = 2.0
# Ray ends the whole process without our message once the head was silent for a minute.
_MISSES: Final = 7
_QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Who asks for a result gets its error; Ray would also print it.
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    # Ray would print a native trace on SIGTERM.
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
}


def prepare_environment() -> None:
    """Set what Ray reads from the environment; must run before Ray is first imported."""
    for name, value in {**_KEEPALIVE, **_QUIET}.items():
        os.environ.setdefault(name, value)


@contextmanager
def cluster(address: str | None, workers: int) -> Iterator[Callable[[], None]]:
    """Connect to the cluster at an address, or run a local one with `workers` CPUs.

    Yields a function to call every few seconds. It raises `WorkerError` once the cluster's head has
    not answered for a while.
    """
    prepare_environment()
    if address is None:
        # Every local user can reach the loopback interface, but not know the token.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    else:
        _probe(address)
        _refuse_from_outside(address)
    import ray

    # Ray prints lost workers on standard output, which `--json` needs; no option stops it.
    ray._private.worker._worker_logs_enabled = False
    # We handle signals ourselves: Ray would end this process at once.
    ray._private.utils.set_sigterm_handler = lambda _handler: None
    pulse = None
    try:
        _connect(address, workers)
        pulse = Pulse(_heart(address))
        yield pulse.check
    finally:
        # Ray would end this process before it has said goodbye to a head that is gone.
        if pulse is None or not pulse.lost:
            ray.shutdown()


def _connect(address: str | None, workers: int) -> None:
    """Raises `WorkerError` where there is no cluster.

    The server that a cluster starts for a client may die at once, so that is tried again.
    """
    import ray

    tries = _TRIES if address and address.startswith(_CLIENT) else 1
    for attempt in range(tries):
        try:
            _init(address, workers)
            return
        except Exception as error:  # noqa: BLE001 - that a node starts too slowly is a bare one
            if attempt + 1 == tries:
                where = address or "this machine"
                raise WorkerError(f"no Ray cluster on {where}: {_brief(error)}") from None
            ray.shutdown()
            time.sleep(_PAUSE_S)


def _brief(error: Exception) -> str:
    """An error in one line: its first line, and the last one of a trace that it quotes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(dict.fromkeys([*lines[:1], *lines[-1:]])) or type(error).__name__


def _init(address: str | None, workers: int) -> None:
    import ray

    ray.init(
        address=address or "local",
        num_cpus=None if address else workers,
        include_dashboard=False if address is None else None,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=True,
        runtime_env={"env_vars": _THREADS},
    )


def _heart(address: str | None) -> str:
    """What answers while the connected cluster lives, host:port."""
    import ray

    if address and address.startswith(_CLIENT):
        # Whoever is outside of the cluster may reach nothing else of it.
        place = address.removeprefix(_CLIENT)
        return place if ":" in place.rpartition("]")[2] else f"{place}:{_CLIENT_PORT}"
    return str(ray.get_runtime_context().gcs_address)


class Pulse:
    """Watches whether a cluster's head still answers. address: host:port of it."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address = host.strip("[]"), int(port)
        self._asked = time.monotonic()
        self._misses = 0

    @property
    def lost(self) -> bool:
        return self._misses >= _MISSES

    def check(self) -> None:
        """Ask, unless it asked a moment ago. Raises `WorkerError` after several failed attempts."""
        if time.monotonic() - self._asked < _PROBE_S:
            return
        try:
            socket.create_connection(self._address, _PROBE_S).close()
            self._misses = 0
        except OSError:
            self._misses += 1
        self._asked = time.monotonic()
        if self.lost:
            host, port = self._address
            raise WorkerError(
                f"the Ray cluster at {host}:{port} no longer answers; what was committed is safe: "
                "run the same command to continue"
            )


def _probe(address: str) -> None:
    """Raise `WorkerError` for a dead address: Ray would try it for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PROBE_S).close()
    except (OSError, UnicodeError) as error:
        raise WorkerError(
            f"no Ray cluster answers at {address} ({type(error).__name__}): check the "
            "address, or leave --ray-address out to work on this machine"
        ) from None


def _refuse_from_outside(address: str) -> None:
    """Raise `WorkerError` where only a process beside a node could connect: Ray would abort."""
    host, _, port = address.rpartition(":")
    if "://" in address or not port.isdigit() or _has_raylet():
        return
    raise WorkerError(
        f"no node of a Ray cluster runs on this machine, so {address} cannot be used from here: "
        f"give --ray-address ray://{host}:{_CLIENT_PORT}, or the port of the cluster's Ray client "
        "server, or run the command on a node"
    )


def _has_raylet() -> bool:
    """Whether a process here is a node of some cluster; also where this cannot be seen."""
    commands = list(Path("/proc").glob("[0-9]*/cmdline"))
    return not commands or any(map(_is_raylet, commands))


def _is_raylet(command: Path) -> bool:
    try:
        return command.read_bytes().split(b"\0")[0].endswith(b"/raylet")
    except OSError:
        return False


def resource(name: str) -> float:
    """How much of a resource the connected cluster has now, in use or not."""
    import ray

    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found.get(name, 0.0)
