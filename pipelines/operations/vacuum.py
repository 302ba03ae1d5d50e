"""What killed tasks left behind is destroyed."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.setup.hold import hold_live
from pipelines.table.orphans import destroy_orphans
from pipelines.table.schemas import TABLES


@dataclass(frozen=True)
class Vacuumed:
    """What a vacuum destroyed: data files that no log lists, and uploads that never ended."""

    dest: str
    files: int
    uploads: int


def vacuum(dest: str, keys: str | None) -> Vacuumed:
    """Destroy what killed tasks left behind. keys: path of the table's keyset file.

    Nothing is taken for left behind on the word of a log that the seal does not vouch for. Raises
    `BusyError` while a run is under way, `TableError` where a log was changed.
    """
    with hold_live(dest, keys) as (held, _):
        files = destroy_orphans(held.tables, held.store, held.check)
        addresses = [held.tables.table(name).uri for name in TABLES]
        uploads = sum(held.store.abort_uploads(uri) for uri in addresses)
        held.log_seal.end()
    return Vacuumed(held.tables.dest, files, uploads)
