"""Files of outcomes: one holds those of many shards, and says under a sealed digest which.

Outcomes of finished shards wait in the driver, which writes them together. Beside its rows, such a
file has a list of its shards and of the attempts that did them. Its name holds the list's digest,
so the list can be read alone and is what was written. The list ends with an HMAC-SHA-256: before a
log lists a file, nobody else can have made it cover a shard. Releases of before wrote a file for
each shard, whose name says all.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ironmask.errors import StorageError, TableError, TamperedError
from pipelines.ports import DataFile, Store, Tables
from pipelines.table import layout
from pipelines.table.data_files import batched, described, read_data_file, remedy
from pipelines.table.layout import Attempt, WaveFile
from pipelines.table.schemas import INPUTS, as_parquet

INPUTS_TABLE: Final = "inputs"
_LIST: Final = b"ironmask.attempts"
_DOMAIN: Final = "ironmask attempts v1"
_LINE: Final = re.compile(r"(\d{6,})-([0-9a-f]{16})")
_THREADS: Final = 16
_WINDOW: Final = 256


def write(
    dest: str, store: Store, attempts: Collection[Attempt], rows: pa.Table, key: bytes
) -> DataFile:
    """Write the outcomes of some attempts, all of one run, as one file. It waits for its commit.

    key: 32 bytes, that of the seal.
    """
    (run_id,) = {one[0] for one in attempts}
    lines = "\n".join(f"{shard:06d}-{attempt}" for _, shard, attempt in sorted(attempts))
    said = f"{lines}\n{_tag(key, run_id, lines)}".encode()
    file = WaveFile(run_id, len(attempts), sha256(said).hexdigest(), "")
    return _written(dest, store, file, said, rows.cast(INPUTS))


def copied(dest: str, store: Store, path: str, rows: pa.Table) -> DataFile:
    """Write other rows for the attempts of a file. The copy counts once it is committed."""
    file = layout.parse_wave_file(path)
    assert file is not None  # noqa: S101
    said = _said(store, layout.join(dest, INPUTS_TABLE, path), file)
    return _written(dest, store, file, said, rows.cast(INPUTS))


def _written(dest: str, store: Store, file: WaveFile, said: bytes, rows: pa.Table) -> DataFile:
    content = as_parquet(rows.replace_schema_metadata({_LIST: said}))
    name = WaveFile(file.run_id, file.shards, file.attempts, sha256(content).hexdigest()).name
    store.write(layout.join(dest, INPUTS_TABLE, name), content)
    return described(name, len(content), {"subject_id": rows["subject_id"].to_pylist()}, {})


def _tag(key: bytes, run_id: str, lines: str) -> str:
    return hmac.new(key, f"{_DOMAIN}\n{run_id}\n{lines}".encode(), sha256).hexdigest()


def attempts_in(store: Store, uri: str, key: bytes | None = None) -> list[Attempt]:
    """The attempts whose outcomes a file holds, by its name or the list in it.

    key: that of the seal, for a file that no log lists. Raises `TableError` where it is missing,
    `TamperedError` where its list is not what was written.
    """
    if shard := layout.parse_shard_file(uri):
        return [layout.attempt_of(shard)]
    file = layout.parse_wave_file(uri)
    if file is None:
        return []
    lines, _, tag = _said(store, uri, file).decode(errors="replace").rpartition("\n")
    found = [_LINE.fullmatch(line) for line in lines.split("\n")]
    known = [(file.run_id, int(one[1]), one[2]) for one in found if one]
    is_ours = key is None or hmac.compare_digest(tag, _tag(key, file.run_id, lines))
    if len(known) != file.shards or not is_ours:
        raise _other(uri)
    return known


def _said(store: Store, uri: str, file: WaveFile) -> bytes:
    """The list in a file, as its name says."""
    try:
        with store.open(uri) as handle:
            said = (pq.read_metadata(handle).metadata or {}).get(_LIST, b"")
    except FileNotFoundError:
        raise TableError(f"{uri} is missing: {remedy(uri, uri, None)}") from None
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, StorageError):
            raise
        raise TamperedError(
            f"{uri} cannot be read as Parquet ({type(error).__name__}): {remedy(uri, uri, None)}"
        ) from None
    if sha256(said).hexdigest() != file.attempts:
        raise _other(uri)
    return bytes(said)


def _other(uri: str) -> TamperedError:
    return TamperedError(f"{uri} is not what was written: {remedy(uri, uri, None)}")


Found = tuple[str, list[Attempt]]
"""The path of a file of outcomes, and the attempts that it covers."""


def listed(
    tables: Tables,
    store: Store,
    runs: Collection[str] | None = None,
    wrong: Callable[[str, Exception], None] | None = None,
) -> Iterator[Found]:
    """Each file that the log of `inputs` lists, of some runs only or of all, with its attempts.

    wrong: called for a file that cannot tell; otherwise this raises as `attempts_in` does.
    """
    paths = tables.table(INPUTS_TABLE).files()
    own = (path for path in paths if layout.is_of(path, runs))
    yield from of_files(tables, store, own, wrong)


def of_files(
    tables: Tables,
    store: Store,
    paths: Iterable[str],
    wrong: Callable[[str, Exception], None] | None = None,
) -> Iterator[Found]:
    """Some files of `inputs`, or of shards in any table, each with its attempts; see `listed`."""
    table = tables.table(INPUTS_TABLE)

    def one(path: str) -> Found | None:
        try:
            return path, attempts_in(store, layout.join(table.uri, path))
        except (TableError, TamperedError) as error:
            if wrong is None:
                raise
            wrong(path, error)
            return None

    wanted = sorted(paths)
    yield from (found for path in wanted if layout.parse_shard_file(path) and (found := one(path)))
    waves = [path for path in wanted if layout.parse_wave_file(path)]
    if not waves:
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        for some in batched(waves, _WINDOW):
            yield from filter(None, pool.map(one, some))


def by_attempt(tables: Tables, store: Store) -> dict[Attempt, str]:
    """The file of `inputs` that has the outcomes of each attempt. Raises as `attempts_in` does."""
    return {attempt: path for path, own in listed(tables, store) for attempt in own}


def outcomes_of(dest: str, store: Store, path: str, shards: Sequence[int]) -> pa.Table:
    """The rows of some shards in a file of `inputs`. Raises as `read_data_file` does."""
    return of_shards(path, read_data_file(dest, store, INPUTS_TABLE, path), shards)


def of_shards(path: str, rows: pa.Table, shards: Sequence[int]) -> pa.Table:
    """Those of the rows of a file of `inputs` that are of some shards."""
    if layout.parse_wave_file(path) is None:
        return rows
    return rows.filter(pc.is_in(rows["shard"], pa.array(shards, rows["shard"].type)))
