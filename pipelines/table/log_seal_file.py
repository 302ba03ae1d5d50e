"""The file of a seal: its content, and how that is authenticated."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Final

from ironmask.errors import TableError
from pipelines.ports import Store
from pipelines.table import layout

KeyOf = Callable[[str], bytes]
"""Finds the key of a seal by its key id; may raise `KeyStoreError`."""

Written = Callable[[], bool]
"""Whether the keyset file says that a seal with lists was ever written over the logs."""

LOG: Final = "_delta_log"
NOT_CHECKED: Final = "not checked against the seal"
_FORMAT: Final = "ironmask-seal/1"
# Parts of later releases. An empty one is left out, so that older seals keep their bytes.
_LATER: Final = ("starts", "lists", "announced")


@dataclass(frozen=True)
class Chain:
    """One log up to a version, -1 before the first. digest: hex."""

    version: int = -1
    digest: str = ""

    def then(self, entry: bytes) -> Chain:
        """The chain with the next log entry."""
        link = bytes.fromhex(self.digest) + sha256(entry).digest()
        return Chain(self.version + 1, sha256(link).hexdigest())


@dataclass(frozen=True)
class State:
    """The content of a seal.

    files: SHA-256 by address below the destination. starts: for logs with a forgotten history, the
    chain up to the last entry that may be gone. lists: by table, the digest of the files that its
    log lists, with its facts about each; empty in older seals. announced: the entries that its
    writer may add, one after the other: each one's table and digest.
    """

    table_id: str
    key_id: str
    open: bool
    logs: dict[str, Chain] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    starts: dict[str, Chain] = field(default_factory=dict)
    lists: dict[str, str] = field(default_factory=dict)
    announced: tuple[tuple[str, str], ...] = ()

    def start(self, name: str) -> Chain:
        """The beginning of a log's chain."""
        return self.starts.get(name, Chain())

    def bases(self) -> dict[str, str]:
        """By table, the checkpoint of its forgotten history, as an address below DEST."""
        return {
            name: checkpoint_path(name, start.version + 1) for name, start in self.starts.items()
        }


def checkpoint_path(name: str, version: int) -> str:
    """Address below the destination of the checkpoint of a log at a version."""
    return layout.join(name, LOG, f"{version:020d}.checkpoint.parquet")


def write(state: State, dest: str, store: Store, key: bytes) -> None:
    """Publish a seal, which replaces the one before."""
    store.write(layout.seal_file(dest), _encoded(state, key))


def not_noted() -> bool:
    """The answer about written seals where no keyset file is at hand: none."""
    return False


def read(dest: str, store: Store, key_of: KeyOf, written: Written = not_noted) -> State | None:
    """The seal of a destination; None where it has none.

    Raises `TableError` where it was changed, replaced by an older one or made under another key.
    Also raises what `key_of` raises.
    """
    content = read_content(dest, store)
    return None if content is None else authenticated(content, dest, key_of, written)


def read_content(dest: str, store: Store) -> bytes | None:
    """The bytes of a seal. They change with its content."""
    try:
        return store.read(layout.seal_file(dest))
    except FileNotFoundError:
        return None


def authenticated(content: bytes, dest: str, key_of: KeyOf, written: Written = not_noted) -> State:
    """The content of a seal. Errors are those of `read`."""
    changed = TableError(
        f"{layout.seal_file(dest)} does not authenticate: it was changed, or belongs to another "
        "table or other keys; restore it from a backup"
    )
    try:
        state = _parsed(content)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise changed from None
    if not hmac.compare_digest(_encoded(state, key_of(state.key_id)), content):
        raise changed
    if not state.lists and written():
        raise TableError(
            f"{layout.seal_file(dest)} is older than what was sealed since: an older seal was put "
            "back; restore the newest one from a backup"
        )
    return state


def _parsed(content: bytes) -> State:
    found = json.loads(content)
    found.pop("mac"), found.pop("format")
    # A missing or additional field makes other bytes when the content is encoded again.
    logs, starts = (
        {name: Chain(**chain) for name, chain in found.pop(part, {}).items()}
        for part in ("logs", "starts")
    )
    announced = tuple((name, digest) for name, digest in found.pop("announced", ()))
    state = State(**found, logs=logs, starts=starts, announced=announced)
    chains = [*logs.values(), *starts.values()]
    texts = [state.table_id, state.key_id, *(c.digest for c in chains)]
    texts += [t for part in (state.files, state.lists) for t in part.values()]
    texts += [t for one in announced for t in one]
    numbers = [state.open, *(c.version for c in chains)]
    if not all(isinstance(t, str) for t in texts) or not all(isinstance(n, int) for n in numbers):
        raise TypeError
    return state


def _encoded(state: State, key: bytes) -> bytes:
    fields = {"format": _FORMAT, **asdict(state)}
    for name in _LATER:
        if not fields[name]:
            del fields[name]
    mac = hmac.digest(key, _canonical(fields), "sha256").hex()
    return _canonical({**fields, "mac": mac})


def _canonical(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
