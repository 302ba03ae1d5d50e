"""Lost files leave the table for good, and the inputs of their people say so.

First the outcomes change, then the logs list the files no more, then every version of them is
destroyed. A kill between two of these leaves files that are lost still, so the next call finds them
again and goes on.
"""

from __future__ import annotations

from functools import reduce
from hashlib import sha256
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from ironmask.errors import StorageError
from pipelines.ports import DataFile
from pipelines.repairing.damage import Damage, LostFile, examined
from pipelines.shard.copies import copied
from pipelines.spec.outcomes import Reason
from pipelines.table import contents, layout, run_records, waves
from pipelines.table.data_files import read_data_file
from pipelines.table.held import Destination
from pipelines.table.log_entries import Commit
from pipelines.table.orphans import destroy_orphans
from pipelines.table.run_records import RunRecord, RunState

KIND: Final = "take-out"
_APPLICATION: Final = "take-out"
Changes = tuple[list[DataFile], list[str]]
"""Files that come, and paths that go."""


def take_out(dest: Destination, damage: Damage) -> int:
    """Take lost files out of the table and destroy all versions of them.

    Rows that are still what was written stay, in a file of their own. Returns how many people lost
    theirs. Raises `TableError` where it cannot be told whose a file was; then nothing is changed.
    """
    by_attempt = waves.by_attempt(dest.tables, dest.store)
    for path in damage.templates:
        examined(dest.tables, dest.store, path, by_attempt)
    _record(dest, damage)
    marks: dict[str, list[tuple[int, frozenset[str]]]] = {}
    templates: Changes = [], []
    lost: set[str] = set()
    for path in damage.templates:
        file = examined(dest.tables, dest.store, path, by_attempt)
        lost |= file.people
        marks.setdefault(file.inputs, []).append((file.shard, file.people))
        _keep_sound(dest, file, templates)
    inputs: Changes = [], []
    for path, people in marks.items():
        _mark(dest, path, people, inputs)
    dest.commit(
        _commit(dest, "inputs", inputs),
        _commit(dest, "templates", templates),
        _commit(dest, "vault", ([], damage.vault)),
    )
    dest.log_seal.extend()
    destroy_orphans(dest.tables, dest.store, dest.check)
    _refuse_remains(dest, {"templates": templates[1], "vault": damage.vault})
    return len(lost)


def _commit(dest: Destination, name: str, changes: Changes) -> Commit:
    sequence = dest.sequence(name, _APPLICATION) + 1
    return Commit(name, changes[0], _APPLICATION, sequence, changes[1])


def _record(dest: Destination, damage: Damage) -> None:
    """Say under the seal which files are lost, once however often it is tried."""
    paths = {"templates": damage.templates, "vault": damage.vault}
    digest = sha256("\n".join(sorted(damage.templates + damage.vault)).encode()).hexdigest()
    counts = dest.tables.table("templates").counts()
    entry = RunRecord(
        run_id=digest[:12],
        kind=KIND,
        state=RunState.COMPLETE,
        fingerprint={},
        config=paths,
        versions={},
        counts={
            "files": len(damage.templates),
            "templates": sum(counts[path] for path in damage.templates),
            "embeddings": damage.embeddings,
        },
        timings={},
    )
    run_records.write(dest, entry, once=f"{KIND}/{digest}")


def _mark(
    dest: Destination, path: str, lost: list[tuple[int, frozenset[str]]], changes: Changes
) -> None:
    """Let the inputs in a file of people who lost their template say so. lost: people by shard."""
    rows = read_data_file(dest.tables.dest, dest.store, "inputs", path)
    mine = reduce(pc.or_, (_are(rows, shard, people) for shard, people in lost))
    mask = pc.and_(contents.is_used(rows), mine)
    if not pc.any(mask).as_py():
        return
    place = rows.schema.get_field_index("reason")
    reasons = pc.if_else(mask, Reason.LOST.value, rows["reason"])
    new = copied(dest, "inputs", path, rows.set_column(place, rows.schema.field(place), reasons))
    assert new is not None  # noqa: S101
    changes[0].append(new)
    changes[1].append(path)


def _are(rows: pa.Table, shard: int, people: frozenset[str]) -> pa.ChunkedArray:
    """Which inputs are of some people of a shard."""
    theirs = pc.is_in(rows["subject_id"], pa.array(sorted(people), pa.string()))
    return pc.and_(pc.equal(rows["shard"], shard), theirs)


def _keep_sound(dest: Destination, file: LostFile, changes: Changes) -> None:
    """Write what is sound of a file as another one in its place."""
    new = None if file.sound is None else copied(dest, "templates", file.path, file.sound)
    if new and new.path == file.path:
        # No row was lost: it is what was written again.
        return
    changes[0].extend([new] if new else [])
    changes[1].append(file.path)


def _refuse_remains(dest: Destination, gone: dict[str, list[str]]) -> None:
    """Raise `StorageError` where a version of a lost file survives."""
    for name, paths in gone.items():
        base = dest.tables.table(name).uri
        wanted = {layout.join(base, path) for path in paths}
        if wanted and (left := [uri for uri in dest.store.remains(base) if uri in wanted]):
            raise StorageError(
                f"{left[0]} is still there after its deletion, and {len(left) - 1:,} others: check "
                "whether the bucket locks objects or denies s3:DeleteObjectVersion, and run "
                "`ironmask vacuum`"
            )
