"""Where ports meet what provides them: stores, tables and keys, each built once a process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from infra.keys.kept_keys import KeptKeys
from infra.keys.key_file import KeyFile
from infra.keys.keysets import TinkGenerationKeys
from infra.settings import StorageSettings
from infra.store.delta import DeltaTables
from infra.store.objects import FsspecStore
from ironmask.errors import KeyFileError, WrongKeyError
from pipelines.ports import GenerationKeys, Store, StoredTables
from pipelines.table.log_seal import LogSeal
from pipelines.table.seal_reader import SealReader
from pipelines.table.sealed import SealedTables

_log = logging.getLogger("ironmask.keys")
_KEPT: Final[KeptKeys[TinkGenerationKeys]] = KeptKeys()


def open_store(storage: StorageSettings) -> Store:
    return FsspecStore(storage)


def open_tables(dest: str, storage: StorageSettings) -> StoredTables:
    return DeltaTables(dest, storage.delta_options())


def keys(path: Path, table_id: str, generation: int) -> GenerationKeys:
    """Open a generation's keys."""
    return KeyFile.open(path, table_id).generation(generation)


def kept_keys(path: Path, table_id: str, generation: int) -> GenerationKeys:
    """The same for whoever does unit after unit: a key service is asked every few minutes only.

    The keyset file is read each time. Raises as `keys`.
    """
    return KeyFile.open(path, table_id).generation(generation, _KEPT)


def forget_keys() -> None:
    """Forget what `kept_keys` keeps in this process."""
    _KEPT.forget()


def log_seal_key_of(
    file: KeyFile, kept: KeptKeys[TinkGenerationKeys] | None = None
) -> Callable[[str], bytes]:
    """Finds the key of a seal by the id of the generation's keys that it names."""

    def find(key_id: str) -> bytes:
        for number, record in file.generations().items():
            if record.key_id == key_id:
                return file.generation(number, kept).log_seal_key()
        raise WrongKeyError(
            f"{file.path} holds no keys {key_id}, which the seal of its table names: name the "
            "right file with --keys"
        )

    return find


def log_seal(tables: StoredTables, store: Store, keys: GenerationKeys, file: KeyFile) -> LogSeal:
    """The seal of a destination that this process holds, begun. keys: of a new one.

    That it was written is noted in the keyset file; one that cannot be written stays as it is.
    Raises as `LogSeal.begin`.
    """
    seal = LogSeal(tables, store, keys, log_seal_key_of(file), file.has_seals)
    seal.begin()
    try:
        file.note_seals()
    except KeyFileError as error:
        _log.warning(
            "it is not noted in the keyset file that seals are written: an older seal that is put "
            "back may be believed; let the file be written once: %s",
            error,
        )
    return seal


@lru_cache(maxsize=4)
def shared_store(storage: tuple[tuple[str, Any], ...]) -> Store:
    """One store a process: its connections are kept, and what was read is known by it."""
    return open_store(StorageSettings(**dict(storage)))


def sealed(
    tables: StoredTables,
    store: Store,
    file: KeyFile,
    *,
    goes_on: bool = False,
    kept: KeptKeys[TinkGenerationKeys] | None = None,
) -> SealedTables:
    """The tables of a destination as far as its seal vouches for them. goes_on: for who is about to
    finish a run that was broken off. kept: where keys of a key service may be found.

    Raises `TableError` where the seal or a log was changed, `KeyStoreError` where its key is not in
    the keyset file.
    """
    key_of = log_seal_key_of(file, kept)
    source = SealReader(tables, store, key_of, file.has_seals, goes_on=goes_on)
    return SealedTables(tables, store, source)


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
    return sealed(tables, shared_store(storage), KeyFile.open(keys, table_id), kept=_KEPT)
