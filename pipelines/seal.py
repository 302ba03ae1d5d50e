"""The seal: a keyed digest over the tables' logs, so that no commit can be changed or taken away.

A table's log names its data files, and their names hold their digests; so what vouches for the log
vouches for every byte that it lists. The chain of a log is h(v) = SHA-256(h(v - 1) || SHA-256(entry
v)), h(-1) empty. `DEST/_ironmask/seal.json` holds each table's last version and chain, the digests
of the files beside the entries (checkpoints, plans), and an HMAC-SHA-256 over all of it.

While a run is under way the seal is open: the log may be ahead of it by what was committed after it
was written. Once the run is over it is closed, and anything beyond it is somebody else's.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Final

from ironmask.errors import TableError
from pipelines import layout
from pipelines.ports import GenerationKeys, Store, Tables
from pipelines.records import TABLES

_FORMAT: Final = "ironmask-seal/1"
_LOG: Final = "_delta_log"
_ENTRY: Final = re.compile(r"\d{20}\.json")
# Replaced by each checkpoint, so that an open seal may hold an older one.
_MOVING: Final = "_last_checkpoint"


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
    """What a seal says. files: SHA-256 by address below the destination."""

    table_id: str
    key_id: str
    open: bool
    logs: dict[str, Chain] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def write(state: State, dest: str, store: Store, key: bytes) -> None:
    """Publish a seal in the place of the one before."""
    store.write(layout.seal_file(dest), _encoded(state, key))


def read(dest: str, store: Store, key: bytes) -> State | None:
    """The seal of a destination; None where it has none.

    Raises `TableError` where it was changed or made under another key.
    """
    uri = layout.seal_file(dest)
    try:
        content = store.read(uri)
    except FileNotFoundError:
        return None
    changed = TableError(
        f"{uri} does not authenticate: it was changed, or belongs to another table or other keys; "
        "restore it from a backup"
    )
    try:
        found = json.loads(content)
        found.pop("mac"), found.pop("format")
        logs = {name: Chain(**chain) for name, chain in found.pop("logs").items()}
        state = State(**found, logs=logs)
        expected = _encoded(state, key)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise changed from None
    if not hmac.compare_digest(expected, content):
        raise changed
    return state


def _encoded(state: State, key: bytes) -> bytes:
    fields = {"format": _FORMAT, **asdict(state)}
    mac = hmac.digest(key, _canonical(fields), "sha256").hex()
    return _canonical({**fields, "mac": mac})


def _canonical(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


class Seal:
    """The seal of a destination that this process holds."""

    def __init__(self, tables: Tables, store: Store, keys: GenerationKeys) -> None:
        self._tables = tables
        self._store = store
        self._key = keys.seal_key()
        self._state = State(tables.table_id, keys.key_id, open=True)

    def begin(self) -> None:
        """Check the logs against the seal that is there, and open it.

        Raises `TableError` where they are not what was sealed.
        """
        found = read(self._tables.dest, self._store, self._key)
        if found is None and has_commits(self._tables):
            self._refuse(f"its seal is missing: {layout.seal_file(self._tables.dest)}")
        if found is not None:
            self._state = replace(found, open=True)
            for problem in broken_logs(self._tables, self._store, found):
                self._refuse(problem)
        self.extend()

    def _refuse(self, problem: str) -> None:
        raise TableError(
            f"{self._tables.dest} was changed by other hands: {problem}; run `ironmask check`, "
            "and restore what it names from a backup"
        )

    def extend(self) -> None:
        """Take in what was committed since."""
        logs = {
            name: _extended(self._state.logs.get(name, Chain()), self._tables, name, self._store)
            for name in TABLES
        }
        self._publish(replace(self._state, logs=logs))

    def end(self) -> None:
        """Close the seal: nothing is committed from here until the next `begin`."""
        self.extend()
        files = {path: _digest(uri, self._store) for path, uri in beside(self._tables, self._store)}
        self._publish(replace(self._state, open=False, files=files))

    def _publish(self, state: State) -> None:
        self._state = state
        write(state, self._tables.dest, self._store, self._key)


def broken_logs(tables: Tables, store: Store, state: State) -> Iterator[str]:
    """What is wrong with the logs, one line for each table."""
    for name in TABLES:
        sealed = state.logs.get(name, Chain())
        try:
            found = _recomputed(tables, name, store, sealed.version)
            ahead = not state.open and _extended(sealed, tables, name, store) != sealed
        except FileNotFoundError as error:
            yield f"{name}: an entry of its log is missing ({error})"
            continue
        if found != sealed:
            yield f"{name}: its log up to version {sealed.version} is not the one that was sealed"
        elif ahead:
            yield f"{name}: its log goes on after the sealed version {sealed.version}"


def broken_files(tables: Tables, store: Store, state: State) -> Iterator[str]:
    """What is wrong with the files beside the log entries, one line for each."""
    here = dict(beside(tables, store))
    for path, digest in state.files.items():
        if state.open and path.endswith(_MOVING):
            continue
        if path not in here:
            yield f"{path} is missing"
        elif _digest(here[path], store) != digest:
            yield f"{path} is not what was sealed"
    if not state.open:
        yield from (f"{path} is not in the seal" for path in here.keys() - state.files.keys())


def beside(tables: Tables, store: Store) -> Iterator[tuple[str, str]]:
    """Files beside the log entries, as path below the destination and address."""
    folders = [layout.join(tables.table(name).uri, _LOG) for name in TABLES]
    for folder in [*folders, layout.plans_folder(tables.dest)]:
        for entry in store.entries(folder):
            name = entry.uri.rpartition("/")[2]
            is_part = name.endswith(".parquet") and folder not in folders
            if not (_ENTRY.fullmatch(name) or is_part):
                yield entry.uri.removeprefix(tables.dest.rstrip("/") + "/"), entry.uri


def has_commits(tables: Tables) -> bool:
    """Whether any table lists a file; the others have nothing to seal."""
    return any(tables.table(name).files() for name in TABLES)


def _recomputed(tables: Tables, name: str, store: Store, version: int) -> Chain:
    chain = Chain()
    uris = [_entry(tables, name, number) for number in range(version + 1)]
    for found in store.read_many(uris):
        if isinstance(found, OSError):
            raise found
        chain = chain.then(found)
    return chain


def _extended(chain: Chain, tables: Tables, name: str, store: Store) -> Chain:
    while True:
        try:
            chain = chain.then(store.read(_entry(tables, name, chain.version + 1)))
        except FileNotFoundError:
            return chain


def _entry(tables: Tables, name: str, version: int) -> str:
    return layout.join(tables.table(name).uri, _LOG, f"{version:020d}.json")


def _digest(uri: str, store: Store) -> str:
    return sha256(store.read(uri)).hexdigest()
