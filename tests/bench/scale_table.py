"""A table of many shards for measurements: its sources, and the files of its shards.

Shards have one input each. Their files are small but sound; a few hold real templates.
"""

from __future__ import annotations

import json
import secrets
import time
import uuid
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from support.enrolling import WIDTH, request, unit_vectors, write_vectors

from pipelines.enrolment import hold
from pipelines.enrolment import request as enrolment_request
from pipelines.plan.plans import Plan
from pipelines.ports import DataFile
from pipelines.run.template_run import TemplateRun
from pipelines.run.work import Standing
from pipelines.setup.worker import WorkerSpec, context, whole_shard
from pipelines.setup.workplace import ShardExecutor
from pipelines.shard.context import Context, ShardResult
from pipelines.shard.protect import publish, write_rows
from pipelines.shard.transit import Channel
from pipelines.spec.outcomes import Outcome
from pipelines.spec.template_job import TemplateJob
from pipelines.table.details import encrypted, table_keys
from pipelines.table.schemas import INPUTS

LATER: Final = 1000
ASIDE: Final[list[float]] = []
"""CPU seconds that are no part of a measurement."""
_WHOLE: Final = 16
_TOGETHER: Final = 256


@dataclass(frozen=True)
class Place:
    """A folder with one table, its keys and its sources. size: shards of its first enrolment."""

    folder: Path
    size: int

    @property
    def dest(self) -> str:
        return str(self.folder / "table")

    @property
    def keys(self) -> str:
        return str(self.folder / "keys.json")

    def source(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"

    @property
    def aside(self) -> Path:
        """Where data files wait until their shards are handed over: in a table, orphans go."""
        return self.folder / "aside"

    def made(self, name: str) -> Path:
        """Where it is written which files the shards of a source have."""
        return self.folder / f"{name}.json"

    def people(self, name: str) -> list[str]:
        count = self.size if name == "first" else LATER
        return [f"{name}-{number:07d}" for number in range(count)]


@dataclass(frozen=True)
class Step:
    """What is done with a table. take: does it. measured: whether it is the driver's own work."""

    take: Callable[[Place], None]
    measured: bool = True


def write_sources(place: Place) -> None:
    """Write stored embeddings, one of each person: of two enrolments, and of both together."""
    first, later = place.people("first"), place.people("later")
    vectors = unit_vectors(len(first) + len(later), 0, WIDTH)
    write_vectors(place.source("first"), first, vectors[: len(first)])
    write_vectors(place.source("later"), later, vectors[len(first) :])
    write_vectors(place.source("all"), first + later, vectors)


@contextmanager
def opened(place: Place, name: str) -> Iterator[TemplateRun]:
    asked = request(place.source(name), Path(place.dest), shard_size=1, keys=place.keys)
    start = time.process_time()
    prepared = enrolment_request.prepare(asked)
    # What a stolen row would be worth is found out in seconds, whatever the table's size.
    ASIDE.append(time.process_time() - start)
    with hold.opened(asked, prepared) as found:
        yield found


def make_files(place: Place, name: str) -> None:
    """Make the files of all shards of a planned enrolment, which wait for their commits."""
    with opened(place, name) as run:
        run.plan()
        assert isinstance(run.executor, ShardExecutor)
        make = partial(
            _make, run.executor.spec, replace(run.job, dest=str(place.aside)), run.frozen
        )
        shards = run.frozen.shards
        parts = [range(s, min(s + _TOGETHER, shards)) for s in range(0, shards, _TOGETHER)]
        with ProcessPoolExecutor(2) as pool, place.made(name).open("w") as out:
            for some in pool.map(make, parts):
                out.writelines(f"{line}\n" for line in some)


@dataclass(frozen=True)
class Made:
    """Hands over shards whose files are there. share: of all shards, from the first one."""

    place: Place
    name: str
    share: float
    standing: Standing = field(default_factory=Standing)

    def run(self, _job: TemplateJob, plan: Plan, shards: Iterable[int]) -> Iterator[ShardResult]:
        wanted = iter(shards)
        with self.place.made(self.name).open() as lines:
            shard = next(wanted, None)
            for number, line in islice(enumerate(lines), int(self.share * plan.shards)):
                if number == shard:
                    yield self._handed(json.loads(line))
                    shard = next(wanted, None)

    def _handed(self, said: dict[str, Any]) -> ShardResult:
        files = {name: DataFile(**file) for name, file in said["files"].items()}
        for name, file in files.items():
            target = Path(self.place.dest, name, file.path)
            target.parent.mkdir(exist_ok=True)
            (self.place.aside / name / file.path).rename(target)
        outcomes = Counter({(Outcome.USED.value, ""): 1})
        own = {"attempt": said["attempt"], "rows": b64decode(said["rows"])}
        return ShardResult(said["shard"], files, outcomes, 1, {"protect": 0.0}, **own)


def _make(spec: WorkerSpec, job: TemplateJob, plan: Plan, shards: range) -> list[str]:
    """Make the files of some shards; returns what is handed over of each, as JSON."""
    around = context(spec, job, plan)
    whole = whole_shard(spec, job, plan, shards[0])
    issued = Path(job.dest, "templates", whole.files["templates"].path)
    settled = Channel(around.keys, plan.run_id, whole.shard).rows(whole.rows)
    rows = {
        "templates": pq.ParquetFile(issued).read().to_pylist()[0],
        "inputs": settled.to_pylist()[0],
    }
    every = max(1, plan.shards // _WHOLE)
    made = [whole]
    for shard in shards[1:]:
        made.append(
            whole_shard(spec, job, plan, shard)
            if shard % every == 0
            else _copied(around, shard, rows)
        )
    return [json.dumps(_said(one)) for one in made]


def _said(made: ShardResult) -> dict[str, Any]:
    """What is handed over of a shard."""
    files = {name: asdict(file) for name, file in made.files.items()}
    rows = b64encode(made.rows).decode()
    return {"shard": made.shard, "files": files, "attempt": made.attempt, "rows": rows}


def _copied(around: Context, shard: int, rows: dict[str, dict[str, Any]]) -> ShardResult:
    """Write the templates of a shard with rows of another one under their own names."""
    (planned,) = around.plan.shard(shard, around.store)
    attempt = secrets.token_hex(8)
    own = {"subject_id": planned["subject_id"], "shard": shard}
    template = {
        **rows["templates"],
        **own,
        "template_id": str(uuid.uuid4()),
        "source_uris": [planned["uri"]],
        "helper": b"",
        "enrolled_at": datetime.now(UTC),
    }
    sink = pa.BufferOutputStream()
    ids = write_rows(sink, [[template]])
    content = memoryview(sink.getvalue())
    outcome = {**rows["inputs"], **own, "uri": planned["uri"], "identities": [planned["content"]]}
    facts = {"contents": [planned["content"]]}
    outcome["details"] = encrypted(around.table_id, outcome, facts, table_keys(around.keys))
    channel = Channel(around.keys, around.plan.run_id, shard)
    settled = channel.settled(pa.Table.from_pylist([outcome], INPUTS))
    files = {"templates": publish(around, "templates", shard, attempt, content, ids)}
    return ShardResult(shard, files, Counter(), 1, {}, attempt=attempt, rows=settled)
