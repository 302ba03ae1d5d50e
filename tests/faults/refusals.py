"""What the world refuses: room on a disk, keys, access. One clear line each, and nothing lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from faults.drivers import KILLED, Driver, Ended, Job, driver, job
from faults.faulty_store import Place, enrol, place, put_source
from faults.kill_driver import AFTER, Point
from faults.lines import Line, at_least, at_most
from support.accounting import NOTHING, committed, counts, strays
from support.command import Answer, command
from support.enrolling import unit_vectors, write_embeddings
from support.proxy import NONE as NOTHING_WRONG
from support.proxy import Faults
from support.table import keys_of

from infra.keys.key_file import KeyFile

DISKS = 20
_ROOM = "256m"
_WAVE = 2
_BEGUN = 8
# Those of one shard that were on their way, and the lease that is given back.
_LAST_REQUESTS = 24


@dataclass
class Seen:
    """How commands ended that had to be refused, and what their tables said afterwards."""

    points: int = 0
    zero: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    unsound: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    not_begun: int = 0

    def refused(self, what: str, ended: Ended, words: Sequence[str] = ()) -> None:
        """Count one command, whose one error line has to hold some words."""
        self.points += 1
        errors = [line for line in ended.said.splitlines() if line.startswith("error: ")]
        if ended.code == 0:
            self.zero.append(what)
        clear = len(errors) == 1 and all(word in errors[0] for word in words)
        if not clear or "Traceback" in ended.said:
            self.unclear.append(f"{what}: {ended.said.strip()[-300:]}")

    def checked(self, what: str, ended: Ended) -> None:
        if ended.code:
            self.unsound.append(f"{what}: {ended.said.strip()[-300:]}")

    def resumed(self, what: str, ended: Ended, held: bool) -> None:
        if ended.code or not held:
            self.unfinished.append(f"{what}: {ended.code}, {ended.said.strip()[-300:]}")

    def lines(self, what: str, points: int) -> list[Line]:
        named = {
            "ended with 0": self.zero,
            "without one clear line": self.unclear,
            "tables that did not pass the check": self.unsound,
            "that did not end well once it was put right": self.unfinished,
        }
        return [
            at_least(f"{what}: refusals", self.points, points),
            *(Line(f"{what}: {n}", "; ".join(v[:2]) or "0", "0", not v) for n, v in named.items()),
        ]


def can_mount() -> bool:
    """Whether file systems can be mounted here."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    probe = "mount -t tmpfs -o size=64k tmpfs /mnt"
    done = subprocess.run(["unshare", "-m", "sh", "-c", probe], capture_output=True, check=False)
    return done.returncode == 0


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system in memory of some size, such as 64k."""
    folder.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def bytes_of(folder: Path) -> int:
    """What a folder takes on a disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


