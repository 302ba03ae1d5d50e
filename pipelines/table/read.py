"""Look up a subject's row in a destination, and count templates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from ironmask.errors import KeyStoreError, SubjectError, TableError, WrongKeyError
from pipelines.ports import GenerationKeys, Tables
from pipelines.spec.outcomes import Unanswered
from pipelines.table import generations
from pipelines.table.data_files import together
from pipelines.table.sealed import SealedTables


def find_row(tables: Tables, subject: str, generation: int | None = None) -> dict[str, Any]:
    """Return a subject's row of a generation, the live one if none is named.

    Raises `SubjectError` where there is none, or more than one.
    """
    own = pads.field("subject_id") == subject
    if generation is None:
        generation = generations.live(tables)
    where = own & (pads.field("generation") == generation)
    found = tables.table("templates").rows(where=where, people=[subject])
    return _the_one(tables.dest, subject, found.to_pylist())


def _the_one(dest: str, subject: str, live: list[dict[str, Any]]) -> dict[str, Any]:
    if not live:
        raise SubjectError(
            Unanswered.NO_TEMPLATE, f"{dest} holds no template of subject {subject!r}"
        )
    if len(live) > 1:
        raise SubjectError(
            Unanswered.SEVERAL_TEMPLATES,
            f"{dest} holds {len(live)} live templates of subject {subject!r}: two issues "
            "of one person can be broken together; remove one and re-protect the other",
        )
    return live[0]


Row = tuple[dict[str, Any], GenerationKeys]
Opener = Callable[[int], GenerationKeys]


def open_live(tables: SealedTables, subject: str, opener: Opener) -> Row:
    """A subject's live row and the keys of its generation, also while another one takes its place.

    opener: opens the keys of a generation. Raises `SubjectError` where there is no such row, or
    more than one, `KeyStoreError` where its keys are not at hand, or are not those that sealed it.
    """
    found = open_live_rows(tables, [subject], opener)[subject]
    if isinstance(found, SubjectError):
        raise found
    return found


def open_live_rows(
    tables: SealedTables, subjects: Sequence[str], opener: Opener
) -> dict[str, Row | SubjectError]:
    """The same for several subjects, whose rows are read together: a row, or why there is none."""
    while True:
        seen = tables.renewals
        try:
            found = _opened(tables, subjects, opener)
        except (TableError, KeyStoreError):
            # What was live when it was looked for may have been destroyed since.
            if tables.refresh_since(seen):
                continue
            raise
        lacking = any(isinstance(one, SubjectError) for one in found.values())
        if not (lacking and tables.refresh_since(seen)):
            return found


def _opened(
    tables: SealedTables, subjects: Sequence[str], opener: Opener
) -> dict[str, Row | SubjectError]:
    generation = generations.live(tables)
    rows: dict[str, list[dict[str, Any]]] = {subject: [] for subject in subjects}
    for row in tables.table("templates").of_people(list(rows), generation).to_pylist():
        rows[row["subject_id"]].append(row)
    return {
        subject: _opened_row(tables.dest, subject, own, opener) for subject, own in rows.items()
    }


def _opened_row(
    dest: str, subject: str, own: list[dict[str, Any]], opener: Opener
) -> Row | SubjectError:
    try:
        row = _the_one(dest, subject, own)
    except SubjectError as error:
        return error
    keys = opener(row["generation"])
    if keys.key_id != row["key_id"]:
        raise WrongKeyError(
            f"the keys at hand are {keys.key_id}; subject {subject!r} was sealed under "
            f"{row['key_id']}"
        )
    return row, keys


def templates_by(tables: Tables, columns: list[str]) -> list[tuple[dict[str, Any], int]]:
    """The number of templates by the values of some columns, in order of first appearance."""
    # Sum over batches: the rows of a large table do not fit in memory. Helpers stay unread.
    counts = [
        rows.group_by(columns).aggregate([([], "count_all")])
        for rows in together(tables.table("templates").batches(columns))
    ]
    if not counts:
        return []
    grouped = pa.concat_tables(counts).group_by(columns).aggregate([("count_all", "sum")])
    rows = grouped.sort_by(columns[0]).to_pylist()
    return [(row, row.pop("count_all_sum")) for row in rows]
