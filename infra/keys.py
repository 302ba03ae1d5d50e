"""Keys: Tink keysets for each generation, wrapped by a key-encryption key (KEK).

A table's keyset file is JSON, readable by its owner alone::

    {"format": "ironmask-keys/1", "table_id": ..., "kek": {"uri": ..., "keyset": ...},
     "generations": {"1": {"key_id": ..., "state": "live", "helpers": "sealed", "data": ...,
                           "prf": ...}}}

`helpers` says whether the generation's helpers are sealed, so that no row can. `data` is an
AES-256-GCM keyset that seals helpers, `prf` an HMAC-SHA-256 keyset that gives every row its digest
key. Both are encrypted by the KEK and bound to table, generation, purpose and `helpers`. The
embedded default keeps the KEK in the same file; with a KMS the file holds nothing secret.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tink import KeysetHandle, TinkError, aead, new_keyset_handle, prf

from infra.kek import LOCAL, Kek, ProcessBound, local_keyset, resolve
from ironmask.errors import KeyFileError, KeyNotFoundError, TamperedError, WrongKeyError

aead.register()
prf.register()

_FORMAT: Final = "ironmask-keys/1"
_LIVE: Final = "live"
_SEALED, _PLAINTEXT = "sealed", "plaintext"
_STATES: Final = (_LIVE, "destroyed")
_ROW_KEY_BYTES: Final = 32
_CHECK_BYTES: Final = 8


def default_keys_path(table_id: str) -> Path:
    """`IRONMASK_KEYS`, else a file named after the table in the user's configuration folder."""
    named = os.environ.get("IRONMASK_KEYS")
    if named:
        return Path(os.path.expanduser(named))
    base = os.path.expanduser(os.environ.get("XDG_CONFIG_HOME") or "~/.config")
    return Path(base) / "ironmask" / "keys" / f"{table_id}.json"


class TinkGenerationKeys(ProcessBound):
    """The keys of one generation; see `pipelines.ports.GenerationKeys`."""

    __slots__ = ("__aead", "__prf", "generation", "key_id", "sealed", "table_id")

    def __init__(
        self,
        table_id: str,
        generation: int,
        entry: dict[str, str],
        data: aead.Aead,
        rows: prf.PrfSet,
    ) -> None:
        self.table_id = table_id
        self.generation = generation
        self.key_id = entry["key_id"]
        self.sealed = entry["helpers"] == _SEALED
        self.__aead = data
        self.__prf = rows.primary()

    def __repr__(self) -> str:
        return (
            f"TinkGenerationKeys(table_id={self.table_id!r}, generation={self.generation}, "
            f"key_id={self.key_id!r})"
        )

    def seal(self, plaintext: bytes, associated: bytes) -> bytes:
        """AES-256-GCM with a random nonce, bound to the associated data."""
        sealed: bytes = self.__aead.encrypt(plaintext, associated)
        return sealed

    def open(self, ciphertext: bytes, associated: bytes) -> bytes:
        """Undo `seal`. Raises `TamperedError` where either part is not what was sealed."""
        try:
            plain: bytes = self.__aead.decrypt(ciphertext, associated)
        except TinkError:
            raise TamperedError(
                f"a sealed value does not open with key {self.key_id}: the row was changed, the "
                "value belongs to another row, or it was sealed under another key"
            ) from None
        return plain

    def row_key(self, template_id: str) -> bytes:
        """The 32-byte digest key of one row: HMAC-SHA-256 of its id, domain separated."""
        key: bytes = self.__prf.compute(
            b"ironmask row key\0" + template_id.encode(), _ROW_KEY_BYTES
        )
        return key

    def content_key(self) -> bytes:
        """The 32-byte key of the identities of embeddings: HMAC-SHA-256 at a point of its own."""
        key: bytes = self.__prf.compute(b"ironmask content key\0", _ROW_KEY_BYTES)
        return key

    def seal_key(self) -> bytes:
        """The 32-byte key of the seal over the logs: HMAC-SHA-256 at a point of its own."""
        key: bytes = self.__prf.compute(b"ironmask seal key\0", _ROW_KEY_BYTES)
        return key


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """What may be said about a generation's keys; state: `live` or `destroyed`."""

    key_id: str
    state: str


