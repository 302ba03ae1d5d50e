"""Whether a job takes what was said before: measured, estimated and done in one sitting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from support.shared import faces_and_model

from pipelines.api import capacity
from pipelines.capacity.estimate import cpu_seconds, seconds
from pipelines.capacity.measure import Measuring
from pipelines.capacity.prices import Node
from pipelines.capacity.rehearsal import Clock
from pipelines.enrolment import hold
from pipelines.enrolment import request as enrolment_request
from pipelines.enrolment.request import EnrolRequest
from pipelines.run.course import follow
from pipelines.run.template_run import STEPS
from pipelines.spec.options import assembled

from .stored import embeddings
from .table import Row, paired

STORED, PHOTOS = 20_000, 2_000
FIGURES = Path("bench-out") / "figures.json"


@dataclass(frozen=True)
class Taken:
    """What a job took, and what was said before. cpu: of workers and driver. loads: the machine's
    load when it was measured, and when the job was done.
    """

    cpu: tuple[float, float]
    wall: tuple[float, float]
    stored: tuple[float, float]
    loads: tuple[float, float]
    figures: str


def taken(asked: dict[str, Any]) -> Taken:
    """Measure, estimate, then do an enrolment. asked: the options of `pipelines.enroll`."""
    request = assembled(EnrolRequest, asked)
    prepared = enrolment_request.prepare(request)
    workers = capacity.workers_of(request.workplace)
    before = os.getloadavg()[0]
    planned = capacity.plan(request, prepared)
    found = capacity.measured(request, prepared, planned)
    clock, cpu, kept = Clock(), time.process_time(), []
    with hold.opened(request, prepared) as run:
        kept.append(Measuring(run.executor))
        follow(STEPS, replace(run, executor=kept[0]), clock.take)
    wall, cpu = time.monotonic() - clock.begun, time.process_time() - cpu
    ends = {one.process: 0.0 for one in kept[0].told if one.process != os.getpid()}
    for one in kept[0].told:
        if one.process in ends:
            ends[one.process] = max(ends[one.process], one.before + one.cost.cpu)
    expected, _ = seconds(planned.load, found, Node("here", workers), 1)
    size = sum(p.stat().st_size for p in Path(asked["dest"]).rglob("*") if p.is_file())
    load = planned.load
    bytes_ = load.subjects * found.stored.template + load.inputs * found.stored.rest
    return Taken(
        (cpu + sum(ends.values()), cpu_seconds(load, found, workers)),
        (wall, expected),
        (size, bytes_),
        (before, os.getloadavg()[0]),
        found.as_json(),
    )


def photographs(folder: Path, faces: Path, count: int) -> Path:
    """A source of so many photographs of real people."""
    source, left = folder / "photos", count
    for photo in sorted(faces.glob("*/*.jpg")):
        if not left:
            break
        person = source / photo.parent.name
        person.mkdir(parents=True, exist_ok=True)
        (person / photo.name).symlink_to(photo)
        left -= 1
    return source


def estimates(stored: int = STORED, photos: int = PHOTOS, executor: str = "ray") -> list[Row]:
    """Measured over estimated, of stored embeddings and of photographs."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs: dict[str, dict[str, Any]] = {}
        if stored:
            source = embeddings(folder / "e.parquet", stored)
            jobs[f"{stored:,} stored embeddings"] = {"source": str(source)}
        if photos:
            jobs |= _of_photographs(folder, photos)
        for number, (what, asked) in enumerate(jobs.items()):
            places = {"dest": str(folder / f"d{number}"), "keys": str(folder / f"k{number}.json")}
            rows += _rows(what, _apart({**asked, **places, "executor": executor}))
    return rows


def _of_photographs(folder: Path, count: int) -> dict[str, dict[str, Any]]:
    try:
        faces, model = faces_and_model()
    except FileNotFoundError as error:
        print(f"photographs are left out: {error}")
        return {}
    source = photographs(folder, faces, count)
    asked = {"source": str(source), "model": str(model), "allow_roots": [str(faces)]}
    return {f"{count:,} photographs": asked}


def _apart(asked: dict[str, Any]) -> Taken:
    """What a job took, in a process of its own, which has done nothing before."""
    words = [sys.executable, "-m", "bench.capacity", json.dumps(asked)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return Taken(**json.loads(done.stdout.splitlines()[-1]))


def _rows(what: str, found: Taken) -> list[Row]:
    print(f"{what}: load of the machine {found.loads[0]:.1f}, then {found.loads[1]:.1f}")
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(found.figures)
    for name in ("cpu", "wall", "stored"):
        print(
            f"  {name}: taken {getattr(found, name)[0]:,.1f}, said {getattr(found, name)[1]:,.1f}"
        )
    goal = {"at_most": 1.2}
    return [
        paired(f"{what}, CPU", "estimated", [found.cpu], "s", **goal),
        paired(f"{what}, by the clock", "estimated", [found.wall], "s", **goal),
        paired(f"{what}, stored", "estimated", [found.stored], "bytes", **goal),
    ]


if __name__ == "__main__":
    print(json.dumps(vars(taken(json.loads(sys.argv[1])))))
