"""Entries and checkpoints that somebody with write access adds to a log, and what is asked then."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.transaction import AddAction, RemoveAction

from infra.settings import StorageSettings
from infra.store.delta import DeltaTables
from infra.store.objects import FsspecStore
from pipelines.table import layout
from pipelines.table.schemas import TABLES
from support.command import Answer, ironmask
from support.enrolling import ALPHA, TOLERANCE

BESIDE_THE_SEAL = "not checked against the seal"


@dataclass(frozen=True)
class Place:
    """A destination on disk or in a bucket, its keyset file and its source; out: for reports."""

    dest: str
    keys: Path
    source: str
    out: Path

    @cached_property
    def store(self) -> FsspecStore:
        return FsspecStore(StorageSettings())

    def delta(self, name: str) -> DeltaTable:
        options = StorageSettings().delta_options()
        return DeltaTable(layout.join(self.dest, name), storage_options=options)

    def log(self, name: str, file: str) -> str:
        return layout.join(self.dest, name, "_delta_log", file)

    def data(self) -> set[str]:
        """Every data file that is there, whatever lists it."""
        found = (uri for name in TABLES for uri in self.store.remains(layout.join(self.dest, name)))
        return {uri for uri in found if "_delta_log" not in uri}

    def state(self) -> dict[str, bytes]:
        """All that is there, by address."""
        return {entry.uri: self.store.read(entry.uri) for entry in self.store.entries(self.dest)}

    def restore(self, before: dict[str, bytes]) -> None:
        """Undo what somebody did since."""
        now = self.state()
        self.store.delete([uri for uri in now if uri not in before])
        for uri, content in before.items():
            if now.get(uri) != content:
                self.store.write(uri, content)

    def listed(self, name: str) -> dict[str, int]:
        """What readers find that know nothing of seals."""
        return DeltaTables(self.dest, StorageSettings().delta_options()).table(name).files()


def _commit(place: Place, name: str, actions: list[Any]) -> None:
    table = place.delta(name)
    partition_by = TABLES[name][1]
    properties = CommitProperties(app_transactions=[Transaction("somebody", 1)])
    table.create_write_transaction(
        actions, "append", table.schema(), partition_by, commit_properties=properties
    )


def remove(place: Place, name: str) -> None:
    """Take a live file out of sight."""
    path, size = next(iter(place.listed(name).items()))
    _commit(
        place,
        name,
        [
            RemoveAction(
                path=path,
                deletion_timestamp=0,
                data_change=True,
                partition_values=_partition(path),
                size=size,
            )
        ],
    )


def add(place: Place, name: str) -> None:
    """Put a copy of a live file into sight."""
    path = next(iter(place.listed(name)))
    content = place.store.read(layout.join(place.dest, name, path))
    file = layout.parse_shard_file(path)
    old = file.attempt if file else path.split("-")[1]
    new = path.replace(old, ("ab" * 8)[: len(old)])
    place.store.write(layout.join(place.dest, name, new), content)
    stats = json.dumps({"numRecords": 1, "minValues": {}, "maxValues": {}, "nullCount": {}})
    _commit(place, name, [AddAction(new, len(content), _partition(path), 0, True, stats)])


def _partition(path: str) -> dict[str, str | None]:
    generation = layout.generation_of(path)
    return {} if generation is None else {"generation": str(generation)}


def metadata(place: Place, name: str) -> None:
    """Change a property of the table."""
    place.delta(name).alter.set_table_properties({"some.body": "was here"}, False)


def checkpoint(place: Place, name: str) -> None:
    """Put a higher checkpoint, in which a live file is missing, and point to it."""
    store, table = place.store, place.delta(name)
    version = table.version()
    pointer, own = place.log(name, "_last_checkpoint"), _checkpoint(version)
    before = {uri: store.read(uri) for uri in (pointer, place.log(name, own)) if store.exists(uri)}
    table.create_checkpoint()
    made = pq.read_table(io.BytesIO(store.read(place.log(name, own))))
    hint = json.loads(store.read(pointer))
    store.delete([pointer, place.log(name, own)])
    for uri, content in before.items():
        store.write(uri, content)
    first = next(n for n, row in enumerate(made["add"].to_pylist()) if row)
    kept = [n for n in range(len(made)) if n != first]
    content = io.BytesIO()
    pq.write_table(made.take(pa.array(kept)), content)
    store.write(place.log(name, _checkpoint(version + 5)), content.getvalue())
    store.write(pointer, json.dumps({**hint, "version": version + 5}).encode())


def _checkpoint(version: int) -> str:
    return f"{version:020d}.checkpoint.parquet"


FORGERIES: dict[str, Callable[[Place, str], None]] = {
    "remove": remove,
    "add": add,
    "metadata": metadata,
    "checkpoint": checkpoint,
}


def commands(place: Place) -> dict[str, list[str]]:
    """Every command that reads a table: the ones with keys first, then those without."""
    dest, keys = place.dest, f"--keys={place.keys}"
    settings = [f"--alpha={ALPHA}", f"--tolerance={TOLERANCE}", "--executor=local"]
    return {
        "enroll": ["enroll", place.source, dest, keys, *settings],
        "enroll --dry-run": ["enroll", place.source, dest, keys, *settings, "--dry-run"],
        "verify": ["verify", dest, "probe.jpg", "--subject=s000", "--model=none", keys],
        "evaluate --table": [
            "evaluate", place.source, str(place.out / "evaluation"), f"--table={dest}", keys,
            "--executor=local",
        ],
        "audit": [
            "audit", dest, f"--calibration={place.source}", f"--out={place.out / 'audit'}", keys,
            "--executor=local", "--seconds=1", "--sample=1",
        ],
        "failures": ["failures", dest, keys],
        "repair": ["repair", dest, f"--source={place.source}", keys, "--executor=local"],
        "check": ["check", dest, keys],
        "vacuum": ["vacuum", dest, keys],
        "reprotect": ["reprotect", dest, keys, "--executor=local"],
        "rekey": ["rekey", dest, keys, "--executor=local"],
        "rotate-mac": ["rotate-mac", dest, keys, "--executor=local"],
        "erase": ["erase", "--yes", dest, "--subject=s001", keys],
        "prove": ["prove", dest, "--subject=nobody", keys],
        "inspect": ["inspect", dest],
        "status": ["status", dest],
    }  # fmt: skip


WITHOUT_KEYS = ("inspect", "status")


def asked(place: Place, command: str) -> Answer:
    """The answer to a command."""
    return ironmask(*commands(place)[command])


def wrong(place: Place, command: str, reason: str) -> str:
    """What is wrong with a command's answer to a table that was forged; nothing, as it should be.

    A command that has keys refuses with the reason, or says it as a finding; one that has none
    says that it looked at no seal.
    """
    before = place.data()
    answer = asked(place, command)
    said = " ".join((answer.out + answer.err).split())
    if before - place.data():
        return f"{command} destroyed {sorted(before - place.data())}"
    if command in WITHOUT_KEYS:
        is_said = BESIDE_THE_SEAL in said
        return "" if is_said or answer.code else f"{command} did not say that it is not checked"
    if answer.code != 1 or reason not in said:
        return f"{command} ended with {answer.code}: {said}"
    return ""
