"""Tampering with a table at rest: flipped bits, swapped rows, and whatever else hands can do."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from deltalake.transaction import AddAction
from faults.lines import Line, exactly
from support.enrolling import captures, request, unit_vectors, write_embeddings
from support.enrolling import run as enrol
from support.forging import FORGERIES, Place, commands, wrong
from support.table import data_files, keys_of, rewrite

from ironmask.errors import IronmaskError
from pipelines.operations import job
from pipelines.table import layout
from pipelines.table.data_files import named
from pipelines.table.layout import ShardFile
from pipelines.table.schemas import TABLES

FLIPS = 1000


def make_table(folder: Path) -> Path:
    """Two runs, the second with failures, and checkpoints in the logs of the large tables."""
    dest = folder / "dest"
    names = [f"s{n:02d}" for n in range(12) for _ in range(2)]
    vectors = [*captures(unit_vectors(12), 2), unit_vectors(1)[0] * 0]
    first = write_embeddings(folder / "first.parquet", names[:16], vectors[:16])
    second = write_embeddings(folder / "second.parquet", [*names, "zero"], vectors)
    enrol(request(first, dest, vault=True))
    for name in ("templates", "inputs"):
        DeltaTable(str(dest / name)).create_checkpoint()
    enrol(request(second, dest, vault=True))
    return dest


@dataclass(frozen=True)
class Verdict:
    """What a check said: whether it found anything, and whether it failed in no foreseen way."""

    found: bool
    broken: str = ""


def ask(dest: Path, *, deep: bool = True) -> Verdict:
    """Check a table whose keys lie beside it."""
    try:
        report = job.check(str(dest), str(keys_of(dest)), deep=deep, workers=1)
    except IronmaskError:
        return Verdict(True)
    except Exception as error:  # noqa: BLE001
        return Verdict(False, f"{type(error).__name__}: {error}"[:200])
    return Verdict(bool(report.findings))


def kind_of(dest: Path, path: Path) -> str:
    """What a file is, in the table of what was flipped."""
    parts = path.relative_to(dest).parts
    if parts[0] == layout.PRIVATE:
        return {"plan.json": "plan", "seal.json": "seal"}.get(parts[-1], "part of a plan")
    if "_delta_log" not in parts:
        return f"data of {parts[0]}"
    return f"log of {parts[0]}" if parts[-1].endswith(".json") else "checkpoint"


def flippable(dest: Path) -> dict[str, list[Path]]:
    """The files of a table that hold anything, by kind."""
    found: dict[str, list[Path]] = {}
    for path in sorted(dest.rglob("*")):
        if path.is_file() and path.stat().st_size:
            found.setdefault(kind_of(dest, path), []).append(path)
    return found


def flip(dest: Path, count: int, rng: random.Random) -> Iterator[tuple[str, Verdict, Verdict]]:
    """Flip a bit, check with and without opening the helpers, and flip it back; count times."""
    files = flippable(dest)
    kinds = sorted(files)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        path = rng.choice(files[kind])
        content = path.read_bytes()
        changed = bytearray(content)
        changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        yield kind, ask(dest), ask(dest, deep=False)
        path.write_bytes(content)


def log_entries(dest: Path, name: str) -> list[Path]:
    return sorted((dest / name / "_delta_log").glob("*.json"))


def swap_rows(dest: Path) -> None:
    rewrite(data_files(dest, "templates")[0], lambda rows: rows.reverse())


def swap_helpers(rows: list[dict[str, Any]]) -> None:
    rows[0]["helper"], rows[1]["helper"] = rows[1]["helper"], rows[0]["helper"]


def swap_helpers_and_name(dest: Path) -> None:
    """By somebody who knows that names hold digests: the log names the new file."""
    path = data_files(dest, "templates")[0]
    old = layout.parse_shard_file(path.name)
    assert old is not None
    rewrite(path, swap_helpers)
    content = path.read_bytes()
    name = named(old, content).name
    path.rename(path.with_name(name))
    for entry in log_entries(dest, "templates"):
        lines = [json.loads(line) for line in entry.read_text().splitlines()]
        for line in lines:
            if line.get("add", {}).get("path", "").endswith(path.name):
                line["add"]["path"] = f"generation=1/{name}"
                line["add"]["size"] = len(content)
        entry.write_text("".join(json.dumps(line) + "\n" for line in lines))


def drop_with_its_line(dest: Path) -> None:
    path = data_files(dest, "templates")[0]
    for entry in log_entries(dest, "templates"):
        kept = [line for line in entry.read_text().splitlines() if path.name not in line]
        entry.write_text("".join(line + "\n" for line in kept))
    path.unlink()


def second_issue(dest: Path, folder: str, *, listed: bool) -> None:
    """Put a copy of a template's file back under another name."""
    path = data_files(dest, "templates")[0]
    name = named(ShardFile("f" * 12, 0, "ab" * 8, ""), path.read_bytes()).name
    target = dest / "templates" / folder / name
    target.parent.mkdir(exist_ok=True)
    shutil.copy(path, target)
    if listed:
        table = DeltaTable(str(dest / "templates"))
        partition = {"generation": folder.removeprefix("generation=")}
        size = target.stat().st_size
        action = AddAction(f"{folder}/{name}", size, partition, 0, True, "{}")
        table.create_write_transaction([action], "append", table.schema(), ["generation"])


