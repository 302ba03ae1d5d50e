"""What operators ask of a destination: its state, a check of it, and the removal of leftovers."""

from __future__ import annotations

from functools import lru_cache

from infra.keys.key_file import KeyFile
from infra.settings import load as load_settings
from infra.store.lease import holder
from ironmask.errors import KeyNotFoundError
from pipelines.operations import check as checking
from pipelines.operations import erase as erasing
from pipelines.operations import status as stating
from pipelines.operations.check import Report
from pipelines.operations.check_shard import Scope
from pipelines.operations.prove import key_states
from pipelines.operations.status import Status
from pipelines.setup import ports
from pipelines.setup.hold import hold_live
from pipelines.setup.places import existing, keys_path
from pipelines.table.erasing import Erased


def status(dest: str) -> Status:
    """Say how far the newest run of a destination is."""
    _, storage = load_settings()
    tables = existing(dest, storage)
    store = ports.open_store(storage)
    return stating.status(tables, store, holder(tables.dest, store))


def check(dest: str, keys: str | None, *, deep: bool, workers: int | None = None) -> Report:
    """Check that a destination is what was written. deep: open every helper as well."""
    settings, storage = load_settings()
    tables = existing(dest, storage)
    file = KeyFile.open(keys_path(keys, settings, tables), tables.table_id)
    states = key_states(file)
    if not any(has_keys for _, has_keys in states.values()):
        raise KeyNotFoundError(
            f"{file.path} holds no live keys, all were destroyed: name the right file with --keys"
        )
    opened = lru_cache(maxsize=None)(file.generation)
    store = ports.open_store(storage)
    scope = Scope(tables, tables.table_id, store, opened, deep, states)
    return checking.check(scope, ports.log_seal_key_of(file), file.has_seals, workers)


def erase(dest: str, subject: str, keys: str | None) -> Erased:
    """Destroy everything that a destination holds of a person, but for the outcomes."""
    with hold_live(dest, keys) as (held, _):
        return erasing.erase(held, subject)
