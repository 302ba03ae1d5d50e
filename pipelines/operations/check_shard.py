"""Faults of one shard's files: of its digest, its rows, its helpers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ironmask import helper
from ironmask.errors import (
    EncodingError,
    IronmaskError,
    KeyStoreError,
    ParameterError,
    TableError,
    TamperedError,
)
from ironmask.params import Params
from pipelines.plan.plans import Plan
from pipelines.ports import GenerationKeys, Store, Tables
from pipelines.table import contents, layout
from pipelines.table.data_files import is_intact, remedy
from pipelines.table.details import decrypted
from pipelines.table.grouped_files import OWNER, footer_of
from pipelines.table.layout import ShardFile
from pipelines.table.row_cipher import details_of, open_row
from pipelines.table.schemas import (
    COLUMNS_OF_BEFORE,
    INPUTS,
    PARAMS,
    TEMPLATES,
    TEMPLATES_OF_BEFORE,
)

Keys = Callable[[int], GenerationKeys]
_HASH_BYTES: Final = 16
_ROWS: Final = 8
_PARTITION: Final = "generation"


@dataclass(frozen=True)
class Scope:
    """The facts that all checks of one destination share.

    keys: those of a generation, by number. key_states: for each generation in the keyset file, its
    key id and whether its keys are there. without: runs whose templates were destroyed since.
    params: by run, those that it recorded.
    """

    tables: Tables
    table_id: str
    store: Store
    keys: Keys = field(repr=False)
    deep: bool
    key_states: Mapping[int, tuple[str, bool]] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    params: Mapping[str, Params] = field(default_factory=dict)


@dataclass
class Seen:
    """The findings and counts of a part of a destination.

    subjects: 16-byte BLAKE2b hashes of the templates' subjects, end to end, by generation; not
    for `add`. gone: for each run, templates that were erased since, or whose files were lost.
    """

    findings: list[str] = field(default_factory=list)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    subjects: dict[int, bytearray] = field(default_factory=dict)
    templates: Counter[str] = field(default_factory=Counter)
    gone: Counter[str] = field(default_factory=Counter)
    opened: int = 0
    files: int = 0
    size: int = 0

    def add(self, other: Seen) -> None:
        self.findings += other.findings
        self.outcomes += other.outcomes
        self.templates += other.templates
        self.gone += other.gone
        self.opened += other.opened
        self.files += other.files
        self.size += other.size


def check_shard(
    scope: Scope, frozen: Plan | None, inputs: str | None, templates: str | None
) -> Seen:
    """Check the files of one shard, given by their paths in their tables; None where absent."""
    seen = Seen()
    gone = _named(str(inputs or templates)).run_id in scope.without
    rows = _read(scope, seen, "inputs", inputs) if inputs else None
    issued = _read(scope, seen, "templates", templates) if templates else None
    if rows is not None and inputs:
        seen.findings += _wrong_inputs(scope, frozen, inputs, rows)
        _note_gone(seen, rows)
        if scope.deep:
            seen.findings += _wrong_details(scope, inputs, rows)
        counted = rows.group_by(["run_id", "outcome"]).aggregate([([], "count_all")])
        for row in counted.to_pylist():
            seen.outcomes[row["run_id"], row["outcome"]] += row["count_all"]
    if issued is not None and templates and not gone:
        seen.findings += _wrong_templates(scope, templates, issued)
        _note_subjects(seen, issued, _generation(templates))
        if scope.deep:
            _open_all(scope, seen, templates, issued)
    if inputs and rows is not None and not gone and (issued is not None or not templates):
        seen.findings += _wrong_owners(inputs, rows, issued)
    return seen


def check_file(scope: Scope, name: str, path: str) -> Seen:
    """Check a file whose rows belong to no shard."""
    seen = Seen()
    _read(scope, seen, name, path)
    return seen


def _read(scope: Scope, seen: Seen, name: str, path: str) -> pa.Table | None:
    """The rows of a data file. None where the file was changed; this is noted."""
    uri = layout.join(scope.tables.table(name).uri, path)
    seen.files += 1
    try:
        content = scope.store.read(uri)
    except FileNotFoundError:
        return None  # found when the files were listed
    except IronmaskError as error:
        seen.findings.append(str(error))
        return None
    seen.size += len(content)
    if not is_intact(path, content):
        people = scope.tables.table(name).counts().get(path)
        seen.findings.append(
            f"{uri}: its content is not what was written: {remedy(uri, path, people)}"
        )
        return None
    try:
        parquet = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        # An Arrow thread that frees a buffer while the interpreter ends aborts the process.
        table = parquet.read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        seen.findings.append(f"{uri} cannot be read as Parquet ({type(error).__name__})")
        return None
    named = layout.parse_shard_file(path)
    footer = footer_of(content) if named and named.groups else None
    if footer and list(chain.from_iterable(footer.owners)) != table[OWNER].to_pylist():
        seen.findings.append(f"{uri}: its footer names other people than its rows do")
    return table


def _wrong_inputs(scope: Scope, frozen: Plan | None, path: str, rows: pa.Table) -> Iterator[str]:
    named = _named(path)
    if not _are(rows, named):
        yield f"inputs/{path}: its rows belong to another run or shard"
    if not (rows.schema.equals(INPUTS) or rows.schema.names == COLUMNS_OF_BEFORE["inputs"]):
        yield f"inputs/{path}: its columns are not those of the table"
    # A shard that no plan has is found with its run.
    if frozen is None or named.shard >= frozen.shards:
        return
    try:
        planned = frozen.shard(named.shard, scope.store)
    except IronmaskError as error:
        yield str(error)
        return
    wanted = Counter((row["subject_id"], row["uri"]) for row in planned)
    found = Counter(zip(*(rows[name].to_pylist() for name in ("subject_id", "uri")), strict=True))
    if lost := wanted - found:
        yield f"inputs/{path}: {lost.total():,} planned inputs have no outcome"
    if extra := found - wanted:
        yield f"inputs/{path}: {extra.total():,} outcomes are of no planned input, or twice there"


def _wrong_details(scope: Scope, path: str, rows: pa.Table) -> Iterator[str]:
    """Details that the keys of the table do not open."""
    live = [number for number, (_, there) in scope.key_states.items() if there]
    if not live:
        return
    keys = scope.keys(max(live)).table
    wrong = 0
    for row in rows.to_pylist():
        try:
            decrypted(scope.table_id, row, keys)
        except (TamperedError, KeyStoreError):
            wrong += 1
    if wrong:
        yield f"inputs/{path}: the details of {wrong:,} rows do not open with the table's keys"


def _wrong_templates(scope: Scope, path: str, rows: pa.Table) -> Iterator[str]:
    if not _are(rows, _named(path)):
        yield f"templates/{path}: its rows belong to another run or shard"
    known = (TEMPLATES.names, *TEMPLATES_OF_BEFORE)
    if rows.schema.names not in [[n for n in names if n != _PARTITION] for names in known]:
        yield f"templates/{path}: its columns are not those of the table"
    yield from _wrong_params(scope, path, rows)
    generation = _generation(path)
    try:
        keys = scope.keys(generation)
    except KeyStoreError as error:
        yield f"templates/{path}: {error}"
        return
    if not pc.all(pc.equal(rows["key_id"], keys.key_id)).as_py():
        yield f"templates/{path}: rows name other keys than those of generation {generation}"
    if not pc.all(pc.equal(rows["sealed"], keys.sealed)).as_py():
        yield f"templates/{path}: rows say sealed = {not keys.sealed}, their keys say the contrary"


def _wrong_params(scope: Scope, path: str, rows: pa.Table) -> Iterator[str]:
    """Rows that say other parameters than their run recorded: a generation never mixes them."""
    run_id = _named(path).run_id
    said = scope.params.get(run_id)
    names = [name for name in PARAMS if name in rows.schema.names]
    found = rows.select(names).group_by(names).aggregate([]).to_pylist()
    if said and any(_recorded(one) != said for one in found):
        yield f"templates/{path}: its rows have other parameters than run {run_id} recorded"


def _recorded(row: dict[str, Any]) -> Params | None:
    try:
        return Params.recorded(row)
    except (LookupError, ParameterError):
        return None


def _named(path: str) -> ShardFile:
    named = layout.parse_shard_file(path)
    if named is None:
        raise ValueError(f"{path} is not the name of a shard's file")
    return named


def _are(rows: pa.Table, named: ShardFile) -> bool:
    runs, shards = pc.equal(rows["run_id"], named.run_id), pc.equal(rows["shard"], named.shard)
    return bool(pc.all(pc.and_(runs, shards)).as_py())


def _generation(path: str) -> int:
    return int(path.split("/")[0].removeprefix(f"{_PARTITION}="))


def _note_subjects(seen: Seen, rows: pa.Table, generation: int) -> None:
    hashes = seen.subjects.setdefault(generation, bytearray())
    for subject in rows["subject_id"].to_pylist():
        hashes += blake2b(subject.encode(), digest_size=_HASH_BYTES).digest()
    seen.templates.update(rows["run_id"].to_pylist())


def _note_gone(seen: Seen, rows: pa.Table) -> None:
    gone = rows.filter(contents.is_counted(rows))
    people = gone.group_by(["run_id", "subject_id"]).aggregate([])
    seen.gone.update(people["run_id"].to_pylist())


def _wrong_owners(path: str, rows: pa.Table, issued: pa.Table | None) -> Iterator[str]:
    """Subjects with used inputs but no template that counts them, or the other way round."""
    used = rows.filter(contents.is_used(rows))
    wanted = Counter(used["subject_id"].to_pylist())
    counts = [] if issued is None else issued.select(["subject_id", "images_used"]).to_pylist()
    found = Counter({row["subject_id"]: row["images_used"] for row in counts})
    if wanted != found:
        wrong = len([name for name in wanted | found if wanted[name] != found[name]])
        yield f"inputs/{path}: {wrong:,} subjects have used inputs and templates that do not agree"


def _open_all(scope: Scope, seen: Seen, path: str, rows: pa.Table) -> None:
    generation = _generation(path)
    try:
        keys = scope.keys(generation)
    except KeyStoreError:
        return
    for batch in rows.to_batches(max_chunksize=_ROWS):
        for row in batch.to_pylist():
            try:
                _open({**row, _PARTITION: generation}, scope, keys)
                seen.opened += 1
            except (TamperedError, EncodingError, TableError) as error:
                seen.findings.append(f"templates/{path}: {error}")


def _open(row: dict[str, Any], scope: Scope, keys: GenerationKeys) -> None:
    protected = open_row(scope.table_id, row, keys)
    details_of(scope.table_id, row, keys)
    helper.decode([protected.helper], protected.params, protected.encoding)
