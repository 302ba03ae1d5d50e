"""The keyset file of a table: JSON that only its owner may read, always replaced whole.

::

    {"format": "ironmask-keys/1", "table_id": ..., "kek": {"uri": ..., "keyset": ...},
     "generations": {"1": {"key_id": ..., "salt": ..., "state": "live", "helpers": "sealed",
                           "data": ..., "prf": [...], "shuffle": null,
                           "made_at": ..., "destroyed_at": null}}}

`helpers` says whether the generation's helpers are encrypted; no row says so. `data` is the
AES-256-GCM keyset that encrypts helpers. `prf` holds one or more HMAC-SHA-256 keysets, oldest
first: they give every row its digest key. `shuffle` is a keyset that gives every row the key of its
shuffle. The key-encryption key (KEK) encrypts all of them and binds them to table, generation,
purpose, `helpers` and the random `salt`. A destroyed generation keeps its names and times, but no
keyset.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, NotRequired, TypedDict, cast

from infra.keys.custody import forbid_core_dumps, refuse_open_folder, refuse_strangers
from infra.keys.kek import LOCAL
from infra.store.local_files import open_regular, why_unwritable
from ironmask.errors import KeyFileError, KeyNotFoundError, WrongKeyError

FORMAT: Final = "ironmask-keys/1"
LIVE, DESTROYED = "live", "destroyed"
SEALED, PLAINTEXT = "sealed", "plaintext"


class KekEntry(TypedDict):
    """The KEK's address, and its cleartext keyset if that is in this file."""

    uri: str
    keyset: str | None


class Entry(TypedDict):
    """One generation."""

    key_id: str
    salt: str
    state: str
    helpers: str
    data: str | None
    prf: list[str]
    shuffle: str | None
    made_at: str
    destroyed_at: str | None


class TableEntry(TypedDict):
    """The keys that live as long as the table.

    seals: true once a seal with lists of files was written over the table's logs; absent before.
    """

    salt: str
    prf: str
    made_at: str
    seals: NotRequired[bool]


class Content(TypedDict):
    """A whole file. table: absent in files older than such keys."""

    format: str
    table_id: str
    kek: KekEntry
    generations: dict[str, Entry]
    table: NotRequired[TableEntry]


def read(path: Path) -> Content:
    """Read a file. Raises `KeyNotFoundError` without one, `KeyFileError` for an unusable one.

    From then on the process leaves no core dump.
    """
    forbid_core_dumps()
    try:
        with open_regular(str(path)) as handle:
            found = os.fstat(handle.fileno())
            content = _parse(path, handle.read().decode())
        # Its content says whether it holds a secret; it counts as secret if that is not clear.
        wrapped = content["kek"]["uri"] != LOCAL and content["kek"]["keyset"] is None
        refuse_strangers(path, found, secret=not wrapped)
        return content
    except FileNotFoundError:
        raise KeyNotFoundError(
            f"no keyset file at {path}: name it with --keys or IRONMASK_KEYS; templates cannot be "
            "opened without it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path} cannot be read: {type(error).__name__}") from None


def read_again(path: Path, before: Content) -> Content:
    """Read a file again. It may have changed since, but not into another file.

    Raises `WrongKeyError` where it belongs to another table; where generations are missing, have
    other keys or have keys again; or where it no longer says that seals were written.
    """
    now = read(path)
    went_on = all(
        number in now["generations"] and _follows(now["generations"][number], old)
        for number, old in before["generations"].items()
    )
    kept = before.get("table") is None or _salt(now) == _salt(before)
    kept = kept and (has_seals(now) or not has_seals(before))
    if now["table_id"] != before["table_id"] or not (went_on and kept):
        raise WrongKeyError(
            f"{path} was replaced by another keyset file, or an older copy, meanwhile"
        )
    return now


def has_seals(content: Content) -> bool:
    """Whether a seal with lists of files was ever written over the table's logs."""
    entry = content.get("table")
    return entry is not None and entry.get("seals", False)


