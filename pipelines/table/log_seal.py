"""The seal: a keyed digest over the tables' logs, so that no commit can be changed or taken away.

A table's log names its data files, and their names hold their digests; so what vouches for the log
vouches for every byte that it lists. The chain of a log is h(v) = SHA-256(h(v - 1) || SHA-256(entry
v)), h(-1) empty. `DEST/_ironmask/seal.json` holds each table's last version and chain, the digests
of the files beside the entries (checkpoints, plans), and an HMAC-SHA-256 over all of it.

While a run is under way the seal is open: the log may be ahead of it by what was committed after it
was written. Once the run is over it is closed, and anything beyond it is somebody else's.

The history of a log can be forgotten. Its chain then starts after the forgotten entries, and what
they said stands in a checkpoint whose digest is sealed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Final, NoReturn

from ironmask.errors import TableError, WrongKeyError
from pipelines.ports import GenerationKeys, Store, Tables
from pipelines.table import layout
from pipelines.table.data_files import destroy_below
from pipelines.table.log_seal_file import LOG, Chain, KeyOf, State, checkpoint_path, read, write
from pipelines.table.schemas import TABLES

_ENTRY: Final = re.compile(r"\d{20}\.json")
# Replaced by each checkpoint, so that an open seal may hold an older one.
_MOVING: Final = "_last_checkpoint"


class LogSeal:
    """The seal of a destination that this process holds."""

    def __init__(
        self, tables: Tables, store: Store, keys: GenerationKeys, key_of: KeyOf | None = None
    ) -> None:
        """key_of: knows the keys of the seal that is there; without it these are `keys`."""
        self._tables = tables
        self._store = store
        self._key_of = key_of or _only(keys, tables.dest)
        self._key = keys.log_seal_key()
        self._state = State(tables.table_id, keys.key_id, open=True)

    def begin(self) -> None:
        """Check the logs against the seal that is there, and open it under its own key.

        Raises `TableError` where they are not what was sealed, `KeyStoreError` where its key is not
        at hand.
        """
        found = read(self._tables.dest, self._store, self._named)
        if found is None and has_commits(self._tables):
            self._refuse(f"its seal is missing: {layout.seal_file(self._tables.dest)}")
        if found is not None:
            self._state = replace(found, open=True)
            for problem in broken_logs(self._tables, self._store, found):
                self._refuse(problem)
        self.extend()

    def _named(self, key_id: str) -> bytes:
        self._key = self._key_of(key_id)
        return self._key

    def _refuse(self, problem: str) -> NoReturn:
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
        found = beside(self._tables, self._store, self._state)
        files = {path: _digest(uri, self._store) for path, uri in found}
        # What forgotten entries said is not sealed twice: it must be what it was.
        files |= {path: self._state.files[path] for path in self._state.bases().values()}
        self._publish(replace(self._state, open=False, files=files))

    def rekey(self, keys: GenerationKeys) -> None:
        """Publish the seal under the keys of another generation, and go on under these."""
        self.extend()
        self._key = keys.log_seal_key()
        self._publish(replace(self._state, key_id=keys.key_id))

    def forget(self, name: str) -> None:
        """Destroy a log's history: what only its older entries held is nowhere any more.

        The caller holds the destination. Readers find the same table at every moment, and the seal
        holds at every moment: after a kill, the next call completes what is left to do. Older
        versions of `_last_checkpoint`, which names nothing but a version, may survive.

        Raises `TableError` where the log is not what was sealed, `StorageError` where something
        cannot be destroyed.
        """
        self.extend()
        last = self._state.logs[name]
        if last.version < 0:
            return
        before = self._verified(name, last)
        base = checkpoint_path(name, last.version)
        digest = self._state.files.get(base, "")
        if self._state.starts.get(name) != before:
            digest = self._written(name, base, last.version)
        folder = base.removesuffix(base.rpartition("/")[2])
        files = {path: d for path, d in self._state.files.items() if not path.startswith(folder)}
        starts = {**self._state.starts, name: before}
        self._publish(replace(self._state, starts=starts, files={**files, base: digest}))
        self._destroy(name, {base.removeprefix(folder), _entry_name(last.version), _MOVING})

    def _verified(self, name: str, last: Chain) -> Chain:
        """The chain before the last entry, of a log that is what was sealed."""
        start = self._state.start(name)
        for problem in _broken_bases(self._tables, self._store, self._state, name):
            self._refuse(problem)
        try:
            before = _recomputed(start, self._tables, name, self._store, last.version - 1)
            found = before.then(self._store.read(_entry(self._tables, name, last.version)))
        except FileNotFoundError as error:
            self._refuse(_missing(name, error))
        if found != last:
            self._refuse(_other(name, last))
        return before

    def _written(self, name: str, base: str, version: int) -> str:
        """The digest of a new checkpoint that a log can start from; no seal names it yet."""
        # One that is there already may be written in other bytes.
        files = {path: digest for path, digest in self._state.files.items() if path != base}
        self._publish(replace(self._state, files=files))
        if self._tables.table(name).checkpoint() != version:
            self._refuse(f"{name}: its log goes on after the sealed version {version}")
        return _digest(layout.join(self._tables.dest, base), self._store)

    def _destroy(self, name: str, kept: set[str]) -> None:
        """Destroy whatever lies in a log's folder and is not kept."""
        folder = layout.join(self._tables.table(name).uri, LOG)
        destroy_below(
            self._store, folder, " of its history", {layout.join(folder, own) for own in kept}
        )

    def _publish(self, state: State) -> None:
        self._state = state
        write(state, self._tables.dest, self._store, self._key)


