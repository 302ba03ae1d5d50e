"""Where ports meet what provides them: stores, tables and keys, each built once a process."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from infra.keys.key_file import KeyFile
from infra.settings import StorageSettings
from infra.store.delta import DeltaTables
from infra.store.objects import FsspecStore
from ironmask.errors import WrongKeyError
from pipelines.ports import GenerationKeys, Store, StoredTables
from pipelines.table.sealed import SealedTables


def open_store(storage: StorageSettings) -> Store:
    return FsspecStore(storage)


def open_tables(dest: str, storage: StorageSettings) -> StoredTables:
    return DeltaTables(dest, storage.delta_options())


def keys(path: Path, table_id: str, generation: int) -> GenerationKeys:
    """Open a generation's keys."""
    return KeyFile.open(path, table_id).generation(generation)


def log_seal_key_of(file: KeyFile) -> Callable[[str], bytes]:
    """Finds the key of a seal by the id of the generation's keys that it names."""

    def find(key_id: str) -> bytes:
        for number, record in file.generations().items():
            if record.key_id == key_id:
                return file.generation(number).log_seal_key()
        raise WrongKeyError(
            f"{file.path} holds no keys {key_id}, which the seal of its table names: name the "
            "right file with --keys"
        )

    return find


@lru_cache(maxsize=4)
def shared_store(storage: tuple[tuple[str, Any], ...]) -> Store:
    """One store a process: its connections are kept, and what was read is known by it."""
    return open_store(StorageSettings(**dict(storage)))


def sealed(
    tables: StoredTables, store: Store, file: KeyFile, *, goes_on: bool = False
) -> SealedTables:
    """The tables of a destination as far as its seal vouches for them. goes_on: for who is about to
    finish a run that was broken off.

    Raises `TableError` where the seal or a log was changed, `KeyStoreError` where its key is not in
    the keyset file.
    """
    return SealedTables.of(tables, store, log_seal_key_of(file), goes_on=goes_on)


def shared_tables(
    dest: str, storage: tuple[tuple[str, Any], ...], keys: Path, table_id: str
) -> SealedTables:
    """The sealed tables of a destination, once a process, as of now. keys: its keyset file."""
    found = _kept_tables(dest, storage, keys, table_id)
    found.refresh()
    return found


@lru_cache(maxsize=4)
def _kept_tables(
    dest: str, storage: tuple[tuple[str, Any], ...], keys: Path, table_id: str
) -> SealedTables:
    tables = open_tables(dest, StorageSettings(**dict(storage)))
    return sealed(tables, shared_store(storage), KeyFile.open(keys, table_id))