class KeyFile(ProcessBound):
    """The keyset file of one table."""

    __slots__ = ("__content", "__kek", "path", "table_id")

    def __init__(self, path: Path, content: dict[str, Any], kek: Kek) -> None:
        self.path = path
        self.table_id: str = content["table_id"]
        self.__content = content
        self.__kek = kek

    def __repr__(self) -> str:
        return f"KeyFile(path={str(self.path)!r}, table_id={self.table_id!r})"

    @classmethod
    def create(cls, path: Path, table_id: str, kek_uri: str = LOCAL) -> KeyFile:
        """Make a new keyset file, without a generation yet.

        Raises `KeyFileError` where one exists or none can be written, `KeyStoreError` where the
        KEK's service cannot be used.
        """
        path = Path(os.path.realpath(path))
        keyset = local_keyset() if kek_uri == LOCAL else None
        content = {
            "format": _FORMAT,
            "table_id": table_id,
            "kek": {"uri": kek_uri, "keyset": keyset},
            "generations": {},
        }
        # A KEK that cannot be used must fail before a file exists.
        kek = resolve(kek_uri, keyset)
        with _writing(path):
            if path.exists():
                raise KeyFileError(f"{path} exists already: keys are never overwritten")
            _write(path, content)
        return cls(path, content, kek)

    @classmethod
    def open(cls, path: Path, table_id: str) -> KeyFile:
        """Open a table's keyset file.

        Raises `KeyNotFoundError` where there is none, `KeyFileError` where it is damaged or open to
        other users, `WrongKeyError` where it is another table's, `KeyStoreError` where the KEK's
        service cannot be used.
        """
        path = Path(os.path.realpath(path))
        content = _read(path)
        if content["table_id"] != table_id:
            raise WrongKeyError(
                f"{path} holds the keys of table {content['table_id']}, not of {table_id}: "
                "name the right file with --keys"
            )
        return cls(path, content, resolve(content["kek"]["uri"], content["kek"]["keyset"]))

    def generations(self) -> dict[int, GenerationRecord]:
        """The generations in the file, without their keys."""
        found: dict[str, dict[str, str]] = self.__content["generations"]
        return {
            int(number): GenerationRecord(entry["key_id"], entry["state"])
            for number, entry in found.items()
        }

    @property
    def kek_uri(self) -> str:
        """Address of the key-encryption key."""
        uri: str = self.__content["kek"]["uri"]
        return uri

    def add_generation(self, generation: int, *, sealed: bool = True) -> None:
        """Make the keys of a new generation. Raises `KeyFileError` where it has, or had, some."""
        if generation < 1:
            raise KeyFileError(f"generation {generation}: generations count from 1")
        data = new_keyset_handle(aead.aead_key_templates.AES256_GCM)
        rows = new_keyset_handle(prf.prf_key_templates.HMAC_SHA256)
        helpers = _SEALED if sealed else _PLAINTEXT
        entry = {
            "key_id": _check_value(rows),
            "state": _LIVE,
            "helpers": helpers,
            "data": self.__kek.wrap(data, self.__bound(generation, "data", helpers)),
            "prf": self.__kek.wrap(rows, self.__bound(generation, "prf", helpers)),
        }
        with _writing(self.path):
            content = self.__fresh()
            if str(generation) in content["generations"]:
                raise KeyFileError(
                    f"{self.path} has keys of generation {generation} already: they are never "
                    "replaced"
                )
            content["generations"][str(generation)] = entry
            _write(self.path, content)
        self.__content = content

    def generation(self, generation: int) -> TinkGenerationKeys:
        """Open the keys of one generation.

        Raises `KeyNotFoundError` where there are none or they were destroyed, `WrongKeyError` where
        they were changed or wrapped by another KEK, `KeyStoreError` where the KEK's service does
        not serve.
        """
        if str(generation) not in self.__content["generations"]:
            self.__content = self.__fresh()
        entry = self.__content["generations"].get(str(generation))
        if entry is None or entry["state"] != _LIVE:
            why = "it never had any, or is older than the table" if entry is None else "destroyed"
            raise KeyNotFoundError(
                f"{self.path} holds no keys of generation {generation} ({why}): its templates "
                "cannot be opened without them; name the right file with --keys or IRONMASK_KEYS"
            )
        data, rows = (
            self.__kek.unwrap(entry[purpose], self.__bound(generation, purpose, entry["helpers"]))
            for purpose in ("data", "prf")
        )
        if _check_value(rows) != entry["key_id"]:
            raise WrongKeyError(
                f"{self.path}: the keys of generation {generation} are not those named "
                f"{entry['key_id']}: restore the file from a backup"
            )
        return TinkGenerationKeys(
            self.table_id,
            generation,
            entry,
            data.primitive(aead.Aead),
            rows.primitive(prf.PrfSet),
        )

    def __fresh(self) -> dict[str, Any]:
        """The file as it is now; its identity must not have changed."""
        content = _read(self.path)
        same = ("table_id", "kek")
        if any(content[name] != self.__content[name] for name in same):
            raise WrongKeyError(f"{self.path} was replaced by another keyset file meanwhile")
        return content

    def __bound(self, generation: int, purpose: str, helpers: str) -> bytes:
        return "\0".join([_FORMAT, self.table_id, str(generation), purpose, helpers]).encode()


def _check_value(rows: KeysetHandle) -> str:
    """A public name of a keyset: the first bytes of its function at a fixed point."""
    value: bytes = rows.primitive(prf.PrfSet).primary().compute(b"ironmask key id\0", _CHECK_BYTES)
    return value.hex()


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as handle:
            mode = os.fstat(handle.fileno()).st_mode
            # Before any of it is read.
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise KeyFileError(f"{path} is open to other users: run `chmod 600 {path}`")
            return _parse(path, handle.read())
    except FileNotFoundError:
        raise KeyNotFoundError(
            f"no keyset file at {path}: name it with --keys or IRONMASK_KEYS; templates cannot be "
            "opened without it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path} cannot be read: {type(error).__name__}") from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    damaged = KeyFileError(
        f"{path} is not a keyset file of this software, or is damaged: restore it from a backup"
    )
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise damaged from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise damaged
    kek, generations = content.get("kek"), content.get("generations")
    if not isinstance(content.get("table_id"), str) or not isinstance(generations, dict):
        raise damaged
    if not isinstance(kek, dict) or not isinstance(kek.get("uri"), str):
        raise damaged
    if not isinstance(kek.setdefault("keyset", None), str | None):
        raise damaged
    if not all(_is_entry(number, entry) for number, entry in generations.items()):
        raise damaged
    return content


def _is_entry(number: str, entry: object) -> bool:
    return (
        re.fullmatch("[1-9][0-9]{0,8}", number) is not None
        and isinstance(entry, dict)
        and set(entry) == {"key_id", "state", "helpers", "data", "prf"}
        and all(isinstance(value, str) for value in entry.values())
        and entry["state"] in _STATES
        and entry["helpers"] in (_SEALED, _PLAINTEXT)
    )


def _write(path: Path, content: dict[str, Any]) -> None:
    """Replace the file whole: a kill leaves the old content or the new."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            json.dump(content, handle, indent=1)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Hold a lock against other writers of the same file; it ends with the process."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
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
