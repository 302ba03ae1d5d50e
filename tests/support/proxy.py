"""An HTTP proxy in front of a real object store, which answers as a store in trouble does.

The clients' signatures cover the host that they have asked, so requests are passed on as they are.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_ERROR = (
    "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{code}</Message>"
    "</Error>"
)
_REASONS = {400: "Bad Request", 403: "Forbidden", 500: "Internal Server Error", 503: "Slow Down"}


@dataclass(frozen=True)
class Faults:
    """Shares of requests that meet a fault. stall_s: how long a stalled one says nothing.

    lost: the answer of every commit to a log is dropped after it was carried out. refuse: answer
    this (status, code) from request number `after` on.
    """

    busy: float = 0.0
    broken: float = 0.0
    cut: float = 0.0
    stalled: float = 0.0
    stall_s: float = 30.0
    lost: bool = False
    refuse: tuple[int, str] | None = None
    after: int = 0


NONE = Faults()
MANY = Faults(busy=0.10, broken=0.05, cut=0.02, lost=True)
STALLS = Faults(busy=0.10, broken=0.05, cut=0.02, stalled=0.01, lost=True)


@dataclass
class Message:
    """A request or an answer. head: with its empty line."""

    head: bytes
    body: bytes = b""

    @property
    def first(self) -> list[str]:
        return self.head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)

    def header(self, name: str) -> str | None:
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.decode("latin-1").strip().lower() == name:
                return value.decode("latin-1").strip()
        return None

    def without(self, name: str) -> bytes:
        """The head without one header."""
        lines = self.head.split(b"\r\n")
        return b"\r\n".join(
            line for line in lines if not line.lower().startswith(f"{name}:".encode())
        )


@dataclass
class Proxy:
    """A running proxy; `met` counts the requests by what they met.

    asked: their methods and paths.
    """

    target: str
    faults: Faults
    seed: int
    port: int = 0
    met: Counter[str] = field(default_factory=Counter)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, and one to the store beside it."""
        address = urlsplit(self.target)
        with suppress(OSError, asyncio.IncompleteReadError):
            upstream = await asyncio.open_connection(address.hostname, address.port)
            try:
                while request := await _read(reader, writer):
                    if not await self._answer(request, writer, *upstream):
                        break
            finally:
                upstream[1].close()
        with suppress(OSError):
            writer.close()

    async def _answer(
        self,
        request: Message,
        client: asyncio.StreamWriter,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Answer one request; False where the connection ends with it."""
        self.met["requests"] += 1
        method, path = request.first[:2]
        self.asked.append((method, path))
        refusal = self._refusal()
        if refusal is not None:
            client.write(_refused(*refusal, head=request.first[0] == "HEAD"))
            await client.drain()
            return True
        if self._rng.random() < self.faults.stalled:
            self.met["stalled"] += 1
            await asyncio.sleep(self.faults.stall_s)
        writer.write(request.without("expect") + request.body)
        await writer.drain()
        answer = await _read(reader, None, bodiless=request.first[0] == "HEAD")
        if answer is None:
            return False
        return await self._pass_on(request, answer, client)

    async def _pass_on(
        self, request: Message, answer: Message, client: asyncio.StreamWriter
    ) -> bool:
        method, path = request.first[:2]
        commit = method == "PUT" and "/_delta_log/" in path and ".json" in path
        if commit and self.faults.lost and answer.first[1].startswith("2"):
            self.met["answers of commits lost"] += 1
            return False
        if method == "GET" and answer.body and self._rng.random() < self.faults.cut:
            self.met["cut"] += 1
            client.write(answer.head + answer.body[: len(answer.body) // 2])
            await client.drain()
            return False
        client.write(answer.head + answer.body)
        await client.drain()
        return True

    def _refusal(self) -> tuple[int, str] | None:
        if self.faults.refuse and self.met["requests"] > self.faults.after:
            self.met["refused"] += 1
            return self.faults.refuse
        drawn = self._rng.random()
        if drawn < self.faults.busy:
            self.met["503"] += 1
            return 503, "SlowDown"
        if drawn < self.faults.busy + self.faults.broken:
            self.met["500"] += 1
            return 500, "InternalError"
        return None


def _refused(status: int, code: str, *, head: bool) -> bytes:
    body = b"" if head else _ERROR.format(code=code).encode()
    lines = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/xml\r\n"
    return f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _read(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None, *, bodiless: bool = False
) -> Message | None:
    """The next message of a connection; None at its end. writer: answers an expected 100."""
    while True:
        try:
            found = Message(await reader.readuntil(b"\r\n\r\n"))
        except asyncio.IncompleteReadError:
            return None
        if found.first[1] != "100":
            break
    if writer is not None and found.header("expect"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
    if not bodiless and found.first[1] not in ("204", "304"):
        found.body = await _body(reader, found)
    return found


async def _body(reader: asyncio.StreamReader, message: Message) -> bytes:
    if (message.header("transfer-encoding") or "").lower() != "chunked":
        return await reader.readexactly(int(message.header("content-length") or 0))
    parts = []
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        chunk = await reader.readexactly(size + 2)
        parts += [line, chunk]
        if not size:
            return b"".join(parts)


@contextmanager
def proxy(target: str, faults: Faults = NONE, seed: int = 0) -> Iterator[Proxy]:
    """Run a proxy in front of a store on a thread of its own."""
    found, ready = Proxy(target, faults, seed), threading.Event()
    stop: list[Callable[[], object]] = []

    async def main() -> None:
        end, loop = asyncio.Event(), asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(end.set))
        server = await asyncio.start_server(found.serve, "127.0.0.1", 0, limit=1 << 26)
        found.port = server.sockets[0].getsockname()[1]
        ready.set()
        await end.wait()
        # What is still connected ends with the loop, which cancels it.
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield found
    finally:
        stop[0]()
        thread.join(10)