def write(path: Path, content: Content) -> None:
    """Replace the file whole: after a kill it has the old content or the new. Needs `writing`.

    Raises `OSError`. The old content then stays, except where only the rename was not made durable.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _write_new(temporary, content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    settle(path)


def settle(path: Path) -> None:
    """Make the last `write` durable, in case its process was killed before that."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def refuse_taken(path: Path) -> None:
    """Raise `KeyFileError` where a file exists already."""
    if path.exists():
        raise KeyFileError(
            f"{path} exists already and belongs to another table: keys are never overwritten; "
            "name another file with --keys"
        )


def refuse_place(path: Path) -> None:
    """Raise `KeyFileError` where a new file could not be written. Writes nothing."""
    if why := why_unwritable(str(path.parent)):
        raise KeyFileError(f"{path} cannot be written: {why}")
    if path.parent.exists():
        refuse_open_folder(path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Hold a lock against other writers of the same file. It ends with the process.

    Raises `KeyFileError` where the place cannot be written.
    """
    forbid_core_dumps()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        refuse_open_folder(path)
        descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for leftover in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 16}"):
                leftover.unlink()  # of a writing that was killed, and it may hold keys
            yield
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KeyFileError(f"{path} cannot be written: {error.strerror}") from None


def _write_new(path: Path, content: Content) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        json.dump(content, handle, indent=1)
        handle.flush()
        os.fsync(handle.fileno())


def _salt(content: Content) -> str | None:
    """The salt that identifies a table's keys, whatever wraps them."""
    entry = content.get("table")
    return entry["salt"] if entry else None


def _follows(now: Entry, old: Entry) -> bool:
    return now["key_id"] == old["key_id"] and (now["state"] == DESTROYED or old["state"] == LIVE)


def _parse(path: Path, text: str) -> Content:
    damaged = KeyFileError(
        f"{path} is not a keyset file of this software, or is damaged: restore it from a backup"
    )
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise damaged from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise damaged
    kek, generations = content.get("kek"), content.get("generations")
    if not isinstance(content.get("table_id"), str) or not isinstance(generations, dict):
        raise damaged
    if not isinstance(kek, dict) or not isinstance(kek.get("uri"), str):
        raise damaged
    if not isinstance(kek.setdefault("keyset", None), str | None):
        raise damaged
    if "table" in content and not _is_table(content["table"]):
        raise damaged
    if not all(_is_entry(number, entry) for number, entry in generations.items()):
        raise damaged
    return cast(Content, content)


def _is_table(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and set(entry) | {"seals"} == set(TableEntry.__annotations__)
        and entry.get("seals", True) is True
        and _is_hex(entry["salt"], 32)
        and isinstance(entry["prf"], str)
        and _is_time(entry["made_at"])
    )


def _is_entry(number: str, entry: Any) -> bool:
    return (
        re.fullmatch("[1-9][0-9]{0,8}", number) is not None
        and isinstance(entry, dict)
        and set(entry) == set(Entry.__annotations__)
        and _is_hex(entry["key_id"], 16)
        and _is_hex(entry["salt"], 32)
        and entry["helpers"] in (SEALED, PLAINTEXT)
        and _is_time(entry["made_at"])
        and (_is_live(entry) or _is_destroyed(entry))
    )


def _is_live(entry: dict[str, Any]) -> bool:
    layers = entry["prf"]
    return (
        entry["state"] == LIVE
        and isinstance(entry["data"], str)
        and isinstance(layers, list)
        and layers != []
        and all(isinstance(layer, str) for layer in layers)
        and isinstance(entry["shuffle"], str | None)
        and entry["destroyed_at"] is None
    )


def _is_destroyed(entry: dict[str, Any]) -> bool:
    return (
        entry["state"] == DESTROYED
        and entry["data"] is None
        and entry["prf"] == []
        and entry["shuffle"] is None
        and _is_time(entry["destroyed_at"])
    )


def _is_hex(value: object, digits: int) -> bool:
    return isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{digits}}}", value) is not None


def _is_time(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        return datetime.fromisoformat(value).utcoffset() == timedelta(0)
    except ValueError:
        return False
