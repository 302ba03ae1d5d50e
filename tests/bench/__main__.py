"""Measure, print and write `bench-out/bench.md` and `bench-out/bench.parquet`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from . import capacity, coverage, images, kernel, renewal, sealing, stored, wide
from .table import Row, write

PARTS: dict[str, tuple[str, Callable[[], list[Row]]]] = {
    "kernel": ("Protection, one thread, n = 512", kernel.protection),
    "wide": ("Scheme version 2, one thread, n = 512", wide.version_2),
    "tiles": ("Evaluation tiles, one thread", kernel.tile_kernel),
    "images": ("Images, all cores", images.pipeline),
    "stored": ("Stored embeddings", stored.throughput),
    "renewal": ("Re-protection of stored embeddings, one core", renewal.renewal),
    "seal": ("Verification, what the seal adds", sealing.verification),
    "coverage": ("Bounds of few errors, draws of real people", coverage.coverage),
    "nodes": ("Nodes, simulated on this machine", stored.nodes),
    "growth": ("Growing inputs", stored.growth),
    "capacity": ("Estimates of capacity, measured over estimated", capacity.estimates),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help=f"some of {', '.join(PARTS)}, separated by commas")
    parser.add_argument("--sizes", help="subjects of the growing inputs, three, by commas")
    asked = parser.parse_args()
    sections = {}
    for name in asked.only.split(",") if asked.only else PARTS:
        title, measure = PARTS[name]
        print(f"{title} ...", flush=True)
        if name == "growth" and asked.sizes:
            small, middle, large = map(int, asked.sizes.split(","))
            sections[title] = stored.growth((small, middle, large))
        else:
            sections[title] = measure()
        text = write(Path("bench-out"), sections, kernel.sizes())
    print(text)
    print("written to bench-out/bench.md and bench-out/bench.parquet")


if __name__ == "__main__":
    main()
