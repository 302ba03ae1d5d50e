"""Thousands of odd and damaged picture files: one reasoned row each, whatever is in them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from faults.lines import Line, at_least, at_most, exactly
from faults.pictures_gone_bad import Outcomes, corrupt
from support.command import clean_environment
from support.nodes import family
from support.shared import faces_and_model
from support.table import keys_of, rows

from infra.faces.decoder_process import Limits
from pipelines.spec.faces import FaceSettings

COUNT = 10_000
_SHARD = 50
_PAUSE_S = 0.2
# Beside what the decoder may take: models, Arrow, Python, a shard's files.
_WORKER_BYTES = 2 << 30


@dataclass
class Ran:
    """One enrolment of a folder of such files. peak: bytes resident in its processes together."""

    code: int
    said: str
    seconds: float
    peak: int
    gap: float
    may: dict[str, Outcomes] = field(repr=False, default_factory=dict)
    dest: Path = Path()


def lay_out(folder: Path, photos: list[Path], count: int, seed: int) -> dict[str, Outcomes]:
    """Write the files, a subject each, and one sound photograph; what may become of each."""
    may: dict[str, Outcomes] = {}
    seen: set[bytes] = set()
    for number, (kind, content) in enumerate(corrupt(photos, count, seed)):
        path = folder / f"{number:05d}" / f"{kind.name}{kind.suffix}"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        digest = sha256(content).digest()
        repeated = frozenset({("duplicate", "duplicate_other_subject")})
        may[str(path)] = repeated if digest in seen else kind.may
        seen.add(digest)
    return may


def enrol(folder: Path, count: int, seed: int) -> Ran:
    """Enrol them by the command line, and watch its memory and its progress."""
    faces, model = faces_and_model()
    source, dest = folder / "source", folder / "dest"
    may = lay_out(source, sorted(faces.glob("*/*.jpg")), count, seed)
    command = [
        str(Path(sys.executable).with_name("ironmask")), "enroll", str(source), str(dest),
        f"--model={model}", f"--keys={keys_of(dest)}", "--executor=local",
        f"--shard-size={_SHARD}",
    ]  # fmt: skip
    begun = time.monotonic()
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=clean_environment(folder), cwd=folder
        )
        peak, gap = _watch(process, dest)
        log.seek(0)
        said = log.read()
    return Ran(process.returncode, said, time.monotonic() - begun, peak, gap, may, dest)


def _watch(process: subprocess.Popen[Any], dest: Path) -> tuple[int, float]:
    """Until a process ends: the most memory it took, the longest time without a finished shard."""
    peak, gap, last, done = 0, 0.0, time.monotonic(), 0
    while process.poll() is None:
        peak = max(peak, sum(map(_resident, family(process.pid))))
        found = len(list((dest / "templates").glob("*/part-*.parquet")))
        if found > done:
            done, last = found, time.monotonic()
        elif done:
            gap = max(gap, time.monotonic() - last)
        time.sleep(_PAUSE_S)
    return peak, gap


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0


def wrong(ran: Ran) -> Iterator[str]:
    """Rows whose outcome is none that their kind may have."""
    for row in rows(ran.dest, "inputs"):
        if (row["outcome"], row["reason"]) not in ran.may[row["uri"]]:
            yield f"{Path(row['uri']).name}: {row['outcome']} {row['reason']} ({row['detail']})"


def lines(ran: Ran, count: int) -> list[Line]:
    settled = rows(ran.dest, "inputs") if ran.code in (0, 3) else []
    each = Counter(row["uri"] for row in settled)
    missing = [uri for uri in ran.may if each[uri] != 1]
    bad = list(wrong(ran)) if settled else []
    reasons = Counter(row["reason"] or "used" for row in settled)
    settings = FaceSettings()
    bound = Limits(settings.max_pixels, settings.max_bytes, 0).memory + _WORKER_BYTES
    facts = ", ".join(f"{n:,} {reason}" for reason, n in reasons.most_common())
    tail = ran.said.strip()[-300:] if ran.code not in (0, 3) else ""
    return [
        at_least("kinds", len({Path(uri).stem for uri in ran.may}), 25),
        exactly("inputs", len(ran.may), count),
        Line("exit code", f"{ran.code} {tail}".strip(), "3: some inputs failed", ran.code == 3),
        exactly("inputs without exactly one row", len(missing), 0),
        Line("outcomes that a kind may not have", "; ".join(bad[:3]) or "0", "0", not bad),
        Line("outcomes", facts, "any", True),
        at_most("memory at its peak", ran.peak / 2**20, bound / 2**20, " MiB"),
        at_most("longest time without a finished shard", ran.gap, 120, " s"),
        Line("time", f"{ran.seconds:.0f} s", "any", True),
    ]


def run(seed: int, folder: Path) -> list[Line]:
    return lines(enrol(folder, COUNT, seed), COUNT)
