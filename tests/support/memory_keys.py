"""The keys of a table in memory: the same functions and ciphers as of a keyset file, no file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from infra.keys import table_keys
from infra.keys.kek import ProcessBound
from infra.keys.key_file import KeyRecord
from infra.keys.keyset_file import PLAINTEXT, SEALED
from infra.keys.keysets import Binding, Keysets, TinkGenerationKeys
from infra.keys.table_keys import TinkTableKeys
from ironmask.errors import KeyFileError, KeyNotFoundError, WrongKeyError


@dataclass
class _Made:
    """One generation; keysets: None once they were destroyed."""

    binding: Binding
    keysets: Keysets | None
    record: KeyRecord


class MemoryKeyring(ProcessBound):
    """The keys of one table; see `pipelines.ports.Keyring`."""

    def __init__(self, table_id: str) -> None:
        self.table_id = table_id
        self._table = TinkTableKeys(table_keys.fresh())
        self._made: dict[int, _Made] = {}
        self._seals = False

    def __repr__(self) -> str:
        return f"MemoryKeyring(table_id={self.table_id!r})"

    def table(self) -> TinkTableKeys:
        return self._table

    def generations(self) -> dict[int, KeyRecord]:
        return {number: made.record for number, made in self._made.items()}

    def add_generation(self, generation: int, *, sealed: bool = True) -> None:
        """Make the keys of a new generation. Raises `KeyFileError` where it has, or had, some."""
        self._add(generation, Keysets.fresh(), SEALED if sealed else PLAINTEXT)

    def succeed(self, generation: int, of: int, *, rekey: bool, rotate_mac: bool) -> None:
        """Make the keys of a generation from those of another one, as `KeyFile.succeed` does."""
        binding, keysets = self._live(of)
        made = keysets.succeed(rekey=rekey, rotate_mac=rotate_mac)
        self._add(generation, made, binding.helpers)

    def _add(self, generation: int, keysets: Keysets, helpers: str) -> None:
        if generation in self._made:
            raise KeyFileError(f"generation {generation} has keys already, or had")
        binding = Binding(self.table_id, generation, helpers)
        record = KeyRecord(keysets.key_id(binding), "live", _now(), None)
        self._made[generation] = _Made(binding, keysets, record)

    def _live(self, generation: int) -> tuple[Binding, Keysets]:
        made = self._made.get(generation)
        if made is None or made.keysets is None:
            why = "never had any" if made is None else "destroyed"
            raise KeyNotFoundError(f"no keys of generation {generation} ({why})")
        return made.binding, made.keysets

    def generation(self, generation: int) -> TinkGenerationKeys:
        binding, keysets = self._live(generation)
        return TinkGenerationKeys(binding, keysets.key_id(binding), keysets, self._table)

    def destroy_generation(self, generation: int) -> KeyRecord:
        made = self._made.get(generation)
        if made is None:
            raise KeyNotFoundError(f"there never were keys of generation {generation}")
        if made.keysets is not None:
            made.keysets = None
            made.record = replace(made.record, state="destroyed", destroyed_at=_now())
        return made.record

    def log_seal_key_of(self, key_id: str) -> bytes:
        """The key of a seal that names the keys of one of the generations."""
        for number, record in self.generations().items():
            if record.key_id == key_id:
                return self.generation(number).log_seal_key()
        raise WrongKeyError(f"no keys {key_id}")

    def has_seals(self) -> bool:
        return self._seals

    def note_seals(self) -> None:
        self._seals = True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
