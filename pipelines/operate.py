"""What operators ask of a destination: its state, a check of it, and the removal of leftovers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from infra.keys import KeyFile
from infra.lease import holder, lease
from infra.settings import load as load_settings
from ironmask.errors import KeyNotFoundError
from pipelines import check as checking
from pipelines import status as stating
from pipelines import wiring
from pipelines.check import Report
from pipelines.check_shard import Scope
from pipelines.commit import destroy_orphans
from pipelines.ports import GenerationKeys
from pipelines.records import TABLES
from pipelines.start import existing, keys_path
from pipelines.status import Status


@dataclass(frozen=True)
class Vacuumed:
    """What a vacuum destroyed: data files that no log lists, and uploads that never ended."""

    dest: str
    files: int
    uploads: int


def status(dest: str) -> Status:
    """Say how far the newest run of a destination is."""
    _, storage = load_settings()
    tables = existing(dest, storage)
    store = wiring.open_store(storage)
    return stating.status(tables, store, holder(tables.dest, store))


def check(dest: str, keys: str | None, *, deep: bool, workers: int | None = None) -> Report:
    """Check that a destination is what was written. deep: open every helper as well."""
    settings, storage = load_settings()
    tables = existing(dest, storage)
    file = KeyFile.open(keys_path(keys, settings, tables), tables.table_id)
    live = [number for number, record in file.generations().items() if record.state == "live"]
    if not live:
        raise KeyNotFoundError(
            f"{file.path} holds no live keys, all were destroyed: name the right file with --keys"
        )
    opened = lru_cache(maxsize=None)(file.generation)
    newest: GenerationKeys = opened(max(live))
    store = wiring.open_store(storage)
    scope = Scope(tables, tables.table_id, store, opened, deep)
    return checking.check(scope, newest.seal_key(), workers)


def vacuum(dest: str) -> Vacuumed:
    """Destroy what killed tasks left behind. Raises `BusyError` while a run is under way."""
    _, storage = load_settings()
    tables = existing(dest, storage)
    store = wiring.open_store(storage)
    with lease(tables.dest, store) as held:
        files = destroy_orphans(tables, store, held)
        uploads = sum(store.abort_uploads(tables.table(name).uri) for name in TABLES)
    return Vacuumed(tables.dest, files, uploads)
