"""Check the tables' logs against a seal: read them again, and look beyond its versions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from typing import Final

import pyarrow as pa

from ironmask.errors import TableError
from pipelines.ports import Store, Tables
from pipelines.table import layout
from pipelines.table.log_entries import Log, Said, parsed
from pipelines.table.log_seal_file import LOG, Chain, State, Written
from pipelines.table.schemas import TABLES

_ENTRY: Final = re.compile(r"\d{20}\.json")
# Files that readers take for parts of a log: entries, checkpoints in parts, compactions.
_OF_VERSION: Final = re.compile(r"(\d{20})\.(?:json|checkpoint\..+|\d{20}\.compacted\.json)")
# Each checkpoint replaces this file, so an open seal may hold the digest of an older one.
MOVING: Final = "_last_checkpoint"


def changed(dest: str, problem: str) -> TableError:
    """The error of a destination whose logs differ from its seal."""
    return TableError(
        f"{dest} was changed by other hands: {problem}; run `ironmask check`, and restore what it "
        "names from a backup"
    )


def read_log(tables: Tables, store: Store, state: State, name: str) -> Log:
    """A log up to its sealed version, read again from the beginning of its chain.

    Raises `TableError` where it was changed.
    """
    sealed = state.logs.get(name, Chain())
    log = read_to(tables, store, state, name, sealed.version)
    if log.chain != sealed or state.lists.get(name, log.list_digest()) != log.list_digest():
        raise changed(tables.dest, other(name, sealed))
    return log


def read_to(tables: Tables, store: Store, state: State, name: str, version: int) -> Log:
    """The same up to another version, without a comparison."""
    try:
        log = _begun(tables, store, state, name)
        first = log.chain.version + 1
        for found in store.read_many([entry(tables, name, n) for n in range(first, version + 1)]):
            if isinstance(found, OSError):
                raise found
            log.take(found)
    except FileNotFoundError as error:
        raise changed(tables.dest, f"{name}: an entry of its log is missing ({error})") from None
    except (pa.ArrowException, ValueError):
        raise changed(tables.dest, other(name, state.logs.get(name, Chain()))) from None
    return log


def between(
    tables: Tables, store: Store, name: str, known: Chain, sealed: Chain
) -> list[Said] | None:
    """What the entries say that lead from one chain of a log to a later one.

    None where they are not there, or do not lead there.
    """
    said = []
    addresses = [entry(tables, name, n) for n in range(known.version + 1, sealed.version + 1)]
    for content in store.read_many(addresses):
        if isinstance(content, OSError):
            return None
        known = known.then(content)
        try:
            said.append(parsed(content))
        except ValueError:
            return None
    return said if known == sealed else None


def follow(tables: Tables, store: Store, log: Log, name: str) -> None:
    """Take in entries after an open seal of an older release, which announced none."""
    try:
        while True:
            log.take(store.read(entry(tables, name, log.chain.version + 1)))
    except FileNotFoundError:
        return
    except ValueError:
        raise changed(tables.dest, goes_on(name, log.chain.version, ["no entry"])) from None


def chain_to(tables: Tables, store: Store, state: State, name: str, version: int) -> Chain:
    """The chain of a log up to a version, from its entries as they lie. None of them is kept."""
    chain = state.start(name)
    _base(tables, store, state, name)
    wanted = [entry(tables, name, n) for n in range(chain.version + 1, version + 1)]
    for found in store.read_many(wanted):
        if isinstance(found, OSError):
            problem = f"{name}: an entry of its log is missing ({found})"
            raise changed(tables.dest, problem) from None
        chain = chain.then(found)
    return chain


def _begun(tables: Tables, store: Store, state: State, name: str) -> Log:
    """The beginning of a log: empty, or at the checkpoint of its forgotten entries."""
    base = _base(tables, store, state, name)
    return Log() if base is None else Log.based(state.start(name), base)


def _base(tables: Tables, store: Store, state: State, name: str) -> bytes | None:
    """The checkpoint of a log's forgotten entries, as it was sealed; None where none are."""
    base = state.bases().get(name)
    if base is None:
        return None
    try:
        content = store.read(layout.join(tables.dest, base))
    except FileNotFoundError:
        raise changed(tables.dest, f"{base} is missing") from None
    if sha256(content).hexdigest() != state.files[base]:
        raise changed(tables.dest, f"{base} is not what was sealed")
    return content


def other(name: str, sealed: Chain) -> str:
    return f"{name}: its log up to version {sealed.version} is not the one that was sealed"


def beyond(tables: Tables, store: Store, versions: dict[str, int]) -> dict[str, list[str]]:
    """Files that continue logs beyond some versions, by table. One or two requests for each log.

    Files of an interrupted writing do not count. A checkpoint counts as its version does.
    """
    with ThreadPoolExecutor(len(versions)) as pool:
        found = pool.map(lambda item: _beyond(tables, store, *item), versions.items())
        return {name: files for name, files in zip(versions, found, strict=True) if files}


def _beyond(tables: Tables, store: Store, name: str, version: int) -> list[str]:
    folder = layout.join(tables.table(name).uri, LOG)
    found = store.after(folder, entry_name(version) if version >= 0 else "")
    later = [file for file in found if (m := _OF_VERSION.fullmatch(file)) and int(m[1]) > version]
    if MOVING in found and _points(store, layout.join(folder, MOVING)) > version:
        later.append(MOVING)
    return later


