"""Questions to a destination: does this probe match that subject, and what does the table hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from ironmask.errors import (
    ImageError,
    KeyStoreError,
    MismatchError,
    TableError,
    TemplateError,
    WrongKeyError,
)
from ironmask.helper import encoding
from ironmask.params import Params
from ironmask.template import row_bytes, verify_batch
from pipelines import generations, ledger
from pipelines.job import DECLARED
from pipelines.ports import F32, Aligner, GenerationKeys, Recogniser, Tables
from pipelines.sealing import open_row


@dataclass(frozen=True)
class Verdict:
    """The answer for one probe: yes, no, or why there is none."""

    probe: str
    accepted: bool | None
    reason: str = ""
    detail: str = ""


def find_row(tables: Tables, subject: str, generation: int | None = None) -> dict[str, Any]:
    """Return a subject's row of a generation, the live one if none is named.

    Raises `TableError` where there is none, or more than one.
    """
    own = pads.field("subject_id") == subject
    if generation is None:
        generation = generations.live(tables)
    where = own & (pads.field("generation") == generation)
    live: list[dict[str, Any]] = tables.table("templates").rows(where=where).to_pylist()
    if not live:
        raise TableError(f"{tables.dest} holds no template of subject {subject!r}")
    if len(live) > 1:
        raise TableError(
            f"{tables.dest} holds {len(live)} live templates of subject {subject!r}: two issues "
            "of one person can be broken together; remove one and re-protect the other"
        )
    return live[0]


Row = tuple[dict[str, Any], GenerationKeys]


def open_live(tables: Tables, subject: str, opener: Callable[[int], GenerationKeys]) -> Row:
    """A subject's live row and the keys of its generation, also while another one takes its place.

    opener: opens the keys of a generation. Raises `TableError` where there is no such row,
    `KeyStoreError` where its keys are not at hand, or are not those that sealed it.
    """
    while True:
        before = generations.live(tables)
        try:
            row = find_row(tables, subject, before)
            keys = opener(row["generation"])
        except (TableError, KeyStoreError):
            # What was live when it was looked for may have been destroyed since.
            if generations.live(tables) == before:
                raise
            continue
        if keys.key_id != row["key_id"]:
            raise WrongKeyError(
                f"the keys at hand are {keys.key_id}; subject {subject!r} was sealed under "
                f"{row['key_id']}"
            )
        return row, keys


def verify_embeddings(
    table_id: str, row: dict[str, Any], embeddings: F32, keys: GenerationKeys
) -> list[bool]:
    """Tell for each probe embedding, (k, n), whether it matches the row."""
    protected = open_row(table_id, row, keys)
    answers = verify_batch(protected, embeddings, keys.row_key(row["template_id"]))
    return [bool(answer) for answer in answers]


def verify_images(
    table_id: str,
    row: dict[str, Any],
    images: Sequence[tuple[str, bytes]],
    model: tuple[str, str],
    aligner: Aligner,
    recogniser: Recogniser,
    keys: GenerationKeys,
) -> list[Verdict]:
    """Tell for each probe image, given as (name, content), whether it matches the row.

    model: fingerprint and name of the pack at hand.
    Raises `MismatchError` where the model is not the one that enrolled the subject.
    """
    _check_model(row, *model)
    verdicts: list[Verdict] = []
    for name, data in images:
        try:
            face = aligner.align(data)
            embedding = recogniser.embed(face.crop[None])
            accepted = verify_embeddings(table_id, row, embedding, keys)[0]
        except (ImageError, TemplateError) as error:
            verdicts.append(Verdict(name, None, error.reason, str(error)))
        else:
            verdicts.append(Verdict(name, accepted))
    return verdicts


def _check_model(row: dict[str, Any], fingerprint: str, name: str) -> None:
    """Stored embeddings may only say the name of the model that made them."""
    if row["model"] in (fingerprint, DECLARED + name):
        return
    if row["model"].startswith(DECLARED):
        said = row["model"].removeprefix(DECLARED)
        raise MismatchError(
            f"subject {row['subject_id']!r} was enrolled from stored embeddings of a model "
            f"declared as {said!r}, not {name!r}: only a pack of that name can be compared"
        )
    raise MismatchError(
        f"subject {row['subject_id']!r} was enrolled with model {row['model'][:12]}, not "
        f"{name} ({fingerprint[:12]}): give that model with --model"
    )


@dataclass(frozen=True)
class Generation:
    """What one generation of a table holds. state: preparing, live, retired or destroyed."""

    generation: int
    state: str
    templates: int
    settings: str
    bits: float
    sealed: bool
    model: str
    key_id: str
    row_bytes: int


@dataclass(frozen=True)
class Inventory:
    """What a destination holds. destroyed: when each generation that is gone went, UTC.

    outcomes, reasons: of the inputs of all runs, each re-protection's among them.
    """

    dest: str
    table_id: str
    generations: list[Generation]
    destroyed: dict[int, str]
    data_bytes: dict[str, int]
    outcomes: dict[str, int]
    reasons: dict[str, int]
    runs: list[dict[str, Any]]


def inventory(tables: Tables) -> Inventory:
    """Count a destination's templates, inputs and bytes."""
    counted = tables.table("inputs").rows(["outcome", "reason"])
    known = generations.read(tables)
    return Inventory(
        dest=tables.dest,
        table_id=tables.table_id,
        generations=_generations(tables, known),
        destroyed={
            one.number: one.at.isoformat(timespec="seconds")
            for one in generations.in_state(known, generations.State.DESTROYED)
        },
        data_bytes={
            name: sum(tables.table(name).files().values())
            for name in ("templates", "inputs", "vault")
        },
        outcomes=_counts(counted["outcome"]),
        reasons={k: v for k, v in _counts(counted["reason"]).items() if k},
        runs=[
            {
                "run_id": r.run_id,
                "kind": r.kind,
                "state": r.state,
                "counts": r.counts,
                "seconds": r.timings.get("seconds"),
            }
            for r in ledger.records(tables)
        ],
    )


