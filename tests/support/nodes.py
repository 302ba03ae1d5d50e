"""A Ray cluster of several raylets on this machine, any of which can be killed.

As root each node has a network namespace of its own, with an address on a common bridge; elsewhere
an address of its own on the loopback device.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from infra import ray_cluster
from support.command import Answer

_PORT = 6379
_READY_S = 300.0
_STARTS = 5
_STORE_BYTES = 200 << 20
# Ray's own agents have titles as well.
_TASKS = ("ray::whole_shard", "ray::hosted_shard")
_EMBEDDER = "ray::ModelHost"
PROGRAM = str(Path(sys.executable).with_name("ironmask"))
_HIDE = 'mount -t tmpfs tmpfs "$0" && exec "$@"'


class NoClusterError(RuntimeError):
    """A head runs on this machine, and no further node beside it."""


def can_isolate() -> bool:
    """Whether network namespaces can be made here."""
    return os.geteuid() == 0 and shutil.which("ip") is not None and _ip("netns", "list") == 0


def _ip(*arguments: str) -> int:
    return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode


@dataclass
class Node:
    """One raylet and all that it started. address: its IP address.

    cpus, resources: what it offers. environment: what its processes find beside that of all others.
    """

    name: str
    address: str
    prefix: list[str]
    cpus: int = 1
    resources: dict[str, float] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def pids(self) -> list[int]:
        """Every process of the node."""
        if self.prefix:
            listed = subprocess.run(
                ["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False
            )
            return [int(word) for word in listed.stdout.split()]
        return family(self.process.pid) if self.process else []

    def kill(self) -> None:
        """SIGKILL to every process of the node."""
        while pids := self.pids():
            for pid in pids:
                _kill(pid)
            time.sleep(0.05)
        if self.process is not None:
            self.process.wait()
            self.process = None


def family(pid: int) -> list[int]:
    """A process and all that it and its children have started, as far as they live."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # The name in brackets may hold anything, spaces too.
            after = (folder / "stat").read_text(errors="replace").rpartition(")")[2]
            children.setdefault(int(after.split()[1]), []).append(int(folder.name))
    found = [pid] if Path(f"/proc/{pid}").exists() else []
    for parent in found:
        found += children.get(parent, [])
    return found


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@dataclass
class Cluster:
    """Nodes, the first of which is the head; drivers run beside it.

    short: a folder whose name leaves room for those of Ray's sockets.
    """

    folder: Path
    short: Path
    nodes: list[Node]
    isolated: bool
    token: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)

    @property
    def address(self) -> str:
        return f"{self.nodes[0].address}:{_PORT}"

    def environment(self) -> dict[str, str]:
        """What every process of the cluster and its drivers finds."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("IRONMASK_", "RAY_"))}
        keepalive = {**ray_cluster._KEEPALIVE, **ray_cluster._QUIET}
        return {
            **kept,
            **keepalive,
            "RAY_worker_niceness": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "XDG_CONFIG_HOME": str(self.folder / "config"),
        }

    def start_node(self, place: int) -> None:
        """Start a node, or start it again after it was killed.

        Ray itself gives a node up after half a minute, which a busy machine may not do in.
        """
        for attempt in range(_STARTS):
            try:
                self._start_node(place)
                return
            except RuntimeError:
                self.nodes[place].kill()
                if attempt == _STARTS - 1:
                    raise

    def _start_node(self, place: int) -> None:
        node = self.nodes[place]
        ray = str(Path(sys.executable).with_name("ray"))
        command = [*node.prefix, ray, "start", "--block", f"--node-ip-address={node.address}"]
        command += [f"--num-cpus={node.cpus}", f"--object-store-memory={_STORE_BYTES}"]
        command += [f"--resources={json.dumps(node.resources)}"]
        command += ["--disable-usage-stats", f"--temp-dir={self.short / str(place)}"]
        if place == 0:
            command += ["--head", f"--port={_PORT}", "--include-dashboard=false"]
        else:
            command += [f"--address={self.address}"]
        with self._log(node).open("wb") as log:
            node.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**self.environment(), **node.environment},
                cwd=self.folder,
                start_new_session=True,
            )
        self._await(place)

    def _log(self, node: Node) -> Path:
        return self.folder / f"{node.name}.log"

    def _await(self, place: int) -> None:
        """Until the node says that it has joined."""
        node, deadline = self.nodes[place], time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            said = self._log(node).read_text(errors="replace")
            if "Ray runtime started" in said:
                return
            if node.process is None or node.process.poll() is not None:
                break
            time.sleep(0.1)
        kind = NoClusterError if place else RuntimeError
        raise kind(f"node {node.name} did not start within {_READY_S:.0f} s: {said[-2000:]}")

    def _named(self, place: int, name: str) -> list[int]:
        return [pid for pid in self.nodes[place].pids() if name in command(pid)]

    def raylet(self, place: int) -> int:
        """The process id of a node's raylet."""
        return self._named(place, "raylet/raylet")[0]

    def workers(self) -> list[int]:
        """Processes that run a task of ours at this moment."""
        return [pid for n in range(len(self.nodes)) for pid in self._titled(n, *_TASKS)]

    def embedders(self) -> list[int]:
        """Processes of the embedding actors, at work or not."""
        return [pid for n in range(len(self.nodes)) for pid in self._titled(n, _EMBEDDER)]

    def busy(self, place: int) -> bool:
        """Whether a task of ours runs on a node at this moment."""
        return bool(self._titled(place, *_TASKS, f"{_EMBEDDER}.answer"))

    def _titled(self, place: int, *titles: str) -> list[int]:
        return [pid for pid in self.nodes[place].pids() if command(pid).startswith(titles)]

    def start(
        self, arguments: Sequence[object], program: Sequence[str] = (), **environment: str
    ) -> subprocess.Popen[str]:
        """Start the command line, or what stands in for it, beside the head."""
        program = program or [PROGRAM]
        return subprocess.Popen(
            [*self.nodes[0].prefix, *program, *map(str, arguments)],
            env={**self.environment(), **environment},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, arguments: Sequence[object], timeout: float = 500) -> Answer:
        """Run the command line beside the head to its end."""
        return _answer(self.start(arguments), timeout)

    def run_outside(self, place: int, arguments: Sequence[object], timeout: float = 500) -> Answer:
        """The same where no raylet is: at a node's address, without a sight of other processes.

        Raises `NoClusterError` where this needs root.
        """
        if not self.isolated:
            raise NoClusterError("a place without a raylet is made by root alone")
        alone = [*self.nodes[place].prefix, "unshare", "--pid", "--fork", "--mount-proc"]
        # Nor does it see the sockets of others.
        hidden = [*alone, "sh", "-c", _HIDE, str(self.short)]
        process = subprocess.Popen(
            [*hidden, PROGRAM, *map(str, arguments)],
            env=self.environment(),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return _answer(process, timeout)


def _answer(process: subprocess.Popen[str], timeout: float) -> Answer:
    out, err = process.communicate(timeout=timeout)
    return Answer(process.returncode, out, err)


def command(pid: int) -> str:
    """What a process says that it does; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@contextmanager
def cluster(
    folder: Path,
    nodes: int = 3,
    cpus: int = 1,
    hidden: Path | None = None,
    *,
    started: int | None = None,
    change: Callable[[list[Node]], None] = lambda _: None,
) -> Iterator[Cluster]:
    """Run a cluster; everything of it is gone afterwards.

    hidden: a folder that the last node finds empty. started: how many nodes there are at first; all
    by default. change: what nodes are to be before they start. Raises `NoClusterError` where a
    folder is to be hidden by somebody else than root.
    """
    isolated = can_isolate()
    made = _isolated(nodes) if isolated else _on_loopback(nodes)
    for node in made:
        node.cpus = cpus
    change(made)
    if hidden and not isolated:
        raise NoClusterError("a folder is hidden from a node by root alone")
    if hidden:
        # A namespace of its own for mounts comes with that of the network.
        made[-1].prefix += ["sh", "-c", _HIDE, str(hidden)]
    with tempfile.TemporaryDirectory(prefix="im-", ignore_cleanup_errors=True) as short:
        folder.mkdir(parents=True, exist_ok=True)
        found = Cluster(folder, Path(short), made, isolated)
        try:
            if isolated:
                _connect(made)
            for place in range(nodes if started is None else started):
                found.start_node(place)
            yield found
        finally:
            for node in made:
                node.kill()
            if isolated:
                _disconnect(made)


def _on_loopback(nodes: int) -> list[Node]:
    return [Node(f"node{n}", f"127.0.{_octet()}.{n + 1}", []) for n in range(nodes)]


def _isolated(nodes: int) -> list[Node]:
    mark, octet = secrets.token_hex(2), _octet()
    names = [f"im{mark}{n}" for n in range(nodes)]
    return [
        Node(name, f"10.213.{octet}.{n + 2}", ["ip", "netns", "exec", name])
        for n, name in enumerate(names)
    ]


def _octet() -> int:
    return secrets.randbelow(200) + 1


def _connect(nodes: list[Node]) -> None:
    """A bridge, and a pair of virtual devices from it into each namespace."""
    bridge = _bridge(nodes)
    _must("link", "add", bridge, "type", "bridge")
    _must("link", "set", bridge, "up")
    for node in nodes:
        inside = ["-n", node.name]
        _must("netns", "add", node.name)
        _must("link", "add", f"{node.name}o", "type", "veth", "peer", f"{node.name}i")
        _must("link", "set", f"{node.name}o", "master", bridge, "up")
        _must("link", "set", f"{node.name}i", "netns", node.name)
        _must(*inside, "addr", "add", f"{node.address}/24", "dev", f"{node.name}i")
        _must(*inside, "link", "set", f"{node.name}i", "up")
        _must(*inside, "link", "set", "lo", "up")


def _bridge(nodes: list[Node]) -> str:
    return f"b{nodes[0].name}"


def _disconnect(nodes: list[Node]) -> None:
    for node in nodes:
        _ip("netns", "del", node.name)
        _ip("link", "del", f"{node.name}o")
    _ip("link", "del", _bridge(nodes))


def _must(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
