"""The seal of a destination as a reader finds it: what it vouches for, and what goes beyond it."""

from __future__ import annotations

from dataclasses import replace

from ironmask.errors import TableError
from pipelines.ports import Store, StoredTables
from pipelines.table import log_chain, log_seal_file
from pipelines.table.log_entries import Log, Said, parsed
from pipelines.table.log_seal_file import Chain, KeyOf, State, Written
from pipelines.table.schemas import TABLES


class SealReader:
    """The seal of a destination as a reader finds it."""

    def __init__(
        self,
        tables: StoredTables,
        store: Store,
        key_of: KeyOf,
        written: Written,
        *,
        goes_on: bool = False,
    ) -> None:
        """written: tells whether seals with lists were written before. goes_on: who asks is about
        to finish the run that left the seal open.

        Raises `TableError` where the seal or the logs were changed, and what `key_of` raises.
        """
        self._goes_on = goes_on
        self._tables = tables
        self._store = store
        self._key_of = key_of
        self._written = written
        self._logs: dict[str, Log] = {}
        self._content = log_seal_file.read_content(tables.dest, store)
        self._state = self._checked()

    def chain(self, name: str) -> Chain:
        return self._log(name).chain if self._is_old else self._state.logs.get(name, Chain())

    def version(self, name: str) -> int:
        return self.chain(name).version

    def list_digest(self, name: str) -> str:
        return self._log(name).list_digest() if self._is_old else self._state.lists[name]

    @property
    def _is_old(self) -> bool:
        """Whether the seal is of before there were digests of lists: its chain tells them."""
        return self._content is not None and not self._state.lists

    def _log(self, name: str) -> Log:
        """A log under an old seal, with what followed while it was open."""
        if name not in self._logs:
            log = log_chain.read_log(self._tables, self._store, self._state, name)
            if self._state.open:
                log_chain.follow(self._tables, self._store, log, name)
            self._logs[name] = log
        return self._logs[name]

    def ahead(self, name: str) -> Said | None:
        found = log_chain.came(self._tables, self._store, self._state, self.version)
        if all(name != announced for announced, _ in self._state.announced):
            return None
        return next((parsed(content) for came, content in found if came == name), None)

    def explain(self, name: str) -> None:
        log_chain.read_log(self._tables, self._store, self._state, name)

    def renew(self) -> bool:
        found = log_seal_file.read_content(self._tables.dest, self._store)
        if found == self._content:
            return False
        before, self._content = self._content, found
        self._logs.clear()
        try:
            self._state = self._checked()
        except BaseException:
            # What was refused once is looked at again the next time.
            self._content = before
            raise
        return True

    def _checked(self) -> State:
        """What the seal says, whose logs do not go on where they must not."""
        dest = self._tables.dest
        while True:
            if self._content is None:
                if state := self._nothing():
                    return state
                continue
            state = log_seal_file.authenticated(self._content, dest, self._key_of, self._written)
            if state.open:
                return self._with_what_followed(state)
            versions = {name: state.logs.get(name, Chain()).version for name in TABLES}
            later = log_chain.beyond(self._tables, self._store, versions)
            if not later:
                return state
            now = log_seal_file.read_content(dest, self._store)
            if now == self._content:
                name, files = next(iter(later.items()))
                raise log_chain.changed(dest, log_chain.goes_on(name, versions[name], files))
            # A run has begun meanwhile.
            self._content = now

    def _with_what_followed(self, state: State) -> State:
        """What a release that announced nothing committed after its last seal is its own run's."""
        if state.lists or not self._goes_on:
            return state
        logs = {}
        for name in TABLES:
            log = log_chain.read_log(self._tables, self._store, state, name)
            log_chain.follow(self._tables, self._store, log, name)
            logs[name] = log.chain
        return replace(state, logs=logs)

    def _nothing(self) -> State | None:
        """What is vouched for before the first run: nothing. None where it has begun meanwhile."""
        try:
            log_chain.refuse_missing_seal(self._tables, self._store, self._written)
        except TableError:
            self._content = log_seal_file.read_content(self._tables.dest, self._store)
            if self._content is None:
                raise
            return None
        return State(self._tables.table_id, "", open=True)