def _counts(column: Any) -> dict[str, int]:
    found = pc.value_counts(column).to_pylist()
    return {item["values"]: item["counts"] for item in sorted(found, key=lambda i: -i["counts"])}


_SHAPE = ["generation", "n", "alpha", "tolerance", "encoding", "sealed", "model", "key_id"]


def _generations(tables: Tables, known: dict[int, generations.Generation]) -> list[Generation]:
    found = templates_by(tables, _SHAPE)
    states = {number: str(one.state) for number, one in known.items()}
    return [_generation(row, count, states.get(row["generation"], "begun")) for row, count in found]


def templates_by(tables: Tables, columns: list[str]) -> list[tuple[dict[str, Any], int]]:
    """How many templates share the values of some columns, in the order of the first of them."""
    # Sums over batches: the rows of a large table do not fit in memory, and helpers stay unread.
    counts = [
        batch.group_by(columns).aggregate([([], "count_all")])
        for batch in map(_table, tables.table("templates").batches(columns))
    ]
    if not counts:
        return []
    grouped = pa.concat_tables(counts).group_by(columns).aggregate([("count_all", "sum")])
    rows = grouped.sort_by(columns[0]).to_pylist()
    return [(row, row.pop("count_all_sum")) for row in rows]


def _table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])


def _generation(row: dict[str, Any], templates: int, state: str) -> Generation:
    params = Params(n=row["n"], alpha=row["alpha"], tolerance=row["tolerance"])
    return Generation(
        generation=row["generation"],
        state=state,
        templates=templates,
        settings=f"{params.describe()}, {encoding(row['encoding']).name}",
        bits=params.bits,
        sealed=row["sealed"],
        model=row["model"],
        key_id=row["key_id"],
        row_bytes=row_bytes(params, row["encoding"]),
    )