def _only(keys: GenerationKeys, dest: str) -> KeyOf:
    def key_of(key_id: str) -> bytes:
        if key_id != keys.key_id:
            raise WrongKeyError(
                f"the seal of {dest} was made under the keys {key_id}, those at hand are "
                f"{keys.key_id}: name the right file with --keys"
            )
        return keys.log_seal_key()

    return key_of


def broken_logs(tables: Tables, store: Store, state: State) -> Iterator[str]:
    """What is wrong with the logs: with their entries, and with what stands for forgotten ones."""
    for name in TABLES:
        sealed = state.logs.get(name, Chain())
        try:
            found = _recomputed(state.start(name), tables, name, store, sealed.version)
            ahead = not state.open and _extended(sealed, tables, name, store) != sealed
        except FileNotFoundError as error:
            yield _missing(name, error)
            continue
        if found != sealed:
            yield _other(name, sealed)
        elif ahead:
            yield f"{name}: its log goes on after the sealed version {sealed.version}"
    yield from _broken_bases(tables, store, state, *TABLES)


def _broken_bases(tables: Tables, store: Store, state: State, *names: str) -> Iterator[str]:
    for path in (path for name, path in state.bases().items() if name in names):
        try:
            if _digest(layout.join(tables.dest, path), store) != state.files[path]:
                yield f"{path} is not what was sealed"
        except FileNotFoundError:
            yield f"{path} is missing"


def _missing(name: str, error: Exception) -> str:
    return f"{name}: an entry of its log is missing ({error})"


def _other(name: str, sealed: Chain) -> str:
    return f"{name}: its log up to version {sealed.version} is not the one that was sealed"


def broken_files(tables: Tables, store: Store, state: State) -> Iterator[str]:
    """What is wrong with the other files beside the log entries, one line for each."""
    here = dict(beside(tables, store, state))
    bases = state.bases().values()
    for path, digest in state.files.items():
        if path in bases or (state.open and path.endswith(_MOVING)):
            continue
        if path not in here:
            yield f"{path} is missing"
        elif _digest(here[path], store) != digest:
            yield f"{path} is not what was sealed"
    if not state.open:
        yield from (f"{path} is not in the seal" for path in here.keys() - state.files.keys())


def beside(tables: Tables, store: Store, state: State) -> Iterator[tuple[str, str]]:
    """Files beside the log entries, as path below the destination and address.

    Forgotten entries that are there are such files too.
    """
    logs = {layout.join(tables.table(name).uri, LOG): state.start(name).version for name in TABLES}
    for folder in [*logs, layout.plans_folder(tables.dest)]:
        for entry in store.entries(folder):
            name = entry.uri.rpartition("/")[2]
            is_part = name.endswith(".parquet") and folder not in logs
            is_entry = _ENTRY.fullmatch(name) and int(name[:20]) > logs.get(folder, -1)
            if not (is_entry or is_part):
                yield entry.uri.removeprefix(tables.dest.rstrip("/") + "/"), entry.uri


def has_commits(tables: Tables) -> bool:
    """Whether any table lists a file; the others have nothing to seal."""
    return any(tables.table(name).files() for name in TABLES)


def _recomputed(chain: Chain, tables: Tables, name: str, store: Store, version: int) -> Chain:
    """A chain carried on up to a version."""
    uris = [_entry(tables, name, number) for number in range(chain.version + 1, version + 1)]
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
    return layout.join(tables.table(name).uri, LOG, _entry_name(version))


def _entry_name(version: int) -> str:
    return f"{version:020d}.json"


def _digest(uri: str, store: Store) -> str:
    return sha256(store.read(uri)).hexdigest()