def _points(store: Store, uri: str) -> int:
    """The version in the pointer to the newest checkpoint; -1 if it names none."""
    with suppress(FileNotFoundError, ValueError, LookupError, TypeError):
        return int(json.loads(store.read(uri))["version"])
    return -1


def goes_on(name: str, version: int, files: Iterable[str]) -> str:
    """The problem of a log that continues beyond the last sealed version."""
    return f"{name}: its log goes on after the sealed version {version} ({', '.join(files)})"


def broken_logs(tables: Tables, store: Store, state: State) -> Iterator[str]:
    """Problems of the logs: of their entries, and of checkpoints for forgotten ones."""
    for name in TABLES:
        try:
            read_log(tables, store, state, name)
        except TableError as error:
            yield bare(error, tables.dest)
    yield from _added(tables, store, state)


def bare(error: Exception, dest: str) -> str:
    """The problem inside an error of `changed`."""
    text = str(error).removeprefix(f"{dest} was changed by other hands: ")
    return text.partition("; run `ironmask check`")[0]


def _added(tables: Tables, store: Store, state: State) -> Iterator[str]:
    """Entries beyond a seal that its writer cannot have added."""
    if state.open and not state.lists:
        return
    versions = {name: state.logs.get(name, Chain()).version for name in TABLES}
    if not state.open:
        found = beyond(tables, store, versions).items()
        yield from (goes_on(name, versions[name], files) for name, files in found)
        return
    for name, _ in came(tables, store, state, versions.__getitem__):
        versions[name] += 1
    yield from (unannounced(name, versions[name] + 1) for name in beyond(tables, store, versions))


def came(
    tables: Tables, store: Store, state: State, version: Callable[[str], int]
) -> Iterator[tuple[str, bytes]]:
    """The announced entries that have come, with their tables, in the order of commits.

    They end before the first one that has not come; later ones are somebody else's. version: gives
    the version of a log that is taken in already; called again for each entry.
    """
    for name, announced in state.announced:
        try:
            content = store.read(entry(tables, name, version(name) + 1))
        except FileNotFoundError:
            return
        if not is_announced(content, announced):
            return
        yield name, content


def is_announced(content: bytes, announced: str) -> bool:
    """Whether an entry is the commit that its writer announced."""
    with suppress(ValueError):
        return parsed(content).announcement() == announced
    return False


def creation(tables: Tables, store: Store, name: str) -> Iterator[bytes]:
    """The entries that created a table. There are two if the answer to the first was lost."""
    content = store.read(entry(tables, name, 0))
    version = 0
    while is_creation(content):
        yield content
        version += 1
        try:
            content = store.read(entry(tables, name, version))
        except FileNotFoundError:
            return


def is_creation(content: bytes) -> bool:
    """Whether an entry only says that a table was created."""
    with suppress(ValueError):
        said = parsed(content)
        named = bool(said.added or said.removed or said.sequences)
        return not named and said.others <= {"protocol"}
    return False


def unannounced(name: str, version: int) -> str:
    return (
        f"{name}: what its log says from version {version} on is not what the run that holds the "
        "seal was about to commit"
    )


def broken_files(tables: Tables, store: Store, state: State) -> Iterator[str]:
    """Problems of the other files beside the log entries, one line for each."""
    here = dict(beside(tables, store, state))
    bases = state.bases().values()
    for path, digest in state.files.items():
        if path in bases or (state.open and path.endswith(MOVING)):
            continue
        if path not in here:
            yield f"{path} is missing"
        elif digest_at(here[path], store) != digest:
            yield f"{path} is not what was sealed"
    if not state.open:
        yield from (f"{path} is not in the seal" for path in here.keys() - state.files.keys())


def beside(tables: Tables, store: Store, state: State) -> Iterator[tuple[str, str]]:
    """Files beside the log entries, as path below the destination and address.

    Forgotten entries that still exist are such files too.
    """
    logs = {layout.join(tables.table(name).uri, LOG): state.start(name).version for name in TABLES}
    for folder in [*logs, layout.plans_folder(tables.dest)]:
        for found in store.entries(folder):
            name = found.uri.rpartition("/")[2]
            is_part = name.endswith(".parquet") and folder not in logs
            is_entry = _ENTRY.fullmatch(name) and int(name[:20]) > logs.get(folder, -1)
            if not (is_entry or is_part):
                yield found.uri.removeprefix(tables.dest.rstrip("/") + "/"), found.uri


def refuse_missing_seal(tables: Tables, store: Store, written: Written) -> None:
    """Raise `TableError` where a seal is missing. The seal comes before every data file.

    Data files that exist only in older versions count too.
    """
    if not (written() or has_commits(tables) or _has_data(tables, store)):
        return
    raise changed(tables.dest, f"its seal is missing: {layout.seal_file(tables.dest)}")


def _has_data(tables: Tables, store: Store) -> bool:
    found = (uri for name in TABLES for uri in store.remains(tables.table(name).uri))
    return any(layout.is_ours(uri) and not layout.is_partial(uri) for uri in found)


def has_commits(tables: Tables) -> bool:
    """Whether any table lists a file. Without files there is nothing to seal."""
    return any(tables.table(name).files() for name in TABLES)


def entry(tables: Tables, name: str, version: int) -> str:
    """Address of an entry of a log."""
    return layout.join(tables.table(name).uri, LOG, entry_name(version))


def entry_name(version: int) -> str:
    return f"{version:020d}.json"


def digest_at(uri: str, store: Store) -> str:
    return sha256(store.read(uri)).hexdigest()
