"""What the seal adds to a verification, in reads and milliseconds, however long the logs are."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from deltalake import DeltaTable
from support.enrolling import request, run, several, unit_vectors
from support.table import generation_keys, keys_of, open_tables

from infra.keys.key_file import KeyFile
from infra.store.objects import FsspecStore
from pipelines.setup import ports
from pipelines.table import layout, log_chain, log_seal_file, read
from pipelines.table.layout import ShardFile
from pipelines.table.log_seal import LogSeal
from pipelines.verification import probe
from pipelines.verification.verifier import Verifier

from .table import Row, compare

SUBJECTS = 64
ENTRIES = (10, 10_000)
_TABLES = ("templates", "inputs")
_BETWEEN_CHECKPOINTS = 100
_SHA = "0" * 64


class Counting(FsspecStore):
    """A store that counts its requests."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def read(self, uri: str, limit: int | None = None) -> bytes:
        self.count += 1
        return super().read(uri, limit)

    def part(self, uri: str, start: int, end: int) -> bytes:
        self.count += 1
        return super().part(uri, start, end)

    def after(self, uri: str, name: str) -> list[str]:
        self.count += 1
        return super().after(uri, name)


def lengthened(dest: Path, entries: int) -> None:
    """Let the logs have so many entries, of files that nobody reads, and seal them."""
    for name in _TABLES:
        folder = dest / name / "_delta_log"
        first = len(list(folder.glob("*.json")))
        for version in range(first, entries):
            (folder / log_chain.entry_name(version)).write_text(_entry(name, version))
            if version % _BETWEEN_CHECKPOINTS == 0:
                DeltaTable(str(dest / name), version=version).create_checkpoint()
    keys, store = generation_keys(dest), FsspecStore()
    found = log_seal_file.read(str(dest), store, lambda _: keys.log_seal_key())
    assert found
    # As one of a release that announced nothing: what follows it is taken in.
    before = replace(found, lists={}, announced=(), open=True)
    log_seal_file.write(before, str(dest), store, keys.log_seal_key())
    seal = LogSeal(open_tables(dest), store, keys)
    seal.begin()
    seal.end()


def _entry(name: str, version: int) -> str:
    file = ShardFile("f" * 12, version, f"{version:016x}", _SHA).name
    partition = {"generation": "1"} if name == "templates" else {}
    person = f"z{version:06d}"
    stats = {"numRecords": 1, "minValues": {"subject_id": person}, "nullCount": {}}
    add = {
        "path": layout.in_partition(partition, file),
        "partitionValues": partition,
        "size": 1,
        "modificationTime": 0,
        "dataChange": True,
        "stats": json.dumps({**stats, "maxValues": {"subject_id": person}}),
    }
    txn = {"appId": f"bench/{name}", "version": version}
    return f"{json.dumps({'add': add})}\n{json.dumps({'txn': txn})}\n"


def verification() -> list[Row]:
    rows = []
    for entries in ENTRIES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            run(request(several(folder / "e.parquet", SUBJECTS), folder / "dest"))
            lengthened(folder / "dest", entries)
            rows += _of(folder / "dest", entries)
    return rows


def _verifier(dest: Path, store: FsspecStore) -> Verifier:
    """A verifier whose requests go through a store of ours."""
    with patch.object(ports, "open_store", lambda _: store):
        return Verifier(str(dest), str(keys_of(dest)))


def _of(dest: Path, entries: int) -> list[Row]:
    file = KeyFile.open(keys_of(dest), open_tables(dest).table_id)
    probes = unit_vectors(SUBJECTS)[3:4]

    def sealed(store: FsspecStore) -> Callable[[], object]:
        def once() -> object:
            return _verifier(dest, store).verify_embeddings("s003", probes)

        return once

    def plain() -> Callable[[], object]:
        tables = open_tables(dest)

        def once() -> object:
            row = read.find_row(tables, "s003")
            return probe.verify_embeddings(file.table_id, row, probes, file.generation(1))

        return once

    counting = Counting()
    sealed(counting)()
    in_all = counting.count
    kept = Counting()
    held, plain_held = _verifier(dest, kept), plain()
    held.verify_embeddings("s003", probes)
    kept.count = 0

    def again() -> object:
        held.refresh()
        return held.verify_embeddings("s003", probes)

    again()
    words = f"{entries:,} log entries"
    return [
        compare(
            f"verify once, {words}, {in_all} requests",
            sealed(FsspecStore()),
            "the same from unsealed tables",
            lambda: plain()(),
            repeat=1,
        ),
        compare(
            f"held verifier, {words}, {kept.count} requests",
            again,
            "tables held, unsealed",
            plain_held,
            repeat=1,
        ),
    ]
