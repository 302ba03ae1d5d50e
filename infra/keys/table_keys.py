"""The keys that live as long as a table: made with its keyset file, kept by every rotation.

One pseudo-random function gives all of them: the keys of identities of contents, of pseudonyms, of
lists of destroyed data, and of data encrypted beside the rows. So one call to a key service opens
them all.
"""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tink import KeysetHandle, new_keyset_handle, prf

from infra.keys.kek import Kek, ProcessBound
from infra.keys.keyset_file import FORMAT, TableEntry
from ironmask.errors import TamperedError

prf.register()

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class RunCipher(ProcessBound):
    """Encrypts data that a run stores beside its rows; see `pipelines.ports.Cipher`."""

    __slots__ = ("__aead",)

    def __init__(self, key: bytes) -> None:
        self.__aead = AESGCM(key)

    def encrypt(self, plaintext: bytes, associated: bytes) -> bytes:
        """AES-256-GCM with a random nonce, bound to the associated data."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self.__aead.encrypt(nonce, plaintext, associated)

    def decrypt(self, ciphertext: bytes, associated: bytes) -> bytes:
        """Undo `encrypt`. Raises `TamperedError` where either part is not what it was."""
        nonce, rest = ciphertext[:_NONCE_BYTES], ciphertext[_NONCE_BYTES:]
        try:
            return self.__aead.decrypt(nonce, rest, associated)
        except (InvalidTag, ValueError):
            raise TamperedError(
                "an encrypted detail does not open with the table's keys: its row was changed, or "
                "the keyset file is of another table; restore the row from a backup"
            ) from None


class TinkTableKeys(ProcessBound):
    """The keys of a table for its whole life; see `pipelines.ports.TableKeys`."""

    __slots__ = ("__function",)

    def __init__(self, keyset: KeysetHandle) -> None:
        self.__function = keyset.primitive(prf.PrfSet).primary()

    def __repr__(self) -> str:
        return "TinkTableKeys()"

    def identity_key(self, generation: int) -> bytes:
        """The 32-byte key of the identities of contents in one generation's outcomes."""
        return self._of(f"identities\0{generation}")

    def pseudonym_key(self) -> bytes:
        """The 32-byte key of pseudonyms."""
        return self._of("pseudonyms")

    def destruction_key(self) -> bytes:
        """The 32-byte key of the lists of destroyed data."""
        return self._of("destroyed")

    def cipher(self, run_id: str) -> RunCipher:
        """Encrypts the details of one run. Each run has its own key, so that none is overused."""
        return RunCipher(self._of(f"details\0{run_id}"))

    def _of(self, purpose: str) -> bytes:
        point = b"ironmask table key\0" + purpose.encode()
        key: bytes = self.__function.compute(point, _KEY_BYTES)
        return key


def fresh() -> KeysetHandle:
    """The keyset of a new table."""
    return new_keyset_handle(prf.prf_key_templates.HMAC_SHA256)


def wrapped(keyset: KeysetHandle, kek: Kek, table_id: str, made_at: datetime) -> TableEntry:
    """Encrypt the keyset for the file. Raises `KeyStoreError` where the service refuses."""
    salt = secrets.token_hex(16)
    return {
        "salt": salt,
        "prf": kek.wrap(keyset, _bound(table_id, salt)),
        "made_at": made_at.isoformat(timespec="seconds"),
    }


def unwrapped(entry: TableEntry, kek: Kek, table_id: str) -> KeysetHandle:
    """Decrypt the keyset.

    Raises `WrongKeyError` where it was changed, wrapped by another KEK or for another table;
    `KeyStoreError` where the service does not serve.
    """
    return kek.unwrap(entry["prf"], _bound(table_id, entry["salt"]))


def rewrapped(entry: TableEntry, old: Kek, new: Kek, table_id: str) -> TableEntry:
    """The same keyset under another KEK. Raises as `unwrapped` and `wrapped`."""
    keyset = unwrapped(entry, old, table_id)
    return {**entry, "prf": new.wrap(keyset, _bound(table_id, entry["salt"]))}


def _bound(table_id: str, salt: str) -> bytes:
    return "\0".join([FORMAT, table_id, "table", salt]).encode()
