"""One enrolment on three nodes, one of which is killed in the middle, against one on no cluster."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from faults.drivers import Job, job
from faults.lines import Line, at_least, exactly
from support.accounting import committed, counts, row_set
from support.command import ironmask
from support.enrolling import write_manifest
from support.faces import photographs
from support.nodes import Cluster, cluster
from support.shared import faces_and_model
from support.table import keys_of

NODES = 3
_PATIENCE_S = 400.0


@dataclass
class Disturbed:
    """How a run ended on whose way a node was killed. busy: nodes that were seen at work."""

    code: int
    said: str
    done_before: int
    struck: bool = False
    busy: set[int] = field(default_factory=set)


def on_ray(arguments: Sequence[str], where: Cluster) -> list[str]:
    """The same job on a cluster."""
    kept = [word for word in arguments if not word.startswith("--executor")]
    return [*kept, f"--ray-address={where.address}"]


def disturb(
    where: Cluster, arguments: Sequence[str], dest: Path, after: int, node: int
) -> Disturbed:
    """Run a job; kill a node while it is at work, once so many shards are committed."""
    process = where.start(on_ray(arguments, where))
    deadline = time.monotonic() + _PATIENCE_S
    seen, done = Disturbed(0, "", 0), 0
    while process.poll() is None and time.monotonic() < deadline:
        seen.busy |= {n for n in range(len(where.nodes)) if where.busy(n)}
        done = committed(dest)
        if done >= after and where.busy(node):
            where.nodes[node].kill()
            seen.struck = True
            break
        time.sleep(0.02)
    seen.done_before = done
    out, err = process.communicate(timeout=_PATIENCE_S)
    seen.code, seen.said = process.returncode, out + err
    return seen


def undisturbed(arguments: Sequence[str], dest: Path, folder: Path) -> dict[str, object]:
    """The rows of the same job in one process of its own destination."""
    other = folder / f"{dest.name}-alone"
    swapped = [word.replace(str(dest), str(other)) for word in arguments]
    answer = ironmask(*swapped)
    if answer.code not in (0, 3):
        raise RuntimeError(f"the undisturbed run ended with {answer.code}: {answer.err}")
    found: dict[str, object] = dict(row_set(other))
    shutil.rmtree(other)
    return found


def lines(what: str, seen: Disturbed, dest: Path, planned: int, same: bool) -> list[Line]:
    held = counts(dest, planned)
    last = seen.said.strip().splitlines()[-1:] or [""]
    return [
        Line(
            f"{what}: exit code", f"{seen.code} {last[0] if seen.code else ''}", "0", not seen.code
        ),
        exactly(f"{what}: nodes killed while the job ran", int(seen.struck), 1),
        at_least(f"{what}: shards committed before the kill", seen.done_before, 1),
        at_least(f"{what}: nodes that worked before it", len(seen.busy), 2),
        exactly(f"{what}: rows lost", held.lost, 0),
        exactly(f"{what}: rows duplicated", held.duplicated, 0),
        exactly(f"{what}: second live issues", held.second_issues, 0),
        exactly(f"{what}: stray files", held.stray_files, 0),
        Line(f"{what}: row set", "the same" if same else "another", "the same", same),
    ]


def stored(where: Cluster, work: Job, after: int, node: int) -> list[Line]:
    """Stored embeddings; a node that is not the driver's is killed."""
    seen = disturb(where, work.arguments, work.dest, after, node)
    same = row_set(work.dest) == undisturbed(work.arguments, work.dest, where.folder)
    where.start_node(node)
    return lines("embeddings", seen, work.dest, len(work.planned), same)


def images(where: Cluster, folder: Path, people: int, after: int, node: int) -> list[Line]:
    """Photographs, whose crops and embeddings travel between nodes."""
    faces, model = faces_and_model()
    chosen = list(photographs(faces).items())[:people]
    entries = [(name, path) for name, paths in chosen for path in paths[:4]]
    source = write_manifest(folder / "people.csv", entries)
    dest = folder / "faces"
    arguments = [
        "enroll", str(source), str(dest), f"--model={model}", f"--keys={keys_of(dest)}",
        "--shard-size=4", "--executor=local", "--max-failures=1000", "--embedders=2",
        f"--allow-root={faces}",
    ]  # fmt: skip
    seen = disturb(where, arguments, dest, after, node)
    same = row_set(dest) == undisturbed(arguments, dest, folder)
    where.start_node(node)
    return lines("photographs", seen, dest, len(entries), same)


def run(seed: int, folder: Path) -> list[Line]:
    """Both kinds of source, on three nodes."""
    rng = random.Random(seed)
    with cluster(folder / "nodes", NODES) as where:
        kind = "network namespaces" if where.isolated else "loopback addresses"
        found = [Line("nodes", f"{NODES} ({kind})", f"{NODES}", True)]
        work = job(folder / "e.parquet", 1500, folder / "dest")
        found += stored(where, work, rng.randint(16, 100), rng.randint(1, 2))
        found += images(where, folder, 100, 16, rng.randint(1, 2))
    return found
