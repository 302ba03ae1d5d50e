"""The keys of one generation: how Tink keysets are made, carried over, wrapped and used."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tink import KeysetHandle, TinkError, aead, new_keyset_handle, prf

from infra.keys.kek import Kek, ProcessBound
from infra.keys.keyset_file import FORMAT, LIVE, SEALED, Entry
from infra.keys.table_keys import TinkTableKeys
from ironmask.errors import TamperedError, WrongKeyError

aead.register()
prf.register()

_KEY_BYTES: Final = 32
_KEY_ID_BYTES: Final = 8
_DATA, _SHUFFLE = "data", "shuffle"


@dataclass(frozen=True, slots=True)
class Binding:
    """The facts that the keysets of a generation are bound to. All of them are public.

    salt: 16 random bytes as hex. It tells keys apart that were made twice for one generation.
    """

    table_id: str
    generation: int
    helpers: str
    salt: str = field(default_factory=lambda: secrets.token_hex(16))

    def of(self, purpose: str) -> bytes:
        """The associated data of one keyset."""
        parts = [FORMAT, self.table_id, str(self.generation), purpose, self.helpers, self.salt]
        return "\0".join(parts).encode()


class Keysets(ProcessBound):
    """The unwrapped keysets of one generation."""

    __slots__ = ("data", "layers", "shuffle")

    def __init__(
        self, data: KeysetHandle, layers: Sequence[KeysetHandle], shuffle: KeysetHandle | None
    ) -> None:
        self.data = data
        self.layers = tuple(layers)
        self.shuffle = shuffle

    def __repr__(self) -> str:
        return f"Keysets(layers={len(self.layers)}, shuffle={self.shuffle is not None})"

    def __len__(self) -> int:
        return len(list(self._named()))

    @classmethod
    def fresh(cls) -> Keysets:
        """New keysets: one layer, no shuffle."""
        return cls(_new_data(), [_new_prf()], None)

    def succeed(self, *, rekey: bool, rotate_mac: bool) -> Keysets:
        """The keysets of the next generation: a new data keyset, the others carried over.

        rekey: make a new shuffle. rotate_mac: add one more layer.
        """
        layers = (*self.layers, _new_prf()) if rotate_mac else self.layers
        return Keysets(_new_data(), layers, _new_prf() if rekey else self.shuffle)

    def key_id(self, binding: Binding) -> str:
        """A public name of these keysets in their place: a check value of all pseudo-random ones.

        It hashes their outputs at a fixed point together with the binding. So the name differs in
        every generation, and does not tell which keysets two generations share.
        """
        found = hashlib.sha256(binding.of("key id"))
        for purpose, keyset in self._named():
            if purpose != _DATA:
                found.update(purpose.encode() + b"\0" + _call(keyset, b"ironmask key id\0"))
        return found.hexdigest()[: 2 * _KEY_ID_BYTES]

    def wrap(self, kek: Kek, binding: Binding, made_at: str) -> Entry:
        """Encrypt all for the keyset file. Raises `KeyStoreError` where the service refuses."""
        wrapped = {name: kek.wrap(keyset, binding.of(name)) for name, keyset in self._named()}
        return {
            "key_id": self.key_id(binding),
            "salt": binding.salt,
            "state": LIVE,
            "helpers": binding.helpers,
            "data": wrapped[_DATA],
            "prf": [wrapped[_layer(place)] for place in range(len(self.layers))],
            "shuffle": wrapped.get(_SHUFFLE),
            "made_at": made_at,
            "destroyed_at": None,
        }

    @classmethod
    def unwrap(cls, entry: Entry, kek: Kek, binding: Binding) -> Keysets:
        """Decrypt the keysets of a live entry.

        Raises `WrongKeyError` where they were changed, were wrapped by another KEK or for another
        place, or differ from those the entry names; `KeyStoreError` where the service does not
        serve.
        """
        data = kek.unwrap(entry["data"] or "", binding.of(_DATA))
        layers = [
            kek.unwrap(text, binding.of(_layer(place))) for place, text in enumerate(entry["prf"])
        ]
        text = entry["shuffle"]
        shuffle = None if text is None else kek.unwrap(text, binding.of(_SHUFFLE))
        found = cls(data, layers, shuffle)
        if found.key_id(binding) != entry["key_id"]:
            raise WrongKeyError(
                f"the keys of generation {binding.generation} are not those named "
                f"{entry['key_id']}: restore the keyset file from a backup"
            )
        return found

    def _named(self) -> Iterator[tuple[str, KeysetHandle]]:
        yield _DATA, self.data
        for place, keyset in enumerate(self.layers):
            yield _layer(place), keyset
        if self.shuffle is not None:
            yield _SHUFFLE, self.shuffle


class TinkGenerationKeys(ProcessBound):
    """The keys of one generation; see `pipelines.ports.GenerationKeys`."""

    __slots__ = (
        "__aead",
        "__layers",
        "__shuffle",
        "generation",
        "key_id",
        "sealed",
        "table",
        "table_id",
    )

    def __init__(
        self, binding: Binding, key_id: str, keysets: Keysets, table: TinkTableKeys | None = None
    ) -> None:
        self.table = table
        self.table_id = binding.table_id
        self.generation = binding.generation
        self.key_id = key_id
        self.sealed = binding.helpers == SEALED
        self.__aead = keysets.data.primitive(aead.Aead)
        self.__layers = [_function(layer) for layer in keysets.layers]
        self.__shuffle = None if keysets.shuffle is None else _function(keysets.shuffle)

    def __repr__(self) -> str:
        return (
            f"TinkGenerationKeys(table_id={self.table_id!r}, generation={self.generation}, "
            f"key_id={self.key_id!r})"
        )

    def encrypt(self, plaintext: bytes, associated: bytes) -> bytes:
        """AES-256-GCM with a random nonce, bound to the associated data."""
        sealed: bytes = self.__aead.encrypt(plaintext, associated)
        return sealed

    def decrypt(self, ciphertext: bytes, associated: bytes) -> bytes:
        """Undo `encrypt`. Raises `TamperedError` where either part is not what it was."""
        try:
            plain: bytes = self.__aead.decrypt(ciphertext, associated)
        except TinkError:
            raise TamperedError(
                f"a sealed value does not open with key {self.key_id}: the row was changed, the "
                "value belongs to another row, or it was sealed under another key"
            ) from None
        return plain

    def row_key(self, template_id: str, earlier: Sequence[str] = ()) -> bytes:
        """The digest key of one row: 32 bytes for each layer, oldest first.

        Each is HMAC-SHA-256 of the row's id, domain separated. earlier: the ids that the row had
        when its first layers were made, one for each. Later layers use its present id.
        """
        ids = [*earlier, *[template_id] * (len(self.__layers) - len(earlier))]
        if len(ids) != len(self.__layers):
            raise TamperedError(
                f"a row names {len(earlier)} earlier ids, and its keys {self.key_id} have "
                f"{len(self.__layers)} layers: it belongs to other keys"
            )
        pairs = zip(self.__layers, ids, strict=True)
        return b"".join(
            layer.compute(b"ironmask row key\0" + one.encode(), _KEY_BYTES) for layer, one in pairs
        )

    def shuffle_key(self, template_id: str) -> bytes | None:
        """The 32-byte key of one row's signed permutation; None where there is no shuffle."""
        if self.__shuffle is None:
            return None
        key: bytes = self.__shuffle.compute(
            b"ironmask shuffle key\0" + template_id.encode(), _KEY_BYTES
        )
        return key

    def content_key(self) -> bytes:
        """The 32-byte key of identities of embeddings, for tables older than keys of their own.

        It comes from the oldest layer, so that rotations keep it.
        """
        key: bytes = self.__layers[0].compute(b"ironmask content key\0", _KEY_BYTES)
        return key

    def log_seal_key(self) -> bytes:
        """The 32-byte key of the seal over the logs. It differs in every generation."""
        point = b"ironmask seal key\0" + bytes.fromhex(self.key_id)
        key: bytes = self.__layers[-1].compute(point, _KEY_BYTES)
        return key


def _new_data() -> KeysetHandle:
    return new_keyset_handle(aead.aead_key_templates.AES256_GCM)


def _new_prf() -> KeysetHandle:
    return new_keyset_handle(prf.prf_key_templates.HMAC_SHA256)


def _layer(place: int) -> str:
    return f"prf {place}"


def _function(keyset: KeysetHandle) -> prf.Prf:
    return keyset.primitive(prf.PrfSet).primary()


def _call(keyset: KeysetHandle, point: bytes) -> bytes:
    value: bytes = _function(keyset).compute(point, _KEY_BYTES)
    return value
