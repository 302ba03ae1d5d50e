"""What operators ask of a destination: its state, a check of it, and the removal of leftovers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from infra.keys import KeyFile
from infra.lease import holder, lease
from infra.settings import load as load_settings
from ironmask.errors import KeyNotFoundError
from pipelines import check as checking
from pipelines import destruction, erasure, generations, reprotect, seal, wiring
from pipelines import erase as erasing
from pipelines import status as stating
from pipelines.check import Report
from pipelines.check_shard import Scope
from pipelines.commit import destroy_orphans
from pipelines.destruction import Proof
from pipelines.erase import Erased
from pipelines.evidence import Evidence
from pipelines.places import existing, keys_path
from pipelines.records import TABLES
from pipelines.reprotect_request import opened_live
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
    states = _key_states(file)
    if not any(has_keys for _, has_keys in states.values()):
        raise KeyNotFoundError(
            f"{file.path} holds no live keys, all were destroyed: name the right file with --keys"
        )
    opened = lru_cache(maxsize=None)(file.generation)
    store = wiring.open_store(storage)
    scope = Scope(tables, tables.table_id, store, opened, deep, states)
    return checking.check(scope, wiring.seal_key_of(file), workers)


def _key_states(file: KeyFile) -> dict[int, tuple[str, bool]]:
    """Key id of each generation in a keyset file, and whether it holds its keys."""
    return {
        number: (record.key_id, record.state == "live")
        for number, record in file.generations().items()
    }


def prove(
    dest: str, keys: str | None, *, generation: int | None = None, subject: str = ""
) -> Evidence:
    """Look for what a destroyed generation, or an erased person, must not have left."""
    settings, storage = load_settings()
    tables = existing(dest, storage)
    file = KeyFile.open(keys_path(keys, settings, tables), tables.table_id)
    store = wiring.open_store(storage)
    if generation is None:
        live = file.generation(generations.live(tables))
        found = erasure.prove(tables, store, subject, live.content_key())
    else:
        found = destruction.prove(tables, store, generation, _key_states(file))
    state = seal.read(tables.dest, store, wiring.seal_key_of(file))
    broken = list(seal.broken_logs(tables, store, state)) if state else ["there is no seal"]
    told = f" ({'; '.join(broken)})" if broken else ""
    return found.found([(f"the logs that say so are those that were sealed{told}", not broken)])


def abandon(dest: str, keys: str | None) -> Proof:
    """Give up the generation that is being prepared."""
    with opened_live(dest, keys) as (held, keyring):
        return reprotect.abandon(held, keyring)


def erase(dest: str, subject: str, keys: str | None) -> Erased:
    """Destroy everything that a destination holds of a person, but for the outcomes."""
    with opened_live(dest, keys) as (held, _):
        return erasing.erase(held, subject)


def vacuum(dest: str) -> Vacuumed:
    """Destroy what killed tasks left behind. Raises `BusyError` while a run is under way."""
    _, storage = load_settings()
    tables = existing(dest, storage)
    store = wiring.open_store(storage)
    with lease(tables.dest, store) as held:
        files = destroy_orphans(tables, store, held)
        uploads = sum(store.abort_uploads(tables.table(name).uri) for name in TABLES)
    return Vacuumed(tables.dest, files, uploads)