def other_seal(dest: Path) -> None:
    """The seal of another table under the same keys' service."""
    path = dest / layout.PRIVATE / "seal.json"
    content = json.loads(path.read_text())
    content["table_id"] = "0" * 36
    path.write_text(json.dumps(content, sort_keys=True, separators=(",", ":")))


def change_run(rows: list[dict[str, Any]]) -> None:
    rows[0]["counts"] = rows[0]["counts"].replace("16", "17")


def first_plan(dest: Path) -> Path:
    return min((dest / layout.PRIVATE / "plans").iterdir())


def swap_plans(dest: Path) -> None:
    one, other = sorted((dest / layout.PRIVATE / "plans").iterdir())
    shutil.copytree(other, one, dirs_exist_ok=True)


Hand = Callable[[Path], object]


def hands() -> dict[str, Hand]:
    """Everything but flipped bits that is done to a table, by name."""
    found: dict[str, Hand] = {
        "rows swapped within a file": swap_rows,
        "helpers of two rows swapped": lambda d: rewrite(
            data_files(d, "templates")[0], swap_helpers
        ),
        "the same, with the file's name and the log entry put right": swap_helpers_and_name,
        "a file dropped with its line of the log": drop_with_its_line,
        "an old generation's file put back": lambda d: second_issue(
            d, "generation=0", listed=False
        ),
        "the same, listed by a log entry": lambda d: second_issue(d, "generation=0", listed=True),
        "a second issue put beside": lambda d: second_issue(d, "generation=1", listed=False),
        "the same, listed": lambda d: second_issue(d, "generation=1", listed=True),
        "a foreign file": lambda d: (d / "templates" / "more.parquet").write_bytes(b"x"),
        "the seal removed": lambda d: (d / layout.PRIVATE / "seal.json").unlink(),
        "the seal of another table": other_seal,
        "a plan removed": lambda d: shutil.rmtree(first_plan(d)),
        "a plan put in the place of another": swap_plans,
        "a row of runs changed": lambda d: rewrite(data_files(d, "runs")[0], change_run),
    }
    for name in TABLES:
        for forgery, forge in FORGERIES.items():
            found[f"forged in the log of {name}: {forgery}"] = lambda d, n=name, f=forge: f(
                Place(str(d), keys_of(d), "", d), n
            )
        found[f"a file of {name} dropped"] = lambda d, n=name: data_files(d, n)[0].unlink()
        found[f"the last log entry of {name} removed"] = lambda d, n=name: log_entries(d, n)[
            -1
        ].unlink()
        found[f"a middle log entry of {name} removed"] = lambda d, n=name: log_entries(d, n)[
            1
        ].unlink()
    return found


def lay_hands(dest: Path, hand: Hand) -> Verdict:
    """Do something to a copy of a table, and check the copy."""
    copy = dest.with_name("copy")
    shutil.copytree(dest, copy)
    shutil.copy(keys_of(dest), keys_of(copy))
    try:
        hand(copy)
        return ask(copy)
    finally:
        shutil.rmtree(copy)
        keys_of(copy).unlink()


def forged_lines(dest: Path, source: Path) -> list[Line]:
    """Every command on a table in whose logs somebody has forged something."""
    lines = []
    for name in TABLES:
        for forgery, forge in FORGERIES.items():
            wrong_ones = _forged(dest, source, name, forge)
            what = f"forged in the log of {name}, {forgery}: commands that went on"
            told = "; ".join(wrong_ones[:2]) or "none"
            lines.append(Line(what, told, "none", not wrong_ones))
    return lines


def _forged(dest: Path, source: Path, name: str, forge: Callable[[Place, str], None]) -> list[str]:
    copy = dest.with_name("forged")
    shutil.copytree(dest, copy)
    shutil.copy(keys_of(dest), keys_of(copy))
    place = Place(str(copy), keys_of(copy), str(source), dest.parent)
    try:
        forge(place, name)
        reason = f"{name}: its log goes on after the sealed version"
        return [text for one in commands(place) if (text := wrong(place, one, reason))]
    finally:
        shutil.rmtree(copy)
        keys_of(copy).unlink()


def flip_lines(seen: Sequence[tuple[str, Verdict, Verdict]]) -> list[Line]:
    """How many flips of each kind were found, and how many checks broke."""
    flips, deep = Counter(kind for kind, _, _ in seen), Counter[str]()
    for kind, verdict, _ in seen:
        deep[kind] += verdict.found
    found = [exactly(f"bits flipped in {kind}: found", deep[kind], flips[kind]) for kind in flips]
    shallow = sum(verdict.found for _, _, verdict in seen)
    broken = [v.broken for _, *both in seen for v in both if v.broken]
    return [
        *sorted(found, key=lambda line: line.what),
        exactly("all flips: found by `check --deep`", deep.total(), len(seen)),
        exactly("all flips: found by `check`", shallow, len(seen)),
        Line("checks that broke", "; ".join(broken[:2]) or "none", "none", not broken),
    ]


def run(seed: int, folder: Path) -> list[Line]:
    """A thousand flips over every kind of file, and every other hand."""
    dest = make_table(folder)
    lines = [exactly("findings in the sound table", int(ask(dest).found), 0)]
    lines += flip_lines(list(flip(dest, FLIPS, random.Random(seed))))
    for name, hand in hands().items():
        verdict = lay_hands(dest, hand)
        lines.append(Line(name, verdict.broken or str(verdict.found), "True", verdict.found))
    lines += forged_lines(dest, folder / "second.parquet")
    lines.append(exactly("findings in the sound table afterwards", int(ask(dest).found), 0))
    return lines
