"""The seal: a keyed digest over the tables' logs. No commit can be changed or taken away unseen.

A table's log names its data files, and their names hold their digests. So a seal over the logs
vouches for every byte that they list. The chain of a log is h(v) = SHA-256(h(v - 1) ||
SHA-256(entry v)), h(-1) empty. `DEST/_ironmask/seal.json` holds each table's last version and
chain, and a digest of the files that its log lists at that version. It also holds the digests of
the files beside the entries (checkpoints, plans), and an HMAC-SHA-256 over all of this. Readers
open each log at the version that the seal names, and check only the list.

The seal is open during a run. Before each wave it announces the wave's commits in their order. The
logs may be ahead of it by those entries, in that order. The seal is closed after the run. Any other
entry beyond it is somebody else's: nothing is destroyed or answered because of it.

The history of a log can be forgotten. Its chain then starts after the forgotten entries, and a
checkpoint with a sealed digest replaces them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final, NoReturn

from ironmask.errors import WrongKeyError
from pipelines.ports import GenerationKeys, Store, StoredTables
from pipelines.table import layout, log_chain
from pipelines.table.data_files import destroy_below
from pipelines.table.log_chain import MOVING, entry, entry_name
from pipelines.table.log_entries import Commit, Log, announcement_of_columns
from pipelines.table.log_seal_file import (
    LOG,
    Chain,
    KeyOf,
    State,
    Written,
    checkpoint_path,
    not_noted,
    read,
    write,
)
from pipelines.table.schemas import TABLES
from pipelines.table.sealed import SealedTables

MOST_ENTRIES: Final = 512
"""Entries of a log before its history goes, in a run."""


class LogSeal:
    """The seal of a destination that this process holds. All its commits go through here.

    tables: the sealed tables, for readers.
    """

    def __init__(
        self,
        tables: StoredTables,
        store: Store,
        keys: GenerationKeys,
        key_of: KeyOf | None = None,
        written: Written = not_noted,
    ) -> None:
        """key_of: finds the keys of an existing seal; by default these are `keys`.

        written: tells whether seals with lists were written before.
        """
        self._stored = tables
        self._store = store
        self._key_of = key_of or only(keys, tables.dest)
        self._were_written = written
        self._key = keys.log_seal_key()
        self._state = State(tables.table_id, keys.key_id, open=True)
        self._logs = {name: Log() for name in TABLES}
        self._wide: set[str] = set()
        self.tables = SealedTables(tables, store, self)

    def begin(self) -> None:
        """Check the logs against the existing seal, and open it under its own key.

        Raises `TableError` where the logs were changed, or show other files to readers,
        `KeyStoreError` where its key is not at hand.
        """
        found = read(self._stored.dest, self._store, self._named, self._were_written)
        if found is None:
            self._begin_anew()
        else:
            self._state = replace(found, open=True)
            self._logs = {
                name: log_chain.read_log(self._stored, self._store, found, name) for name in TABLES
            }
            self._take_in(found)
        for name in TABLES:
            self.tables.table(name).files()
        self._publish()

    def _begin_anew(self) -> None:
        """Take in logs that only say that their tables were created."""
        log_chain.refuse_missing_seal(self._stored, self._store, self._were_written)
        for name in TABLES:
            for content in log_chain.creation(self._stored, self._store, name):
                self._logs[name].take(content)
        if self._beyond() or any(log.lines for log in self._logs.values()):
            self._refuse(f"its seal is missing: {layout.seal_file(self._stored.dest)}")

    def _take_in(self, found: State) -> None:
        """Take in entries that an open seal allows, and refuse all others."""
        if found.open and not found.lists:
            for name, log in self._logs.items():
                log_chain.follow(self._stored, self._store, log, name)
        if not found.open:
            for name, files in self._beyond().items():
                self._refuse(log_chain.goes_on(name, self.version(name), files))
        self._settle()

    def _named(self, key_id: str) -> bytes:
        self._key = self._key_of(key_id)
        return self._key

    def _refuse(self, problem: str) -> NoReturn:
        raise log_chain.changed(self._stored.dest, problem)

    def chain(self, name: str) -> Chain:
        """A log up to its last sealed version."""
        return self._logs[name].chain

    def version(self, name: str) -> int:
        """The last sealed version of a log; -1 before the first."""
        return self.chain(name).version

    def list_digest(self, name: str) -> str:
        """The digest of the files that a log lists at that version."""
        return self._logs[name].list_digest()

    def renew(self) -> bool:
        """Always false: nobody else writes the seal that this process holds."""
        return False

    def ahead(self, name: str) -> None:
        """Always none: this process takes in its own commits at once."""

    def explain(self, name: str) -> None:
        """Raise `TableError` where an unreadable log was changed."""
        state = replace(self._state, logs=self._chains(), lists={})
        log_chain.read_log(self._stored, self._store, state, name)

    def sequence(self, name: str, application: str) -> int:
        """The last sequence number committed under an application's name; 0 before the first."""
        return self._logs[name].sequences.get(application, 0)

    def commit(self, *commits: Commit) -> None:
        """Announce a commit for each of some tables, make them in this order, and take them in.

        Commits made before, and those that change nothing, are left out. Raises `TableError` where
        somebody else has added to a log.
        """
        self._settle()
        wanted = [
            one
            for one in commits
            if (one.files or one.removed)
            and self.sequence(one.table, one.application) < one.sequence
        ]
        if not wanted:
            return
        for name in sorted({one.table for one in wanted if one.files} - self._wide):
            self._widen(name)
        self._publish(announced=tuple((one.table, one.announcement()) for one in wanted))
        for one in wanted:
            table = self._stored.table(one.table)
            table.commit(one.files, one.application, one.sequence, removed=one.removed)
            if not self._take():
                self._refuse(log_chain.unannounced(one.table, self.version(one.table) + 1))

    def _widen(self, name: str) -> None:
        """Let a log of an earlier release name the columns that files have by now.

        Readers that go by the log would not see them. The entry is announced like a commit.
        """

        def begin(said: Mapping[str, object]) -> None:
            self._publish(announced=((name, announcement_of_columns(said)),))

        if self._stored.table(name).widen(begin) and not self._take():
            self._refuse(log_chain.unannounced(name, self.version(name) + 1))
        self._wide.add(name)

    def _take(self) -> bool:
        """Take in the next announced entry, if it has come."""
        state = self._state
        for name, content in log_chain.came(self._stored, self._store, state, self.version):
            self._logs[name].take(content)
            self._state = replace(state, announced=state.announced[1:])
            return True
        return False

    def _beyond(self) -> dict[str, list[str]]:
        versions = {name: self.version(name) for name in TABLES}
        return log_chain.beyond(self._stored, self._store, versions)

    def _settle(self) -> None:
        """Take in the announced entries that have come. Refuse all others."""
        while self._take():
            pass
        for name in self._beyond():
            self._refuse(log_chain.unannounced(name, self.version(name) + 1))

    def extend(self) -> None:
        """Publish the commits so far. Needed before anything is destroyed because of them."""
        self._settle()
        self._publish()

    def end(self) -> None:
        """Close the seal. Nothing is committed until the next `begin`."""
        self._settle()
        found = log_chain.beside(self._stored, self._store, self._state)
        files = {path: log_chain.digest_at(uri, self._store) for path, uri in found}
        # Do not digest checkpoints of forgotten entries again: they must stay as they were.
        files |= {path: self._state.files[path] for path in self._state.bases().values()}
        self._publish(open=False, files=files)
        self._state = replace(self._state, open=True)

    def rekey(self, keys: GenerationKeys) -> None:
        """Publish the seal under the keys of another generation, and go on under these."""
        self.extend()
        self._key = keys.log_seal_key()
        self._publish(key_id=keys.key_id)

    def bound(self) -> None:
        """Forget the histories of logs that have grown long: whoever opens one reads all of it."""
        for name, log in self._logs.items():
            if log.chain.version - self._state.start(name).version > MOST_ENTRIES:
                self.forget(name)

    def forget(self, name: str) -> None:
        """Destroy a log's history. Nothing that stood only in older entries is kept.

        The caller holds the destination. Readers find the same table at every moment, and the seal
        is valid at every moment. After a kill, the next call completes the work. Older versions of
        `_last_checkpoint` may survive; they name nothing but a version.

        Raises `TableError` where the log was changed, `StorageError` where something cannot be
        destroyed.
        """
        self.extend()
        last = self._logs[name].chain
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
        self._publish(starts=starts, files={**files, base: digest})
        self._destroy(name, {base.removeprefix(folder), entry_name(last.version), MOVING})

    def _verified(self, name: str, last: Chain) -> Chain:
        """The chain before the last entry, of a log that matches its seal."""
        before = log_chain.chain_to(self._stored, self._store, self._state, name, last.version - 1)
        try:
            content = self._store.read(entry(self._stored, name, last.version))
        except FileNotFoundError as error:
            self._refuse(f"{name}: an entry of its log is missing ({error})")
        if before.then(content) != last:
            self._refuse(log_chain.other(name, last))
        return before

    def _written(self, name: str, base: str, version: int) -> str:
        """The digest of a new checkpoint that a log can start from. No seal names it yet."""
        # A checkpoint that exists already may get other bytes.
        files = {path: digest for path, digest in self._state.files.items() if path != base}
        self._publish(files=files)
        if self._stored.table(name).checkpoint() != version:
            self._refuse(f"{name}: its log goes on after the sealed version {version}")
        content = self._store.read(layout.join(self._stored.dest, base))
        if Log.based(Chain(), content).lines != self._logs[name].lines:
            self._refuse(f"{base} does not say what the entries say that it is to stand for")
        return sha256(content).hexdigest()

    def _destroy(self, name: str, kept: set[str]) -> None:
        """Destroy everything in a log's folder that is not kept."""
        folder = layout.join(self._stored.table(name).uri, LOG)
        destroy_below(
            self._store, folder, " of its history", {layout.join(folder, own) for own in kept}
        )

    def _chains(self) -> dict[str, Chain]:
        return {name: log.chain for name, log in self._logs.items()}

    def _publish(self, **changes: Any) -> None:
        """Write the current state. Announcements that have not come are dropped."""
        lists = {name: log.list_digest() for name, log in self._logs.items()}
        now = {"logs": self._chains(), "lists": lists, "announced": ()}
        self._state = replace(self._state, **{**now, **changes})
        write(self._state, self._stored.dest, self._store, self._key)


def only(keys: GenerationKeys, dest: str) -> KeyOf:
    """Finds the key of one generation only."""

    def key_of(key_id: str) -> bytes:
        if key_id != keys.key_id:
            raise WrongKeyError(
                f"the seal of {dest} was made under the keys {key_id}, those at hand are "
                f"{keys.key_id}: name the right file with --keys"
            )
        return keys.log_seal_key()

    return key_of
