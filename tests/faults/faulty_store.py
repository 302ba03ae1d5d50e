"""A store in trouble: throttling, errors, cut answers, silence, lost answers of commits."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.lines import Line, at_least, at_most, exactly
from support.command import Answer, command
from support.enrolling import captures, unit_vectors, write_embeddings
from support.proxy import MANY, NONE, STALLS, Faults, Proxy, proxy
from support.s3 import S3Server, server

from infra.settings import StorageSettings
from infra.store.delta import DeltaTables
from infra.store.objects import FsspecStore
from pipelines.table.schemas import TABLES

ROUNDS = 3
_EACH = 2
_OWN = {"template_id", "run_id", "enrolled_at", "helper", "digests", "key_id", "source_uris"}
_OWN |= {"details", "identities"}


@dataclass(frozen=True)
class Place:
    """A bucket of a real server, and the folder in which commands work."""

    server: S3Server
    bucket: str
    folder: Path

    def settings(self) -> StorageSettings:
        """How this process reaches the server itself."""
        return StorageSettings(
            endpoint=self.server.endpoint,
            region="us-east-1",
            access_key=self.server.access_key,
            secret_key=self.server.secret_key,
            allow_http=True,
        )

    def environment(self, found: Proxy) -> dict[str, str]:
        """How a command reaches it through a proxy."""
        return {**self.server.environment(), "IRONMASK_S3_ENDPOINT": found.endpoint}


@dataclass
class Ran:
    """One enrolment through a proxy."""

    dest: str
    keys: Path
    answer: Answer
    seconds: float
    met: Counter[str] = field(default_factory=Counter)


@contextmanager
def place(folder: Path) -> Iterator[Place]:
    """A server of its own for a suite that runs outside pytest."""
    with server(folder / "s3") as found:
        yield Place(found, f"s3://{found.new_bucket()}", folder)


def put_source(where: Place, subjects: int, width: int) -> int:
    """Stored embeddings in the bucket; returns how many inputs they are."""
    names = [f"s{n:04d}" for n in range(subjects) for _ in range(_EACH)]
    vectors = [*captures(unit_vectors(subjects, width=width), _EACH), unit_vectors(1)[0] * 0]
    path = write_embeddings(where.folder / "e.parquet", [*names, "zero"], vectors)
    FsspecStore(where.settings()).write(f"{where.bucket}/e.parquet", path.read_bytes())
    return len(vectors)


def enrol(where: Place, name: str, faults: Faults, seed: int, *more: str) -> Ran:
    """Enrol through a proxy."""
    dest, keys = f"{where.bucket}/{name}", where.folder / f"{name}.json"
    with proxy(where.server.endpoint, faults, seed) as found:
        begun = time.monotonic()
        answer = command(
            where.folder, "enroll", f"{where.bucket}/e.parquet", dest, "--executor=local",
            f"--keys={keys}", "--max-failures=1", *more,
            **where.environment(found),
        )  # fmt: skip
        return Ran(dest, keys, answer, time.monotonic() - begun, found.met)


def rows(where: Place, dest: str) -> dict[str, list[str]]:
    """Comparable rows of templates and inputs, sorted."""
    tables = DeltaTables(dest, where.settings().delta_options())
    found: dict[str, list[str]] = {}
    for name in ("templates", "inputs"):
        listed = tables.table(name).rows().drop_columns(["helper"] * (name == "templates"))
        found[name] = sorted(json.dumps(_comparable(row)) for row in listed.to_pylist())
    return found


def _comparable(row: dict[str, Any]) -> dict[str, str]:
    return {k: repr(v) for k, v in row.items() if k not in _OWN}


def strays(where: Place, dest: str) -> int:
    """Data files in the bucket that no log lists."""
    store = FsspecStore(where.settings())
    tables = DeltaTables(dest, where.settings().delta_options())
    count = 0
    for name in TABLES:
        table = tables.table(name)
        found = {uri.removeprefix(f"{table.uri}/") for uri in store.remains(table.uri)}
        count += len({path for path in found if "_delta_log" not in path} - table.files().keys())
    return count


def soundness(where: Place, ran: Ran, wanted: dict[str, list[str]], what: str) -> list[Line]:
    """Whether a run through a faulty store did what an undisturbed one does."""
    last = ran.answer.err.strip().splitlines()[-1:] if ran.answer.code else []
    ended = Line(f"{what}: exit code", " ".join([str(ran.answer.code), *last]), "0", not last)
    if ran.answer.code:
        return [ended]
    found = rows(where, ran.dest)
    check = command(
        where.folder, "check", ran.dest, f"--keys={ran.keys}", "--deep",
        **where.server.environment(),
    )  # fmt: skip
    same = found == wanted
    return [
        ended,
        Line(f"{what}: row set", "the same" if same else "another", "the same", same),
        exactly(f"{what}: second live issues", _repeated(found["templates"]), 0),
        exactly(f"{what}: stray files", strays(where, ran.dest), 0),
        Line(f"{what}: deep check", str(check.code), "0", check.code == 0),
    ]


def _repeated(templates: list[str]) -> int:
    owners = Counter(json.loads(row)["subject_id"] for row in templates)
    return sum(count - 1 for count in owners.values())


def run(seed: int, folder: Path) -> list[Line]:
    """Rounds with and without faults, one after the other, then one with silence as well."""
    with place(folder) as where:
        put_source(where, 1800, 512)
        more = ("--shard-size=64",)
        ratios, met, lines = [], Counter[str](), []
        for number in range(ROUNDS):
            quiet = enrol(where, f"quiet-{number}", NONE, seed, *more)
            wanted = rows(where, quiet.dest)
            faulty = enrol(where, f"faulty-{number}", MANY, seed + number, *more)
            ratios.append(faulty.seconds / quiet.seconds)
            met += faulty.met
            lines += soundness(where, faulty, wanted, f"round {number + 1}")
        facts = ", ".join(f"{count:,} {name}" for name, count in met.items())
        lines.append(Line("what the rounds met", facts, "each kind", len(met) == 5))
        lines.append(at_most("time with faults, median of rounds", _median(ratios), 1.5, " times"))
        # One request after the other: each silence is waited for.
        put_source(where, 200, 512)
        wanted = rows(where, enrol(where, "quiet", NONE, seed, *more).dest)
        silent = enrol(where, "silent", STALLS, seed, *more)
        lines += soundness(where, silent, wanted, "with silence")
        lines.append(at_least("with silence: stalled requests", silent.met["stalled"], 1))
        text = f"{silent.seconds:.0f} s, {silent.met['stalled']} times silence"
        lines.append(Line("with silence: time", text, "any", True))
    return lines


def _median(values: list[float]) -> float:
    return statistics.median(values)
