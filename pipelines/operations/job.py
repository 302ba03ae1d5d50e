"""What operators ask of a destination: its state, a check of it, and the removal of leftovers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from infra.keys.key_file import KeyFile
from infra.settings import load as load_settings
from infra.store.addresses import is_text, normalise
from infra.store.lease import holder
from ironmask.errors import KeyNotFoundError, ParameterError, SourceError
from pipelines.operations import check as checking
from pipelines.operations import erase as erasing
from pipelines.operations import status as stating
from pipelines.operations.check import Report
from pipelines.operations.check_files import Scope
from pipelines.operations.foresee_erasure import foresee, nothing_of
from pipelines.operations.prove import key_states
from pipelines.operations.status import Status
from pipelines.setup import ports
from pipelines.setup.hold import hold_live, own_keys
from pipelines.setup.places import existing, keys_path
from pipelines.table import generations
from pipelines.table.erasing import Erased

_LINE_ENDS: Final = re.compile(r"\r\n|\r|\n")


def status(dest: str) -> Status:
    """Say how far the newest run of a destination is."""
    _, storage = load_settings()
    tables = existing(dest, storage)
    store = ports.open_store(storage)
    return stating.status(tables, store, holder(tables.dest, store))


def check(dest: str, keys: str | None, *, deep: bool, workers: int | None = None) -> Report:
    """Check that a destination is what was written. deep: open every helper as well."""
    settings, storage = load_settings()
    tables = existing(dest, storage)
    file = KeyFile.open(keys_path(keys, settings, tables), tables.table_id)
    states = key_states(file)
    if not any(has_keys for _, has_keys in states.values()):
        raise KeyNotFoundError(
            f"{file.path} holds no live keys, all were destroyed: name the right file with --keys"
        )
    opened = lru_cache(maxsize=None)(file.generation)
    store = ports.open_store(storage)
    scope = Scope(tables, tables.table_id, store, opened, deep, states)
    return checking.check(scope, ports.log_seal_key_of(file), file.has_seals, workers)


def erase(
    dest: str, subjects: Sequence[str], keys: str | None, *, dry_run: bool = False
) -> dict[str, Erased]:
    """Destroy everything that a destination holds of some people, but for the outcomes.

    Returns what went, by subject, or with `dry_run` what would go, and then nothing is written. One
    person is erased after the other: the same call finishes what was broken off. Before the first
    one, raises `ParameterError` for what is no id, `TableError` naming whoever was never there, or
    where all are gone, `BusyError` where another run has to end first.
    """
    if isinstance(subjects, str):
        raise ParameterError("subjects are a list of ids, also where there is one alone")
    wanted = list(dict.fromkeys(subjects))
    _refuse_no_ids(wanted)
    return _foreseen(dest, wanted, keys) if dry_run else _erased(dest, wanted, keys)


def _refuse_no_ids(subjects: Sequence[str]) -> None:
    if not subjects:
        raise ParameterError("nobody is named: give the id of at least one subject")
    for subject in subjects:
        if not isinstance(subject, str) or not subject or not is_text(subject):
            raise ParameterError(f"{subject!r} is no subject's id: it is empty, or not UTF-8")


def _foreseen(dest: str, subjects: Sequence[str], keys: str | None) -> dict[str, Erased]:
    settings, storage = load_settings()
    stored = existing(dest, storage)
    store = ports.open_store(storage)
    file = KeyFile.open(keys_path(keys, settings, stored), stored.table_id)
    tables = ports.sealed(stored, store, file)
    known = generations.read(tables)
    live = own_keys(file, known, generations.live_of(known))
    seen = foresee(tables, store, subjects, live)
    if seen.missing or not seen.found:
        raise nothing_of(stored.dest, seen.missing or subjects)
    return seen.found


def _erased(dest: str, subjects: Sequence[str], keys: str | None) -> dict[str, Erased]:
    done: dict[str, Erased] = {}
    with hold_live(dest, keys) as (held, _):
        seen = foresee(held.tables, held.store, subjects, held.keys)
        if seen.missing or not seen.found:
            held.log_seal.end()
            raise nothing_of(held.tables.dest, seen.missing or subjects)
        for subject in seen.found:
            if done:
                # Each erasure ends with the seal closed.
                held.log_seal.begin()
            done[subject] = erasing.erase(held, subject)
    return done


def subjects_in(address: str) -> list[str]:
    """The ids that a file lists, one a line in UTF-8; blank lines are left out.

    Raises `SourceError` where it is no such list, or names nobody.
    """
    _, storage = load_settings()
    place = normalise(address)
    try:
        text = ports.open_store(storage).read(place).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SourceError(f"{place} is no UTF-8 text: save it so") from None
    if "\0" in text:
        raise SourceError(f"{place} holds NUL characters, so it is no list of ids: save it as text")
    found = [line for line in _LINE_ENDS.split(text) if line.strip()]
    if not found:
        raise SourceError(f"{place} names nobody: write the id of a subject on each line")
    return found
