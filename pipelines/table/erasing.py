"""The note of an erasure that is under way."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ironmask.errors import BusyError
from pipelines.ports import Store
from pipelines.table import layout


@dataclass(frozen=True)
class Erased:
    """What an erasure did. run_id: what it is recorded as. pseudonym: what the person's outcomes
    are kept under. templates, outcomes, embeddings: rows.
    """

    run_id: str
    pseudonym: str
    templates: int
    outcomes: int
    embeddings: int


def read_note(dest: str, store: Store) -> Erased | None:
    """What an erasure that was broken off is about; None where none was."""
    try:
        return Erased(**json.loads(store.read(layout.erasure_file(dest))))
    except FileNotFoundError:
        return None


def refuse_unfinished_erasure(dest: str, store: Store) -> None:
    """Raise `BusyError` where an erasure was broken off."""
    if read_note(dest, store):
        raise BusyError(
            f"{dest}: the erasure of a subject was broken off: finish it first with `ironmask "
            "erase` and the same subject"
        )
