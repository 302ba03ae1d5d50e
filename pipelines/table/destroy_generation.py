"""Destroy a retired generation for good: keys, rows, files in every version; and prove it.

Keys go first: after that nobody can open a copy of the files, wherever it lies. Each step can be
repeated after a kill. None of them touches live data.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from ironmask.errors import KeyNotFoundError, TableError
from pipelines.ports import Keyring, Store, TableKeys, Tables
from pipelines.table import destroyed_list, generations, layout
from pipelines.table.data_files import destroy_below
from pipelines.table.details import table_keys
from pipelines.table.evidence import Evidence
from pipelines.table.generations import Generation, State
from pipelines.table.held import Destination
from pipelines.table.log_entries import Commit

_BATCH: Final = 10_000
_NOT_CERTAIN: Final = ", not authenticated: a release before wrote it"
ABSENT: Final = "never: they were not in the keyset file"


@dataclass(frozen=True)
class Proof:
    """The record of a destruction.

    files, bytes: of the generation, as the log listed them. manifest: SHA-256 of the list of their
    names, sizes and digests. keys_destroyed_at, files_destroyed_at: UTC. authentic: whether this is
    certainly the list that was written before the first file went; None in proofs of older
    releases, which did not tell.
    """

    generation: int
    key_id: str
    keys_destroyed_at: str
    files: int
    bytes: int
    manifest: str
    files_destroyed_at: str
    authentic: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def destroy(dest: Destination, keyring: Keyring, number: int) -> Proof:
    """Destroy a generation that is retired, or was given up while it was prepared.

    Raises `TableError` where it is live, `StorageError` where a part of it cannot be destroyed.
    """
    found = generations.read(dest.tables)
    one = found[number]
    if number == generations.live_of(found):
        raise TableError(f"{dest.tables.dest}: generation {number} is live and stays")
    if one.state is State.DESTROYED:
        return Proof(**one.proof)
    manifest, authentic = _manifest(dest, number)
    dest.check()
    destroyed_at = _without_keys(keyring, one)
    _take_out(dest, number)
    dest.check()
    destroy_below(dest.store, layout.generation_folder(dest.tables.table("templates").uri, number))
    lines = manifest.decode().splitlines()
    proof = Proof(
        generation=number,
        key_id=one.key_id,
        keys_destroyed_at=destroyed_at,
        files=len(lines),
        bytes=sum(int(line.split()[0]) for line in lines),
        manifest=sha256(manifest).hexdigest(),
        files_destroyed_at=datetime.now(UTC).isoformat(timespec="seconds"),
        authentic=authentic,
    )
    generations.destroyed(dest, number, proof.as_dict())
    return proof


def _without_keys(keyring: Keyring, one: Generation) -> str:
    """Destroy a generation's keys. Returns the time when they were destroyed."""
    try:
        return str(keyring.destroy_generation(one.number).destroyed_at)
    except KeyNotFoundError:
        # The keyset file may be older than the preparation, which is given up in any case.
        if one.state is not State.PREPARING:
            raise
        return ABSENT


def _manifest(dest: Destination, number: int) -> tuple[bytes, bool]:
    """The generation's files as its log lists them, frozen before the first of them goes.

    Also returns whether the list is certainly authentic: older releases authenticated none. Raises
    `TableError` where the list was changed and the log can no longer replace it.
    """
    address, keys = layout.destroyed_file(dest.tables.dest, number), table_keys(dest.keys)
    stored = _read(dest.store, address)
    own = _listed(dest.tables, number)
    is_whole = not dest.sequence("templates", _application(number))
    # The log is the list as long as no file was taken out.
    listed, known = destroyed_list.of_files(own), destroyed_list.without_mac(stored)
    # A list from an earlier try may lack files that its generation got later.
    tells_all = set(listed.splitlines()) <= set(known.splitlines())
    if not is_whole and tells_all and destroyed_list.is_authentic(stored, number, keys):
        return known, True
    if is_whole or own or not stored:
        content = destroyed_list.authenticated(listed, number, keys)
        if content != stored:
            dest.store.write(address, content)
        return listed, True
    if destroyed_list.is_well_formed(stored, number):
        return stored, False
    raise TableError(
        f"{address}, the list of the files of generation {number}, was changed while that was "
        "being destroyed: restore it from a backup, and run the same command again"
    )


def _listed(tables: Tables, number: int) -> dict[str, int]:
    """The generation's files in the log: bytes by path."""
    files = tables.table("templates").files()
    return {p: size for p, size in files.items() if layout.generation_of(p) == number}


def _application(number: int) -> str:
    return f"destroy/{number}"


def _take_out(dest: Destination, number: int) -> None:
    """Remove all of the generation's files from the log."""
    application = _application(number)
    own = list(_listed(dest.tables, number))
    for start in range(0, len(own), _BATCH):
        sequence = dest.sequence("templates", application) + 1
        dest.commit(Commit("templates", [], application, sequence, own[start : start + _BATCH]))
    dest.log_seal.extend()


def prove(
    tables: Tables,
    store: Store,
    number: int,
    key_states: dict[int, tuple[str, bool]],
    keys: TableKeys | None,
) -> Evidence:
    """Look for everything that a destroyed generation must not have left.

    key_states: for each generation in the keyset file, its key id and whether there are keys. keys:
    of the table. The caller checks the seal over the tables' logs, which vouches for the record.
    """
    one = generations.read(tables).get(number)
    bare = Evidence(tables.dest, f"generation {number}")
    if one is None or one.state is not State.DESTROYED:
        state = one.state if one else "not there"
        return bare.found([(f"generation {number} was destroyed (it is {state})", False)])
    proof = Proof(**one.proof)
    record = {
        "keys": f"{proof.key_id}, destroyed {proof.keys_destroyed_at}",
        "files": f"{proof.files:,}, {proof.bytes:,} bytes, gone {proof.files_destroyed_at}",
        "their list": f"SHA-256 {proof.manifest}{_NOT_CERTAIN * (proof.authentic is False)}",
    }
    facts = _facts(tables, store, proof, key_states, keys)
    return replace(bare, record=record).found(facts)


def _facts(
    tables: Tables,
    store: Store,
    proof: Proof,
    key_states: dict[int, tuple[str, bool]],
    keys: TableKeys | None,
) -> list[tuple[str, bool]]:
    number, folder = proof.generation, layout.generation_folder
    key_id, has_keys = key_states.get(number, ("", False))
    stored = _read(store, layout.destroyed_file(tables.dest, number))
    is_own = destroyed_list.is_authentic(stored, number, keys) or (
        # A list of an older release has no MAC; only the sealed record vouches for it.
        not proof.authentic and not destroyed_list.has_mac(stored)
    )
    recorded = sha256(destroyed_list.without_mac(stored)).hexdigest() == proof.manifest
    left = sum(1 for _ in store.remains(folder(tables.table("templates").uri, number)))
    absent = proof.keys_destroyed_at == ABSENT and not key_id
    return [
        (
            f"the keyset file knows no other keys of it than {proof.key_id}",
            absent or key_id == proof.key_id,
        ),
        ("the keyset file holds no key of it", not has_keys),
        ("the log lists none of its files", not _listed(tables, number)),
        ("none of its files is there, in any version", not left),
        (
            f"the list of its {proof.files:,} files is the one that was recorded",
            recorded and is_own,
        ),
    ]


def _read(store: Store, uri: str) -> bytes:
    try:
        return store.read(uri)
    except FileNotFoundError:
        return b""
