"""What an erasure of several people would destroy, found before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Final

import pyarrow.dataset as pads

from ironmask.errors import TableError
from pipelines.operations.erase import people_planned, refuse_unfinished
from pipelines.operations.prove_erasure import PURPOSE, names_of
from pipelines.ports import GenerationKeys, Store, Tables
from pipelines.table import layout, run_records
from pipelines.table.erasing import Erased, read_note
from pipelines.table.pseudonyms import stored_subjects

_SHOWN: Final = 20
_HELD: Final = ("templates", "inputs", "vault")
# Statistics of files are compared with so many ids one by one.
_FEW: Final = 16


@dataclass(frozen=True)
class Foreseen:
    """What would go of some people, by subject; and those of whom nothing ever was there.

    Who was erased before is neither here nor there.
    """

    found: dict[str, Erased]
    missing: list[str]


def foresee(
    tables: Tables, store: Store, subjects: Sequence[str], keys: GenerationKeys
) -> Foreseen:
    """What would go of each of some people, none of whom comes twice; `run_id` is empty.

    Whose erasure was broken off comes first. keys: of the live generation. Raises `BusyError` where
    another run has to end first.
    """
    names = {subject: names_of(keys, subject) for subject in subjects}
    refuse_unfinished(tables, store, [name for some in names.values() for name in some])
    begun = read_note(tables.dest, store)
    erased = set(_erased(tables))
    counts = _counts(tables, store, stored_subjects(tables, keys.table, subjects))
    found: dict[str, Erased] = {}
    missing = []
    for (subject, own), held in zip(names.items(), counts, strict=True):
        if begun and begun.pseudonym in own:
            found = {subject: begun, **found}
        elif held is not None:
            found[subject] = Erased("", own[0], *held)
        elif not erased & set(own):
            missing.append(subject)
    return Foreseen(found, missing)


def _erased(tables: Tables) -> Iterator[str]:
    """The pseudonyms of everybody who was erased."""
    for record in run_records.records(tables):
        if record.kind == PURPOSE:
            yield str(record.config["pseudonym"])


def _counts(
    tables: Tables, store: Store, stored: Sequence[str]
) -> list[tuple[int, int, int] | None]:
    """How many templates, outcomes and embeddings there are of each; None where nothing is."""
    owner = pads.field("subject_id")
    few = len(stored) <= _FEW
    of_some = reduce(or_, [owner == one for one in stored]) if few else owner.isin(stored)
    held = {
        name: Counter(
            tables.table(name).rows(["subject_id"], of_some, stored)["subject_id"].to_pylist()
        )
        for name in _HELD
    }
    planned = set(_planned(tables, store, stored))
    rows = [(held["templates"][one], held["inputs"][one], held["vault"][one]) for one in stored]
    return [
        own if any(own) or one in planned else None for one, own in zip(stored, rows, strict=True)
    ]


def _planned(tables: Tables, store: Store, stored: Sequence[str]) -> Iterator[str]:
    for record in run_records.runs(tables):
        if record.fingerprint.get("plan"):
            folder = layout.plan_folder(tables.dest, record.run_id)
            yield from people_planned(folder, store, stored)


def nothing_of(dest: str, subjects: Sequence[str]) -> TableError:
    """The error that names people of whom a destination holds nothing."""
    shown = ", ".join(map(repr, subjects[:_SHOWN]))
    more = f" and {len(subjects) - _SHOWN:,} more" if len(subjects) > _SHOWN else ""
    who = f"subject {shown}" if len(subjects) == 1 else f"the subjects {shown}{more}"
    return TableError(f"{dest} holds nothing of {who}")
