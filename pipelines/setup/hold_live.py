"""A table with a live generation, held for a change of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from infra.keys.key_file import KeyFile
from infra.settings import load as load_settings
from infra.store.lease import lease
from ironmask.errors import WrongKeyError
from pipelines.ports import GenerationKeys, Keyring
from pipelines.setup import places, ports
from pipelines.table import generations
from pipelines.table.generations import Generation
from pipelines.table.held import Destination


def own_keys(file: KeyFile, found: dict[int, Generation], number: int) -> GenerationKeys:
    keys = file.generation(number)
    if number in found and found[number].key_id != keys.key_id:
        raise WrongKeyError(
            f"{file.path} holds key {keys.key_id} for generation {number}, and the table names "
            f"{found[number].key_id}: name the right file with --keys"
        )
    return keys


@contextmanager
def opened_live(dest: str, keys: str | None) -> Iterator[tuple[Destination, Keyring]]:
    """Hold a destination without any work for shards: its lease, its live keys, its seal."""
    settings, storage = load_settings()
    tables = places.existing(dest, storage)
    store = ports.open_store(storage)
    file = KeyFile.open(places.keys_path(keys, settings, tables), tables.table_id)
    with lease(tables.dest, store) as check:
        file.add_table()
        found = generations.read(ports.sealed(tables, store, file))
        live = own_keys(file, found, generations.live_of(found))
        seal = ports.log_seal(tables, store, live, file)
        yield Destination(seal.tables, store, live, check, seal), file