def full_disks(runs: Driver, folder: Path, points: int, rng: random.Random) -> Seen:
    """Enrol onto disks that are too small, check, give them room, and enrol again."""
    whole = job(folder / "e.parquet", 24, folder / "whole")
    if runs.run(whole.arguments, wave=_WAVE).code:
        raise RuntimeError("a run that nothing stood in the way of did not end well")
    needed, seen = bytes_of(whole.dest) >> 10, Seen()
    for number in range(points):
        # The first tenth is creation, which many points would otherwise miss.
        size = rng.randint(4, needed // 10 if number % 4 == 0 else needed * 4 // 5)
        with small_disk(folder / f"disk-{number}", f"{size}k") as disk:
            _full_disk(runs, whole, disk, f"{size} KiB of {needed}", seen)
    return seen


def _full_disk(runs: Driver, whole: Job, disk: Path, what: str, seen: Seen) -> None:
    work = whole.into(disk / "dest")
    keys = disk.with_suffix(".keys.json")
    arguments = [w for w in work.arguments if not w.startswith("--keys")] + [f"--keys={keys}"]
    seen.refused(what, runs.run(arguments, wave=_WAVE), ["No space left"])
    if keys.exists() and DeltaTable.is_deltatable(str(work.dest / "templates")):
        ended = runs.run(["check", str(work.dest), f"--keys={keys}", "--deep"])
        seen.checked(what, ended)
    else:
        seen.not_begun += 1
    _mount("-o", f"remount,size={_ROOM}", str(disk))
    ended = runs.run(arguments, wave=_WAVE)
    seen.resumed(what, ended, counts(work.dest, work.planned) == NOTHING)
    seen.checked(f"{what}, resumed", runs.run(["check", str(work.dest), f"--keys={keys}"]))


def full_temporary_folder(folder: Path, work: Job, seen: Seen) -> None:
    """The plan's temporary file finds no room."""
    with (
        small_disk(folder / "tmp", "64k") as disk,
        driver(folder / "tmp-runs", TMPDIR=str(disk)) as runs,
    ):
        # Contents that no compression makes small enough.
        large = Job(_many(folder / "many.parquet"), 0, work.dest.with_name("no-plan"))
        seen.refused("a full temporary folder", runs.run(large.arguments), ["TMPDIR", str(disk)])


def _many(path: Path) -> Path:
    vectors = unit_vectors(20_000)
    return write_embeddings(path, [f"{n * 2654435761 % 2**32:08x}" for n in range(20_000)], vectors)


def keys(runs: Driver, folder: Path) -> Seen:
    """Wrong, retired, absent and open keys: to go on with a run, and to check its table."""
    seen = Seen()
    work = job(folder / "keys.parquet", 24, folder / "keyed")
    other = work.into(folder / "other")
    if runs.run(other.arguments).code:
        raise RuntimeError("a run that nothing stood in the way of did not end well")
    point = Point("commit inputs", AFTER, 2)
    if runs.run(work.arguments, point=point, wave=_WAVE).code != KILLED:
        raise RuntimeError(f"{point} was not reached")
    sound = keys_of(work.dest).read_text()
    for what, change, words in _key_faults(keys_of(work.dest), keys_of(other.dest)):
        change()
        for asked in (work.arguments, ["check", str(work.dest), work.arguments[-1]]):
            seen.refused(f"{what}: {asked[0]}", runs.run(asked), words)
        keys_of(work.dest).unlink(missing_ok=True)
        keys_of(work.dest).write_text(sound)
        keys_of(work.dest).chmod(0o600)
        seen.checked(what, runs.run(["check", str(work.dest), work.arguments[-1], "--deep"]))
    ended = runs.run(work.arguments)
    seen.resumed("the right keys", ended, counts(work.dest, work.planned) == NOTHING)
    return seen


def _key_faults(path: Path, other: Path) -> list[tuple[str, Any, list[str]]]:
    return [
        ("another table's keys", lambda: path.write_text(other.read_text()), ["the keys of table"]),
        ("retired keys", lambda: retire(path), ["destroyed"]),
        ("absent keys", path.unlink, ["no keyset file"]),
        ("keys that others may read", lambda: path.chmod(0o644), ["chmod 600"]),
        ("a damaged file of keys", lambda: path.write_text("{"), ["damaged"]),
    ]


def retire(path: Path) -> None:
    """Destroy the only generation's keys."""
    KeyFile.open(path, json.loads(path.read_text())["table_id"]).destroy_generation(1)


def revoked_meanwhile(runs: Driver, folder: Path) -> tuple[Seen, int]:
    """Keys that are destroyed while a run works; returns the shards finished after that as well."""
    seen = Seen()
    work = job(folder / "revoked.parquet", 200, folder / "revoked")
    done, kept = 0, ""

    def strike() -> None:
        nonlocal done, kept
        while committed(work.dest) < _BEGUN:
            time.sleep(0.005)
        kept = keys_of(work.dest).read_text()
        retire(keys_of(work.dest))
        done = written(work.dest)

    striker = threading.Thread(target=strike, daemon=True)
    striker.start()
    ended = runs.run(work.arguments, wave=_WAVE)
    seen.refused("keys destroyed in the middle", ended, ["destroyed"])
    after = written(work.dest) - done
    keys_of(work.dest).write_text(kept)
    seen.checked("keys destroyed", runs.run(["check", str(work.dest), work.arguments[-1]]))
    ended = runs.run(work.arguments)
    seen.resumed("keys put back", ended, counts(work.dest, work.planned) == NOTHING)
    return seen, after


def written(dest: Path) -> int:
    """Shards whose outcomes are written, committed or not."""
    return committed(dest) + len([p for p in strays(dest, "inputs") if p.suffix == ".parquet"])


def access(where: Place, folder: Path) -> tuple[Seen, int]:
    """Credentials that may only read, have expired, or are refused in the middle of a run.

    Returns the requests that were still made after the refusal as well.
    """
    seen, most = Seen(), 0
    put_source(where, 40, 512)
    reader = where.server.reader().environment()
    first = enrol(where, "first", NOTHING_WRONG, 0, "--shard-size=8")
    requests = first.met["requests"]
    seen.resumed("before anything was refused", _ended(first.answer), not first.answer.code)
    check = ("check", first.dest, f"--keys={first.keys}", "--deep")
    seen.checked("with credentials that only read", _ended(command(folder, *check, **reader)))
    source = f"{where.bucket}/e.parquet"
    for dest, keys in ((first.dest, first.keys), (f"{where.bucket}/new", folder / "new.json")):
        arguments = ("enroll", source, dest, f"--keys={keys}", "--executor=local")
        ended = _ended(command(folder, *arguments, **reader))
        seen.refused("credentials that only read", ended, ["denied"])
    for name, status, code, words in _DENIALS:
        for after in (0, requests // 2, requests * 3 // 4):
            what = f"{name}-{after}"
            faults = Faults(refuse=(status, code), after=after)
            ran = enrol(where, what, faults, 0, "--shard-size=8")
            seen.refused(what, _ended(ran.answer), words)
            most = max(most, ran.met["refused"])
            again = enrol(where, what, NOTHING_WRONG, 0, "--shard-size=8")
            seen.resumed(what, _ended(again.answer), not again.answer.code)
            check = ("check", ran.dest, f"--keys={ran.keys}", "--deep")
            seen.checked(what, _ended(command(folder, *check, **where.server.environment())))
    return seen, most


_DENIALS = [
    ("expired", 400, "ExpiredToken", ["expired"]),
    ("denied", 403, "AccessDenied", ["denied"]),
]


def _ended(answer: Answer) -> Ended:
    return Ended(answer.code, 0.0, said=answer.out + answer.err)


def run(seed: int, folder: Path) -> list[Line]:
    rng, lines = random.Random(seed), []
    with driver(folder / "runs") as runs:
        if can_mount():
            seen = full_disks(runs, folder, DISKS, rng)
            lines += seen.lines("full disk", DISKS)
            lines.append(Line("full disk: before any run began", str(seen.not_begun), "any", True))
            seen = Seen()
            full_temporary_folder(folder, job(folder / "t.parquet", 2, folder / "t"), seen)
            lines += seen.lines("full temporary folder", 1)
        else:
            lines.append(Line("full disk", "file systems cannot be mounted here", "root", False))
        lines += keys(runs, folder).lines("keys", 10)
        seen, after = revoked_meanwhile(runs, folder)
        lines += seen.lines("keys destroyed in the middle", 1)
        lines.append(Line("shards finished after that", str(after), "at most 1", after <= 1))
    with place(folder / "store") as where:
        seen, requests = access(where, folder)
        lines += seen.lines("access to the store", 8)
        lines.append(at_most("most requests after a refusal", requests, _LAST_REQUESTS))
    return lines
