"""Faults of one shard's files: of its digest, its rows, its helpers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

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
from pipelines.operations.check_files import Outcomes, Pair, Scope, Seen, read_rows
from pipelines.plan.plans import Plan
from pipelines.ports import GenerationKeys
from pipelines.table import contents, layout
from pipelines.table.details import decrypted
from pipelines.table.layout import ShardFile
from pipelines.table.row_cipher import details_of, open_row
from pipelines.table.schemas import (
    COLUMNS_OF_BEFORE,
    INPUTS,
    PARAMS,
    TEMPLATES,
    TEMPLATES_OF_BEFORE,
)
from pipelines.table.text_set import hashes

_ROWS: Final = 8
_PARTITION: Final = "generation"


def check_shard(
    scope: Scope,
    frozen: Plan | None,
    shard: tuple[str, int],
    pair: Pair,
    outcomes: Outcomes,
) -> Seen:
    """Check the files of one shard of a run. pair: paths of its inputs and its templates in their
    tables; None where absent.
    """
    seen = Seen()
    (run_id, number), (inputs, templates) = shard, pair
    gone = run_id in scope.without
    rows = outcomes.of(scope, seen, inputs, number) if inputs else None
    issued = read_rows(scope, seen, "templates", templates) if templates else None
    if rows is not None and inputs:
        seen.findings += _wrong_inputs(scope, frozen, inputs, shard, rows)
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


def _wrong_inputs(
    scope: Scope, frozen: Plan | None, path: str, shard: tuple[str, int], rows: pa.Table
) -> Iterator[str]:
    run_id, number = shard
    if not _are(rows, run_id, number):
        yield f"inputs/{path}: its rows belong to another run or shard"
    if not (rows.schema.equals(INPUTS) or rows.schema.names == COLUMNS_OF_BEFORE["inputs"]):
        yield f"inputs/{path}: its columns are not those of the table"
    # A shard that no plan has is found with its run.
    if frozen is None or number >= frozen.shards:
        return
    try:
        planned = frozen.shard(number, scope.store)
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
    named = _named(path)
    if not _are(rows, named.run_id, named.shard):
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


def _are(rows: pa.Table, run_id: str, shard: int) -> bool:
    runs, shards = pc.equal(rows["run_id"], run_id), pc.equal(rows["shard"], shard)
    return bool(pc.all(pc.and_(runs, shards)).as_py())


def _generation(path: str) -> int:
    return int(path.split("/")[0].removeprefix(f"{_PARTITION}="))


def _note_subjects(seen: Seen, rows: pa.Table, generation: int) -> None:
    own = seen.subjects.setdefault(generation, bytearray())
    own += hashes(rows["subject_id"]).tobytes()
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
