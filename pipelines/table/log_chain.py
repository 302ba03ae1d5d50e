"""The tables' logs against a seal: read again from where each begins, and what lies beyond it."""

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
from pipelines.table.log_entries import Log, parsed
from pipelines.table.log_seal_file import LOG, Chain, State, Written
from pipelines.table.schemas import TABLES

_ENTRY: Final = re.compile(r"\d{20}\.json")
# What readers take for a part of a log: entries, checkpoints of one or more parts, compactions.
_OF_VERSION: Final = re.compile(r"(\d{20})\.(?:json|checkpoint\..+|\d{20}\.compacted\.json)")
# Replaced by each checkpoint, so that an open seal may hold an older one.
MOVING: Final = "_last_checkpoint"


def changed(dest: str, problem: str) -> TableError:
    """The error of a destination whose logs are not what its seal says."""
    return TableError(
        f"{dest} was changed by other hands: {problem}; run `ironmask check`, and restore what it "
        "names from a backup"
    )


def read_log(tables: Tables, store: Store, state: State, name: str) -> Log:
    """A log up to its sealed version, read again from where its chain begins.

    Raises `TableError` where it is not what was sealed.
    """
    sealed = state.logs.get(name, Chain())
    log = read_to(tables, store, state, name, sealed.version)
    if log.chain != sealed or state.lists.get(name, log.list_digest()) != log.list_digest():
        raise changed(tables.dest, other(name, sealed))
    return log


def read_to(tables: Tables, store: Store, state: State, name: str, version: int) -> Log:
    """The same up to another version, which nothing is compared with."""
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


def follow(tables: Tables, store: Store, log: Log, name: str) -> None:
    """Take in what came after a seal that was open, of a release that announced nothing."""
    try:
        while True:
            log.take(store.read(entry(tables, name, log.chain.version + 1)))
    except FileNotFoundError:
        return
    except ValueError:
        raise changed(tables.dest, goes_on(name, log.chain.version, ["no entry"])) from None


def _begun(tables: Tables, store: Store, state: State, name: str) -> Log:
    """Where a log begins: at nothing, or at the checkpoint that stands for what it forgot."""
    base = state.bases().get(name)
    if base is None:
        return Log()
    try:
        content = store.read(layout.join(tables.dest, base))
    except FileNotFoundError:
        raise changed(tables.dest, f"{base} is missing") from None
    if sha256(content).hexdigest() != state.files[base]:
        raise changed(tables.dest, f"{base} is not what was sealed")
    return Log.based(state.start(name), content)


def other(name: str, sealed: Chain) -> str:
    return f"{name}: its log up to version {sealed.version} is not the one that was sealed"


def beyond(tables: Tables, store: Store, versions: dict[str, int]) -> dict[str, list[str]]:
    """Files by which logs go on after some versions, by table; a request or two for each log.

    What a broken-off writing left is none of them, and a checkpoint counts as its version does.
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
    """The version that the pointer to the newest checkpoint names; -1 where it names none."""
    with suppress(FileNotFoundError, ValueError, LookupError, TypeError):
        return int(json.loads(store.read(uri))["version"])
    return -1


def goes_on(name: str, version: int, files: Iterable[str]) -> str:
    """What is wrong with a log that goes on after the last version that is vouched for."""
    return f"{name}: its log goes on after the sealed version {version} ({', '.join(files)})"


def broken_logs(tables: Tables, store: Store, state: State) -> Iterator[str]:
    """What is wrong with the logs: with their entries, and with what stands for forgotten ones."""
    for name in TABLES:
        try:
            read_log(tables, store, state, name)
        except TableError as error:
            yield bare(error, tables.dest)
    yield from _added(tables, store, state)


def bare(error: Exception, dest: str) -> str:
    """The problem in an error of `changed`."""
    text = str(error).removeprefix(f"{dest} was changed by other hands: ")
    return text.partition("; run `ironmask check`")[0]


def _added(tables: Tables, store: Store, state: State) -> Iterator[str]:
    """What lies beyond a seal that its writer cannot have added."""
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
    """The entries that were announced and have come, with their tables, in the order of commits.

    They end with the first that has not: what was to follow it is somebody else's. version: of a
    log, what is taken in already; asked anew for each.
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
    """Whether an entry says what its writer was about to commit."""
    with suppress(ValueError):
        return parsed(content).announcement() == announced
    return False


def creation(tables: Tables, store: Store, name: str) -> Iterator[bytes]:
    """The entries that created a table: two where the answer to the first was lost."""
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
    """Whether an entry says no more than that a table was created."""
    with suppress(ValueError):
        said = parsed(content)
        named = bool(said.added or said.removed or said.sequences)
        return not named and said.others <= {"protocol", "metaData"}
    return False


def unannounced(name: str, version: int) -> str:
    return (
        f"{name}: what its log says from version {version} on is not what the run that holds the "
        "seal was about to commit"
    )


def broken_files(tables: Tables, store: Store, state: State) -> Iterator[str]:
    """What is wrong with the other files beside the log entries, one line for each."""
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

    Forgotten entries that are there are such files too.
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
    """Raise `TableError` where there is no seal, and there was one: it precedes every data file.

    What only older versions hold counts as well.
    """
    if not (written() or has_commits(tables) or _has_data(tables, store)):
        return
    raise changed(tables.dest, f"its seal is missing: {layout.seal_file(tables.dest)}")


def _has_data(tables: Tables, store: Store) -> bool:
    found = (uri for name in TABLES for uri in store.remains(tables.table(name).uri))
    return any(layout.is_ours(uri) and not layout.is_partial(uri) for uri in found)


def has_commits(tables: Tables) -> bool:
    """Whether any table lists a file; the others have nothing to seal."""
    return any(tables.table(name).files() for name in TABLES)


def entry(tables: Tables, name: str, version: int) -> str:
    """Address of an entry of a log."""
    return layout.join(tables.table(name).uri, LOG, entry_name(version))


def entry_name(version: int) -> str:
    return f"{version:020d}.json"


def digest_at(uri: str, store: Store) -> str:
    return sha256(store.read(uri)).hexdigest()
