"""Images a second: the whole enrolment, the raw models, and the loop that people write."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from support.shared import faces_and_model

from infra.models.onnx_graph import for_cpu

from .enrolments import enrol
from .machine import together
from .table import Row, paired

SIDE = 320
ROUNDS = 3
PERSONS = 170
SECONDS = 4.0
_FACES: dict[str, Any] = {"det_sizes": (SIDE, 640)}


def raw_models(model: Path, ours: bool) -> Callable[[], int]:
    """Calls of detector and recogniser on inputs that lie ready. ours: rewritten as we do."""
    import onnxruntime

    calls = []
    for name, side in (("det_500m", SIDE), ("w600k_mbf", 112)):
        path = model / f"{name}.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        source = (for_cpu(path) if ours else None) or str(path)
        session = onnxruntime.InferenceSession(source, options, ["CPUExecutionProvider"])
        picture = np.random.standard_normal((1, 3, side, side)).astype(np.float32)
        calls.append((session, {session.get_inputs()[0].name: picture}))

    def work() -> int:
        for session, feed in calls:
            session.run(None, feed)
        return 1

    return work


def loop(model: Path, files: Path, every: str) -> float:
    """Images a second of `FaceAnalysis.get`; see `bench.loop`."""
    words = [str(model), str(SIDE), str(SECONDS), every, str(files)]
    command = [sys.executable, "-W", "ignore", "-m", "bench.loop", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def photographs(folder: Path, faces: Path, *, one_each: bool) -> tuple[Path, Path]:
    """A source of some people's photographs, and a file that lists them.

    one_each: every photograph is taken for another person's.
    """
    source, listed = folder / f"source-{one_each}", []
    for person in sorted(faces.iterdir())[:PERSONS]:
        for number, photo in enumerate(sorted(person.iterdir())):
            subject = source / (f"{person.name}-{number}" if one_each else person.name)
            subject.mkdir(parents=True, exist_ok=True)
            (subject / photo.name).write_bytes(photo.read_bytes())
            listed.append(str(photo))
    files = folder / "photographs.txt"
    files.write_text("\n".join(listed))
    return source, files


def pipeline() -> list[Row]:
    faces, model = faces_and_model()
    cores = os.cpu_count() or 1
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for one_each, what in ((True, "one photo a person"), (False, "all photos of a person")):
            source, files = photographs(Path(name), faces, one_each=one_each)
            every = "image" if one_each else "none"
            seen: list[dict[str, float]] = []
            for _ in range(ROUNDS):
                one = enrol(source, model=str(model), workers=cores, shard_size=64, faces=_FACES)
                seen.append(
                    {
                        "ours": one.rate(1, 2 * cores),
                        "raw": together(raw_models, cores, SECONDS, model, False),
                        "rewritten": together(raw_models, cores, SECONDS, model, True),
                        "loop": loop(model, files, every),
                    }
                )
            rotation = " + ortho_group.rvs" if one_each else ""
            for other, against, goal in (
                ("raw", "raw detector + recogniser", {"at_least": 0.9}),
                ("rewritten", "the same, models rewritten", {}),
                ("loop", f"FaceAnalysis.get{rotation}", {"at_least": 2.5} if one_each else {}),
            ):
                pairs = [(s["ours"], s[other]) for s in seen]
                rows.append(paired(f"enrolment, {what}", against, pairs, "images/s", **goal))
    return rows
