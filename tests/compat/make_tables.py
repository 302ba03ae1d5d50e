"""Make the tables of version 0.1.0 that `test_tables_of_v0_1` reads with the code at hand.

Run it with the code of that version, in a checkout of commit da543df and nowhere else: it names
modules that have other names since. In its top folder, once `make test` has set it up:

    PYTHONPATH=tests:tests/pipelines:tests/e2e .venv/bin/python tests/compat/make_tables.py

It writes `tests/compat/v0_1/*.zip`, a case each, by the command line against a real S3 server.
What is broken off was killed with SIGKILL by `faults.kill_driver`. An archive holds what lay below
`s3://ironmask-v0-1/CASE`, and the keyset files beside it; where a case began with the complete
table, only what differs from that. Keys and templates are random: each call
makes other ones. The embeddings are synthetic, and the same each time.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from enrolling import ALPHA, TOLERANCE, WIDTH, captures, unit_vectors
from faults.drivers import KILLED, Driver, driver
from faults.kill_driver import AFTER, BEFORE, Point
from s3server import S3Server, server

VERSION = "0.1.0"
BASE = "complete"
BUCKET = "ironmask-v0-1"
SOURCE = f"s3://{BUCKET}/inputs/enrolled/gallery.parquet"
PROBES = f"s3://{BUCKET}/inputs/probes/gallery.parquet"
CALIBRATION = f"s3://{BUCKET}/inputs/calibration.parquet"
SMALL = f"s3://{BUCKET}/inputs/small.parquet"
SUBJECTS, EACH, FIRST, FEW = 24, 4, 20, 2
SETTINGS = (f"--alpha={ALPHA}", f"--tolerance={TOLERANCE}", "--shard-size=8", "--executor=local")
WAVE = 2
ENCODINGS = ("int8", "float32", "float16", "bits6", "bits5", "bits4")
SEED = "5d" * 32
ERASED = "s003"
# All embeddings leave four directions empty, which a filling takes.
USED_DIRECTIONS = (np.arange(WIDTH) < WIDTH - 4).astype(np.float32)


@dataclass
class Made:
    """Where the tables are made: a bucket, and a folder with the keyset files of each case."""

    s3: S3Server
    runs: Driver
    folder: Path
    copies: set[str] = field(default_factory=set)

    def table(self, case: str) -> str:
        return f"s3://{BUCKET}/{case}/table"

    def keys(self, case: str) -> str:
        return f"--keys={self.folder / case / 'table.keys.json'}"

    def ironmask(self, *arguments: str) -> str:
        """Run a command to its end; returns what it said."""
        ended = self.runs.run(arguments, wave=WAVE)
        if ended.code not in (0, 3):
            raise RuntimeError(f"{arguments} ended with {ended.code}: {ended.said}")
        return ended.said

    def killed(self, point: Point, *arguments: str) -> None:
        """Run a command that ends by SIGKILL."""
        ended = self.runs.run(arguments, point=point, wave=WAVE)
        if ended.code != KILLED:
            raise RuntimeError(f"{arguments} ended with {ended.code}: {ended.said}")

    def enroll(self, case: str, *more: str, source: str = SOURCE) -> tuple[str, ...]:
        (self.folder / case).mkdir(exist_ok=True)
        return ("enroll", source, self.table(case), self.keys(case), *SETTINGS, *more)

    def objects(self, case: str) -> Iterator[tuple[str, bytes]]:
        """Everything below a case: names from there, and contents."""
        client, prefix = self.s3.client(), f"{case}/"
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        for page in pages:
            for item in page.get("Contents", []):
                found = client.get_object(Bucket=BUCKET, Key=item["Key"])
                yield item["Key"].removeprefix(prefix), found["Body"].read()

    def put(self, address: str, content: bytes) -> None:
        key = address.removeprefix(f"s3://{BUCKET}/")
        self.s3.client().put_object(Bucket=BUCKET, Key=key, Body=content)

    def copy(self, to: str) -> None:
        """Begin another case with the complete table and its keys."""
        for name, content in self.objects(BASE):
            self.put(f"s3://{BUCKET}/{to}/{name}", content)
        shutil.copytree(self.folder / BASE, self.folder / to)
        self.copies.add(to)

    def pack(self, case: str, out: Path) -> None:
        """Write the archive of a case: what differs from the complete table, if it came from it."""
        found = self._files(case)
        if case in self.copies:
            base = self._files(BASE)
            lacking = sorted(base.keys() - found.keys())
            found = {name: data for name, data in found.items() if base.get(name) != data}
            found["base.json"] = json.dumps({"base": BASE, "lacking": lacking}).encode()
        with zipfile.ZipFile(out / f"{case}.zip", "w") as archive:
            for name, content in sorted(found.items()):
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, 9)

    def _files(self, case: str) -> dict[str, bytes]:
        found = dict(self.objects(case))
        found |= {path.name: path.read_bytes() for path in (self.folder / case).glob("*.json")}
        return {n: _nobodys(c) if n.endswith("lease.json") else c for n, c in found.items()}


def _nobodys(content: bytes) -> bytes:
    """A lease that names no machine."""
    found = {**json.loads(content), "holder": "elsewhere process 1", "place": "elsewhere", "pid": 1}
    return json.dumps(found).encode()


def gallery() -> tuple[list[str], list[Any], list[Any]]:
    """Subjects, their embeddings as they are enrolled, and the same with probes for the bad ones.

    Three good captures a subject, and a fourth row that may be bad; the last subject has none that
    is good. One more row has no subject.
    """
    names = [f"s{number:03d}" for number in range(SUBJECTS) for _ in range(EACH)]
    good = captures(unit_vectors(SUBJECTS), EACH) * USED_DIRECTIONS
    enrolled: list[Any] = [list(map(float, vector)) for vector in good]
    for number in range(10):
        enrolled[EACH * number + 3] = None
    enrolled[EACH * 10 + 3] = enrolled[EACH * 10]
    enrolled[EACH * 11 + 3] = enrolled[0]
    enrolled[EACH * 12 + 3] = [float("nan")] * WIDTH
    enrolled[EACH * 13 + 3] = [0.0] * WIDTH
    enrolled[EACH * 14 + 3] = [1.0] * (WIDTH // 2)
    for row in range(EACH):
        enrolled[EACH * (SUBJECTS - 1) + row] = None
    hard = good + 0.8 * unit_vectors(len(good), seed=7) * USED_DIRECTIONS
    probes = [
        list(map(float, hard[row] if row % EACH == 3 else good[row])) for row in range(len(good))
    ]
    return [*names, ""], [*enrolled, list(map(float, good[0]))], probes


def parquet(subjects: Sequence[str], vectors: Sequence[Any]) -> bytes:
    sink = io.BytesIO()
    column = pa.array(vectors, pa.list_(pa.float32()))
    table = pa.table({"subject_id": list(subjects), "embedding": column})
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def upload(made: Made) -> None:
    """Upload what is compared, and what the smaller tables are made from."""
    names, enrolled, probes = gallery()
    made.put(PROBES, parquet(names[:-1], probes))
    few = [row for row in range(EACH * FEW) if row % EACH < EACH - 1]
    made.put(SMALL, parquet([names[row] for row in few], [enrolled[row] for row in few]))
    vectors = unit_vectors(320, seed=9) * USED_DIRECTIONS
    made.put(CALIBRATION, parquet([f"c{number:03d}" for number in range(320)], list(vectors)))


def complete(made: Made) -> None:
    """Two runs with a vault, the second over a longer file at the same address, and an evaluation.

    Some inputs failed, some are duplicates, one person has no template.
    """
    case, (names, enrolled, _) = BASE, gallery()
    some = EACH * FIRST
    made.put(SOURCE, parquet(names[:some], enrolled[:some]))
    made.ironmask(*made.enroll(case, "--vault"))
    made.put(SOURCE, parquet(names, enrolled))
    made.ironmask(*made.enroll(case, "--vault"))
    note(made, case, made.ironmask(*of_table(made, case, "scratch")))


def of_table(made: Made, case: str, out: str) -> tuple[str, ...]:
    """An evaluation of the templates of a table."""
    return (
        "evaluate", PROBES, f"s3://{BUCKET}/{out}/out", f"--table={made.table(case)}",
        made.keys(case), f"--seed={SEED}", "--executor=local", "--json",
    )  # fmt: skip


def note(made: Made, case: str, said: str) -> None:
    """Keep what an evaluation counted."""
    found = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    del found["files"]
    (made.folder / case).mkdir(exist_ok=True)
    (made.folder / case / "expected.json").write_text(json.dumps(found, indent=1))


def other_ways(made: Made) -> None:
    """Every encoding of helpers, and a table whose templates are filled."""
    for encoding in ENCODINGS:
        more = f"--encoding={encoding}", "--centring=regression"
        made.ironmask(*made.enroll(f"encoding_{encoding}", *more, source=SMALL))
    more = "--fill=0.1", f"--calibration={CALIBRATION}"
    made.ironmask(*made.enroll("filled", *more, source=SMALL))


def later_lives(made: Made) -> None:
    """What became of the complete table: renewed in every way, and without one person."""
    made.copy("renewed")
    place = made.table("renewed"), made.keys("renewed"), "--executor=local"
    for command in ("reprotect", "rekey", "rotate-mac"):
        made.ironmask(command, *place)
    made.copy("erased")
    made.ironmask("erase", made.table("erased"), made.keys("erased"), f"--subject={ERASED}")


def broken_off(made: Made) -> None:
    """What was killed: enrolments, re-protections, an erasure, evaluations."""
    # The third wave has its templates; its vault and its outcomes are not committed.
    half = Point("commit vault", BEFORE, 3)
    made.killed(half, *made.enroll("enrol_half_wave", "--vault"))
    # Two waves are committed, one shard is written, and of another one the templates.
    inside = Point("write file of templates", AFTER, 6)
    made.killed(inside, *made.enroll("enrol_in_a_shard"))
    for case, command, point in (
        ("reprotect_half_wave", "reprotect", Point("commit inputs", BEFORE, 3)),
        ("reprotect_switched", "reprotect", Point("commit generations", AFTER, 2)),
        ("reprotect_without_old_keys", "reprotect", Point("destroy keys", AFTER, 1)),
        ("rekey_half_wave", "rekey", Point("commit inputs", BEFORE, 3)),
        ("rotate-mac_switched", "rotate-mac", Point("commit generations", AFTER, 2)),
    ):
        made.copy(case)
        made.killed(point, command, made.table(case), made.keys(case), "--executor=local")
    made.copy("erase_half")
    half = Point("commit vault", BEFORE, 1)
    place = made.table("erase_half"), made.keys("erase_half")
    made.killed(half, "erase", *place, f"--subject={ERASED}")
    evaluations(made)


def evaluations(made: Made) -> None:
    """Two that were killed, and what they counted when they were continued.

    A step of an evaluation is watched as the writing of "keys": first what it is, then two files a
    block.
    """
    case = "evaluation"
    asked = (
        "evaluate", PROBES, f"s3://{BUCKET}/{case}/out", "--protocol=all", "--protocol=first:1",
        "--protocol=first:2", "--centring=mean", "--centring=regression", f"--alpha={ALPHA}",
        f"--tolerance={TOLERANCE}", "--executor=local", "--json",
    )  # fmt: skip
    made.killed(Point("write keys", AFTER, 6), *asked)
    finished(made, case, asked)
    case = "evaluation_of_a_table"
    made.copy(case)
    asked = of_table(made, case, case)
    made.killed(Point("write keys", AFTER, 2), *asked)
    finished(made, case, asked)


def finished(made: Made, case: str, asked: tuple[str, ...]) -> None:
    """Continue an evaluation, note what it counted, and leave it as it was before."""
    before = dict(made.objects(case))
    note(made, case, made.ironmask(*asked))
    for name, _ in list(made.objects(case)):
        if name not in before:
            made.s3.client().delete_object(Bucket=BUCKET, Key=f"{case}/{name}")
    for name, content in before.items():
        made.put(f"s3://{BUCKET}/{case}/{name}", content)


def everything(made: Made, out: Path) -> None:
    made.s3.client().create_bucket(Bucket=BUCKET)
    for part in (upload, complete, other_ways, later_lives, broken_off):
        part(made)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    cases = sorted(path.name for path in made.folder.iterdir() if path.is_dir())
    for case in ["inputs", *cases]:
        made.pack(case, out)


@contextmanager
def place() -> Iterator[Made]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with server(folder / "s3") as s3, driver(folder / "logs", **s3.environment()) as runs:
            (folder / "cases").mkdir()
            yield Made(s3, runs, folder / "cases")


if __name__ == "__main__":
    if version("ironmask") != VERSION:
        sys.exit(
            f"this is version {version('ironmask')}: tables of {VERSION} are made by {VERSION}"
        )
    with place() as where:
        everything(where, Path(__file__).with_name("v0_1"))
