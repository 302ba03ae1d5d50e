"""How the driver's work grows with a table's shards: CPU seconds, peak memory, and exponents.

Each step runs in a process of its own, so that its peak is its own. Look-ups in tables of as many
files follow. Prints tables and writes them to `bench-out/scale.md`.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from .lookups import LARGE, SIZES, lookups
from .scale_steps import STEPS

T = TypeVar("T")


@dataclass(frozen=True)
class Taken:
    """What a step took: CPU seconds, and bytes of memory at most."""

    cpu: float
    peak: int


def measured(size: int, folder: str | None) -> dict[str, Taken]:
    """Take all steps over a new table of some shards."""
    place = tempfile.mkdtemp(prefix=f"scale-{size}-", dir=folder)
    try:
        found = {name: _taken(name, place, size) for name in STEPS}
    finally:
        shutil.rmtree(place)
    return {name: taken for name, taken in found.items() if STEPS[name].measured}


def _taken(name: str, place: str, size: int) -> Taken:
    command = [sys.executable, "-m", "bench.scale_once", name, place, str(size)]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    taken = Taken(**json.loads(process.stdout.splitlines()[-1]))
    print(f"{size:>8,} {name:<32} {taken.cpu:9.2f} s {taken.peak >> 20:7,} MiB", flush=True)
    return taken


def markdown(found: dict[int, dict[str, Taken]]) -> str:
    """Seconds and MiB of each step at each size, and between two sizes the exponent of the seconds
    and the ratio of the memory.
    """
    sizes = sorted(found)
    heads = [f"{size:,}: s, MiB" for size in sizes]
    heads += [f"{a:,} to {b:,}: exponent, memory" for a, b in _pairs(sizes)]
    lines = [_row(["step", *heads]), _row(["---"] * (len(heads) + 1))]
    for name in found[sizes[0]]:
        own = [found[size][name] for size in sizes]
        cells = [f"{one.cpu:.2f}, {one.peak >> 20:,}" for one in own]
        grown = zip(_pairs(sizes), _pairs(own), strict=True)
        cells += [
            f"{math.log(more.cpu / less.cpu, b / a):.2f}, {more.peak / less.peak:.2f}"
            for (a, b), (less, more) in grown
        ]
        lines.append(_row([name, *cells]))
    return "\n".join(lines) + "\n"


def _pairs(items: Sequence[T]) -> Iterable[tuple[T, T]]:
    return pairwise(items)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", help="numbers of shards, by commas")
    parser.add_argument("--full", action="store_true", help=f"also {LARGE:,} shards")
    parser.add_argument("--folder", help="where the tables lie meanwhile: 40 KB a shard")
    asked = parser.parse_args()
    sizes = [int(size) for size in asked.sizes.split(",")] if asked.sizes else [*SIZES]
    sizes += [LARGE] if asked.full else []
    found = {size: measured(size, asked.folder) for size in sizes}
    text = f"{markdown(found)}\n{lookups(sizes)}"
    Path("bench-out").mkdir(exist_ok=True)
    Path("bench-out/scale.md").write_text(text)
    print(text)
    print("written to bench-out/scale.md")


if __name__ == "__main__":
    main()
