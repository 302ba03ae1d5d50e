"""The note of an unfinished erasure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

from ironmask.errors import BusyError, TableError
from pipelines.ports import Store
from pipelines.table import layout

_RUN: Final = re.compile("[0-9a-f]{12}")
_PSEUDONYM: Final = re.compile(f"{layout.PSEUDONYM}[0-9a-f]+")


@dataclass(frozen=True)
class Erased:
    """The result of an erasure. run_id: its record. pseudonym: the name under which the subject's
    outcomes are kept. templates, outcomes, embeddings: numbers of rows.
    """

    run_id: str
    pseudonym: str
    templates: int
    outcomes: int
    embeddings: int


def read_note(dest: str, store: Store) -> Erased | None:
    """The note of an interrupted erasure; None if there is none.

    Raises `TableError` where something else lies in its place.
    """
    address = layout.erasure_file(dest)
    try:
        return _parsed(store.read(address))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise TableError(
            f"{address} is no note of an erasure, or is damaged: restore it from a backup; where "
            "there is none, remove it and run `ironmask erase` again for whoever was being erased"
        ) from None


def _parsed(content: bytes) -> Erased:
    note = Erased(**json.loads(content))
    texts = _RUN.fullmatch(note.run_id) and _PSEUDONYM.fullmatch(note.pseudonym)
    counts = (note.templates, note.outcomes, note.embeddings)
    if not texts or not all(type(n) is int and n >= 0 for n in counts):
        raise ValueError
    return note


def refuse_unfinished_erasure(dest: str, store: Store) -> None:
    """Raise `BusyError` where an erasure was interrupted. Other errors are those of `read_note`."""
    if read_note(dest, store):
        raise BusyError(
            f"{dest}: the erasure of a subject was broken off: finish it first with `ironmask "
            "erase` and the same subject"
        )
