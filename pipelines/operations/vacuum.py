"""What killed tasks left behind is destroyed."""

from __future__ import annotations

from dataclasses import dataclass

from infra.settings import load as load_settings
from infra.store.lease import lease
from pipelines.setup import ports
from pipelines.setup.places import existing
from pipelines.table.orphans import destroy_orphans
from pipelines.table.schemas import TABLES


@dataclass(frozen=True)
class Vacuumed:
    """What a vacuum destroyed: data files that no log lists, and uploads that never ended."""

    dest: str
    files: int
    uploads: int


def vacuum(dest: str) -> Vacuumed:
    """Destroy what killed tasks left behind. Raises `BusyError` while a run is under way."""
    _, storage = load_settings()
    tables = existing(dest, storage)
    store = ports.open_store(storage)
    with lease(tables.dest, store) as held:
        files = destroy_orphans(tables, store, held)
        uploads = sum(store.abort_uploads(tables.table(name).uri) for name in TABLES)
    return Vacuumed(tables.dest, files, uploads)
