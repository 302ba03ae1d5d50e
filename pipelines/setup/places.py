"""Where a destination's tables and keys are, for commands that need no more: little is imported."""

from __future__ import annotations

import os
from pathlib import Path

from infra.keys.kek import LOCAL
from infra.keys.key_file import KekRotation, KeyFile
from infra.keys.paths import default_keys_path
from infra.settings import Settings, StorageSettings
from infra.settings import load as load_settings
from infra.store.addresses import is_inside, table_address
from infra.store.delta import DeltaTables
from ironmask.errors import KeyNotFoundError, ParameterError, TableError
from pipelines.ports import StoredTables, Tables
from pipelines.spec.addresses import without_secret
from pipelines.table import layout
from pipelines.table.layout import FIRST_GENERATION


def existing(dest: str, storage: StorageSettings) -> StoredTables:
    """The tables of a destination. Raises `TableError` where there are none."""
    tables = DeltaTables(table_address(dest), storage.delta_options())
    if not tables.exist():
        raise TableError(f"{tables.dest} holds no table: enrol into it first")
    return tables


def keys_path(given: str | None, settings: Settings, tables: Tables) -> Path:
    """Where a table's keys lie; never inside the table's own folder."""
    path = expanded(given or settings.keys or default_keys_path(tables.table_id))
    check_outside(path, tables.dest)
    return path


def vault_keys(given: str | None, keys: Path, tables: Tables, kek: str | None = None) -> Path:
    """Where the keys of a table's vault lie; they are made where there are none.

    Raises `ParameterError` for a place inside the table, or for the file of the templates' keys.
    """
    path = _vault_place(given, keys, tables.dest)
    if not path.exists() and tables.table("vault").files():
        raise KeyNotFoundError(
            f"no keyset file of the vault at {path}: name it with --vault-keys; without it nothing "
            "in the vault can be opened"
        )
    name = layout.vault_id(tables.table_id)
    file = KeyFile.open(path, name) if path.exists() else KeyFile.create(path, name, kek or LOCAL)
    if FIRST_GENERATION not in file.generations():
        file.add_generation(FIRST_GENERATION)
    return path


def rehearse_vault_keys(given: str | None, keys: Path, dest: str, kek: str | None) -> None:
    """Raise as `vault_keys` would, and write nothing."""
    path = _vault_place(given, keys, dest)
    if not path.exists():
        KeyFile.rehearse(path, kek or LOCAL)


def _vault_place(given: str | None, keys: Path, dest: str) -> Path:
    path = vault_keys_path(given, keys)
    check_outside(path, dest)
    if path == keys:
        raise ParameterError(f"{path} holds the keys of the templates: keep the vault's apart")
    return path


def vault_keys_path(given: str | None, keys: Path) -> Path:
    """Where the keys of a vault lie: beside those of the templates unless a place is named."""
    return expanded(given) if given else keys.with_name(f"{keys.stem}.vault.json")


def expanded(path: str | Path) -> Path:
    """A path without `~` and relative parts."""
    return Path(os.path.abspath(os.path.expanduser(without_secret(str(path), "the path"))))


def check_outside(path: Path, dest: str) -> None:
    """Raise `ParameterError` for a keyset file that would lie inside its table."""
    if is_inside(str(path), dest):
        raise ParameterError(
            f"the keyset file {path} would lie inside the table {dest}: whoever copies the "
            "table would have its keys; keep it elsewhere"
        )


def rotate_kek(dest: str, kek: str | None, keys: str | None, *, vault: bool = False) -> KekRotation:
    """Wrap a table's keysets with another key-encryption key; no data file is touched.

    vault: those of its vault, in the file that `keys` names or beside the templates'.
    """
    settings, storage = load_settings()
    tables = existing(dest, storage)
    path, name = keys_path(None if vault else keys, settings, tables), tables.table_id
    if vault:
        path, name = vault_keys_path(keys, path), layout.vault_id(name)
    file = KeyFile.open(path, name)
    return file.rotate_kek(without_secret(kek, "--kek") if kek else None)
