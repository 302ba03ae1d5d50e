"""Keys: each generation of a table has its own, in the table's keyset file (`keyset_file`).

By default the key-encryption key (KEK) is in the same file. With a key service, the file holds
nothing secret. Whoever has an older copy of the file can still open its keys: destroying keys and
changing the KEK affect this file only.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from infra.keys import keyset_file, table_keys
from infra.keys.kek import LOCAL, Kek, ProcessBound, local_keyset, resolve
from infra.keys.kept_keys import KeptKeys
from infra.keys.keyset_file import DESTROYED, LIVE, PLAINTEXT, SEALED, Content, Entry
from infra.keys.keysets import Binding, Keysets, TinkGenerationKeys
from infra.keys.table_keys import TinkTableKeys
from ironmask.errors import KeyFileError, KeyNotFoundError, WrongKeyError


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """The facts about a generation's keys that may be shown.

    state: `live` or `destroyed`. made_at, destroyed_at: UTC in ISO 8601; None while live.
    """

    key_id: str
    state: str
    made_at: str
    destroyed_at: str | None


@dataclass(frozen=True, slots=True)
class KekRotation:
    """A change of the KEK: the addresses before and after, and how many keysets it rewrapped."""

    old_uri: str
    new_uri: str
    keysets: int


class KeyFile(ProcessBound):
    """The keyset file of one table. Every call reads the file's current content."""

    __slots__ = ("__content", "__kek", "path", "table_id")

    def __init__(self, path: Path, content: Content, kek: Kek) -> None:
        self.path = path
        self.table_id = content["table_id"]
        self.__content = content
        self.__kek = (content["kek"], kek)

    def __repr__(self) -> str:
        return f"KeyFile(path={str(self.path)!r}, table_id={self.table_id!r})"

    @classmethod
    def create(cls, path: Path, table_id: str, kek_uri: str = LOCAL) -> KeyFile:
        """Make a new keyset file with the keys of the table, without a generation.

        Raises `KeyFileError` where one exists or none can be written, `KeyStoreError` where the
        KEK's service cannot be used.
        """
        path = Path(os.path.realpath(path))
        # A KEK that cannot be used must fail before the file exists.
        content, kek = _with_new_kek(kek_uri, table_id, {})
        content["table"] = table_keys.wrapped(table_keys.fresh(), kek, table_id, datetime.now(UTC))
        with keyset_file.writing(path):
            keyset_file.refuse_taken(path)
            keyset_file.write(path, content)
        return cls(path, content, kek)

    @staticmethod
    def rehearse(path: Path, kek_uri: str = LOCAL) -> None:
        """Raise as `create` would, and write nothing."""
        path = Path(os.path.realpath(path))
        _, kek = _with_new_kek(kek_uri, "", {})
        kek.try_out()
        keyset_file.refuse_taken(path)
        keyset_file.refuse_place(path)

    @classmethod
    def open(cls, path: Path, table_id: str) -> KeyFile:
        """Open a table's keyset file.

        Raises `KeyNotFoundError` where there is none, `KeyFileError` where it is damaged or others
        may change or read it, `WrongKeyError` where it belongs to another table, `KeyStoreError`
        where the KEK's service cannot be used.
        """
        path = Path(os.path.realpath(path))
        content = keyset_file.read(path)
        if content["table_id"] != table_id:
            raise WrongKeyError(
                f"{path} holds the keys of table {content['table_id']}, not of {table_id}: "
                "name the right file with --keys"
            )
        return cls(path, content, resolve(content["kek"]["uri"], content["kek"]["keyset"]))

    def generations(self) -> dict[int, KeyRecord]:
        """The generations in the file, without their keys. Raises as `generation` does."""
        found = self.__now()["generations"]
        return {int(number): _record(entry) for number, entry in found.items()}

    @property
    def kek_uri(self) -> str:
        """Address of the key-encryption key, as of the last call."""
        return self.__content["kek"]["uri"]

    def add_generation(self, generation: int, *, sealed: bool = True) -> None:
        """Make the keys of a new generation.

        Raises `KeyFileError` where it has keys already, or had them, `KeyStoreError` where the
        KEK's service does not serve.
        """
        binding = Binding(self.table_id, generation, SEALED if sealed else PLAINTEXT)
        with keyset_file.writing(self.path):
            content = self.__without(generation)
            self.__add(content, Keysets.fresh(), binding)

    def succeed(self, generation: int, of: int, *, rekey: bool, rotate_mac: bool) -> None:
        """Make the keys of a generation from those of another one, which stays as it is.

        The data keyset is new. The digest keys are carried over, with one more layer for
        `rotate_mac`. The shuffle is new for `rekey`, else carried over, if any. Raises
        `KeyFileError` where the generation has or had keys, and as `generation` for `of`.
        """
        with keyset_file.writing(self.path):
            content = self.__without(generation)
            entry = self.__live(content, of)
            old = self.__unwrapped(content, of, entry)
            binding = Binding(self.table_id, generation, entry["helpers"])
            self.__add(content, old.succeed(rekey=rekey, rotate_mac=rotate_mac), binding)

    def generation(
        self, generation: int, kept: KeptKeys[TinkGenerationKeys] | None = None
    ) -> TinkGenerationKeys:
        """Open the keys of one generation. kept: where those of a key service may be found.

        The file is read in any case, so that keys that were destroyed in it are not found. Raises
        `KeyNotFoundError` where there are none or they were destroyed, `WrongKeyError` where they
        were changed or wrapped by another KEK, or where another file took this one's place,
        `KeyStoreError` where the KEK's service does not serve.
        """
        content = self.__now()
        entry = self.__live(content, generation)

        def unwrap() -> TinkGenerationKeys:
            keysets = self.__unwrapped(content, generation, entry)
            binding = self.__binding(generation, entry)
            return TinkGenerationKeys(binding, entry["key_id"], keysets, self.__table_of(content))

        if kept is None or content["kek"]["uri"] == LOCAL:
            return unwrap()
        return kept.get(_said(content, generation), unwrap)

    def table(self) -> TinkTableKeys | None:
        """The keys that live as long as the table; None in files older than such keys.

        Raises as `generation`.
        """
        return self.__table_of(self.__now())

    def add_table(self) -> None:
        """Make the keys of the table where an older file has none. Raises `KeyStoreError` where
        the KEK's service does not serve, `KeyFileError` where the file cannot be written.
        """
        if "table" in self.__now():
            return
        with keyset_file.writing(self.path):
            content = self.__now()
            if "table" not in content:
                now, kek = datetime.now(UTC), self.__kek_of(content)
                made = table_keys.wrapped(table_keys.fresh(), kek, self.table_id, now)
                self.__write({**content, "table": made})

    def has_seals(self) -> bool:
        """Whether a seal with lists of files was ever written over the table's logs. It opens no
        key. Raises as `generation` does for the file.
        """
        return keyset_file.has_seals(self.__now())

    def note_seals(self) -> None:
        """Note that such a seal was written: from then on, seals without lists are refused.

        It writes nothing if this is noted already, and opens no key. Raises `KeyFileError` where
        the file cannot be written.
        """
        if self.has_seals():
            return
        with keyset_file.writing(self.path):
            content = self.__now()
            table = content.get("table")
            if table is not None and not keyset_file.has_seals(content):
                self.__write({**content, "table": {**table, "seals": True}})

    def destroy_generation(self, generation: int, now: datetime | None = None) -> KeyRecord:
        """Remove the keys of a generation from the file for good. This needs no KEK.

        A generation destroyed before keeps its first time. Raises `KeyNotFoundError` where the
        generation never had keys, `KeyFileError` where the file cannot be written.
        """
        with keyset_file.writing(self.path):
            content = self.__now()
            entry = content["generations"].get(str(generation))
            if entry is None:
                raise KeyNotFoundError(f"{self.path} never had keys of generation {generation}")
            if entry["state"] == DESTROYED:
                keyset_file.settle(self.path)
            else:
                entry = _destroyed(entry, _text(now or datetime.now(UTC)))
                self.__put(content, generation, entry)
        return _record(entry)

    def rotate_kek(self, new_uri: str | None = None) -> KekRotation:
        """Wrap every live keyset by a new KEK, all or none. No key inside changes.

        new_uri: `local:` for a fresh local KEK, or the address of a service's key; None: the
        present address. At the present address, the service wraps with its newest key version.
        Raises `WrongKeyError` where a keyset does not open with the present KEK, `KeyStoreError`
        where one of the services does not serve, `KeyFileError` where the file cannot be written.
        """
        with keyset_file.writing(self.path):
            old = self.__now()
            old_uri = old["kek"]["uri"]
            # Destroyed generations stay as they are.
            entries = dict(old["generations"])
            new, kek = _with_new_kek(new_uri or old_uri, self.table_id, entries)
            rewrapped = 0
            if "table" in old:
                before = self.__kek_of(old)
                new["table"] = table_keys.rewrapped(old["table"], before, kek, self.table_id)
                rewrapped += 1
            for number, entry in old["generations"].items():
                if entry["state"] != LIVE:
                    continue
                keysets = self.__unwrapped(old, int(number), entry)
                binding = self.__binding(int(number), entry)
                # Tink unwraps its result at once: a service that can only encrypt fails here.
                entries[number] = keysets.wrap(kek, binding, entry["made_at"])
                rewrapped += len(keysets)
            self.__write(new)
        return KekRotation(old_uri, new["kek"]["uri"], rewrapped)

    def __now(self) -> Content:
        """The file's current content. It must continue the content known before."""
        # Other threads may set `__content` in between.
        content = keyset_file.read_again(self.path, self.__content)
        self.__content = content
        return content

    def __without(self, generation: int) -> Content:
        """The file's current content, which must not know the generation to add."""
        if generation < 1:
            raise KeyFileError(f"generation {generation}: generations count from 1")
        content = self.__now()
        if str(generation) in content["generations"]:
            raise KeyFileError(
                f"{self.path} has keys of generation {generation} already, or had: they are never "
                "replaced"
            )
        return content

    def __add(self, content: Content, keysets: Keysets, binding: Binding) -> None:
        entry = keysets.wrap(self.__kek_of(content), binding, _text(datetime.now(UTC)))
        self.__put(content, binding.generation, entry)

    def __put(self, content: Content, generation: int, entry: Entry) -> None:
        entries = content["generations"] | {str(generation): entry}
        self.__write({**content, "generations": entries})

    def __write(self, content: Content) -> None:
        keyset_file.write(self.path, content)
        self.__content = content

    def __live(self, content: Content, generation: int) -> Entry:
        entry = content["generations"].get(str(generation))
        if entry is None or entry["state"] != LIVE:
            why = "it never had any, or is older than the table" if entry is None else "destroyed"
            raise KeyNotFoundError(
                f"{self.path} holds no keys of generation {generation} ({why}): its templates "
                "cannot be opened without them; name the right file with --keys or IRONMASK_KEYS"
            )
        return entry

    def __table_of(self, content: Content) -> TinkTableKeys | None:
        if "table" not in content:
            return None
        kek = self.__kek_of(content)
        return TinkTableKeys(table_keys.unwrapped(content["table"], kek, self.table_id))

    def __unwrapped(self, content: Content, generation: int, entry: Entry) -> Keysets:
        kek = self.__kek_of(content)
        return Keysets.unwrap(entry, kek, self.__binding(generation, entry))

    def __kek_of(self, content: Content) -> Kek:
        """The file's KEK. It is resolved again where another process changed it."""
        known, kek = self.__kek
        if content["kek"] != known:
            kek = resolve(content["kek"]["uri"], content["kek"]["keyset"])
            self.__kek = (content["kek"], kek)
        return kek

    def __binding(self, generation: int, entry: Entry) -> Binding:
        return Binding(self.table_id, generation, entry["helpers"], entry["salt"])


def _with_new_kek(uri: str, table_id: str, entries: dict[str, Entry]) -> tuple[Content, Kek]:
    keyset = local_keyset() if uri == LOCAL else None
    content: Content = {
        "format": keyset_file.FORMAT,
        "table_id": table_id,
        "kek": {"uri": uri, "keyset": keyset},
        "generations": entries,
    }
    return content, resolve(uri, keyset)


def _said(content: Content, generation: int) -> bytes:
    """A digest of all that the keys of a generation are unwrapped from."""
    table = {**content.get("table", {}), "seals": None}
    entry = content["generations"][str(generation)]
    parts = [content["table_id"], generation, content["kek"], entry, table]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()


def _destroyed(entry: Entry, at: str) -> Entry:
    return {
        **entry,
        "state": DESTROYED,
        "data": None,
        "prf": [],
        "shuffle": None,
        "destroyed_at": at,
    }


def _record(entry: Entry) -> KeyRecord:
    return KeyRecord(entry["key_id"], entry["state"], entry["made_at"], entry["destroyed_at"])


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")
