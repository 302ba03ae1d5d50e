"""Check a destination: seal, logs, files, digests, counts, subjects, helpers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, groupby
from typing import Final

import numpy as np

from ironmask.errors import IronmaskError, TableError
from ironmask.params import Params
from pipelines.operations.check_files import (
    SHARD_TABLES,
    Files,
    Outcomes,
    Pair,
    Scope,
    Seen,
    check_file,
    check_untold,
    pairs_of,
)
from pipelines.operations.check_shard import check_shard
from pipelines.plan import plans as plan_plans
from pipelines.plan.plans import Plan
from pipelines.spec.outcomes import Outcome
from pipelines.spec.template_job import Purpose
from pipelines.table import generations, layout, log_chain, log_seal_file, run_records
from pipelines.table.data_files import batched, remedy
from pipelines.table.generations import Generation, State
from pipelines.table.layout import Attempt
from pipelines.table.log_seal_file import KeyOf, Written
from pipelines.table.orphans import orphans
from pipelines.table.run_records import RunRecord, RunState
from pipelines.table.schemas import TABLES
from pipelines.table.text_set import HASH, Sorter

_AGAIN: Final = 3
_WINDOW: Final = 256


@dataclass(frozen=True)
class Report:
    """The result of a check. findings: faults. notes: traces of an unfinished run."""

    dest: str
    table_id: str
    deep: bool
    files: int
    size: int
    inputs: int
    templates: int
    helpers_opened: int
    seconds: float
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not self.findings


def check(scope: Scope, key_of: KeyOf, written: Written, workers: int | None = None) -> Report:
    """Check a destination; with `scope.deep`, open every helper as well.

    key_of: finds the key of a seal by its key id. written: tells whether seals with lists were
    written before. It reads every file that the logs list, `workers` at a time (default: one a
    core). If a re-protection or an erasure goes on meanwhile, it may cause the findings; then the
    check looks again.
    """
    for _ in range(_AGAIN):
        before = _destructions(scope)
        report = _checked(scope, partial(_check_seal, scope, key_of, written), workers)
        if report.sound or _destructions(scope) == before:
            break
    return report


def _destructions(scope: Scope) -> object:
    """A value that changes with each removal of files; None where it cannot be read."""
    try:
        states = [(one.number, one.state) for one in generations.read(scope.tables).values()]
        erased = [record.run_id for record in run_records.records(scope.tables)]
        half = scope.store.exists(layout.erasure_file(scope.tables.dest))
        return states, erased, half
    except IronmaskError:
        return None


def _checked(
    scope: Scope, check_seal: Callable[[list[str], list[str]], bool], workers: int | None
) -> Report:
    start = time.monotonic()
    notes: list[str] = []
    seen = Seen()
    is_open = check_seal(seen.findings, notes)
    try:
        # In this order, a run that works meanwhile can only be ahead of these facts.
        records = _records(scope)
        known = generations.read(scope.tables)
        listed = {name: scope.tables.table(name).files() for name in reversed(TABLES)}
    except IronmaskError as error:
        seen.findings.append(str(error))
    else:
        resting = not is_open and all(r.state != RunState.RUNNING for r in records)
        for name, files in listed.items():
            seen.findings += _wrong_files(scope, name, files)
        (seen.findings if resting else notes).extend(
            f"{uri} is listed by no log: the next run, or a vacuum, destroys it"
            for uri in orphans(scope.tables, scope.store)
        )
        halfway = not resting or any(
            one.state in (State.PREPARING, State.RETIRED) for one in known.values()
        )
        seen.findings += _wrong_keys(scope, known)
        made = {r.run_id: params for r in records if (params := run_records.params_of(r))}
        scope = replace(scope, without=_without_templates(records, known), params=made)
        seen.findings += _mixed(listed["templates"], made)
        _check_contents(scope, listed, records, seen, workers, notes)
        listed_in = {layout.generation_of(path) for path in listed["templates"]} - {None}
        seen.findings += _wrong_generations(listed_in, known)
        if halfway and len(listed_in) > 1:
            notes.append("a re-protection has not ended: `ironmask reprotect` finishes it")
    return Report(
        dest=scope.tables.dest,
        table_id=scope.table_id,
        deep=scope.deep,
        files=seen.files,
        size=seen.size,
        inputs=seen.outcomes.total(),
        templates=seen.templates.total(),
        helpers_opened=seen.opened,
        seconds=time.monotonic() - start,
        findings=seen.findings,
        notes=notes,
    )


def _records(scope: Scope) -> list[RunRecord]:
    """The runs, after a check of their files. Raises `IronmaskError`."""
    for path in scope.tables.table("runs").files():
        if wrong := check_file(scope, "runs", path).findings:
            raise TableError(wrong[0])
    return run_records.runs(scope.tables)


def _wrong_keys(scope: Scope, known: dict[int, Generation]) -> Iterator[str]:
    """A live generation without its keys, or a destroyed one with keys."""
    for one in known.values():
        key_id, has_keys = scope.key_states.get(one.number, ("", False))
        if one.state is State.DESTROYED and has_keys:
            yield f"generation {one.number} is destroyed, and the keyset file holds its keys"
        if one.state in (State.LIVE, State.PREPARING) and not (has_keys and key_id == one.key_id):
            yield f"generation {one.number} is {one.state}, and its keys {one.key_id} are not there"


def _wrong_generations(listed: set[int | None], known: dict[int, Generation]) -> Iterator[str]:
    """Listed generations that are gone or were never begun."""
    for number in sorted(number for number in listed if number is not None):
        if number not in known:
            yield f"templates of generation {number} are listed, and it was never begun"
        elif known[number].state is State.DESTROYED:
            yield f"templates of generation {number} are listed, and it was destroyed"


def _mixed(templates: dict[str, int], made: dict[str, Params]) -> Iterator[str]:
    """Generations with templates of runs that recorded different parameters."""
    found: dict[int | None, set[Params]] = {}
    for path in templates:
        file = layout.parse_shard_file(path)
        if file and file.run_id in made:
            found.setdefault(layout.generation_of(path), set()).add(made[file.run_id])
    for number, several in sorted(found.items(), key=str):
        if len(several) > 1:
            yield f"generation {number} holds templates of {len(several)} kinds of parameters"


def _without_templates(records: list[RunRecord], known: dict[int, Generation]) -> frozenset[str]:
    """Runs whose templates are gone or being destroyed."""
    ended = {n for n, one in known.items() if one.state in (State.RETIRED, State.DESTROYED)}
    return frozenset(r.run_id for r in records if r.config.get("generation") in ended)


def _check_seal(
    scope: Scope, key_of: KeyOf, written: Written, findings: list[str], notes: list[str]
) -> bool:
    """Note the seal's findings. Returns whether the seal is open."""
    try:
        state = log_seal_file.read(scope.tables.dest, scope.store, key_of, written)
        if state is None:
            log_chain.refuse_missing_seal(scope.tables, scope.store, written)
            notes.append(f"{scope.tables.dest} was made, and no run has begun in it yet")
            return True
        findings += log_chain.broken_logs(scope.tables, scope.store, state)
        findings += log_chain.broken_files(scope.tables, scope.store, state)
    except IronmaskError as error:
        findings.append(str(error))
        return False
    return state.open


def _wrong_files(scope: Scope, name: str, listed: dict[str, int]) -> Iterator[str]:
    """Listed files that are missing or of another size, and files that are not the table's."""
    base = scope.tables.table(name).uri.rstrip("/") + "/"
    counts = scope.tables.table(name).counts() if name == "templates" else {}
    missing = set(listed)
    for entry in scope.store.entries(base):
        path = entry.uri.removeprefix(base)
        if path in listed:
            missing.discard(path)
            if entry.size != listed[path]:
                yield f"{base}{path} has {entry.size:,} bytes, its log says {listed[path]:,}"
        elif not (path.startswith("_delta_log/") or layout.is_ours(path)):
            yield f"{base}{path} is no file of this table"
    for path in sorted(missing):
        yield f"{base}{path} is missing: {remedy(base + path, path, counts.get(path))}"


def _check_contents(
    scope: Scope,
    listed: Files,
    records: list[RunRecord],
    seen: Seen,
    workers: int | None,
    notes: list[str],
) -> None:
    plans = {r.run_id: _plan(scope, r, seen.findings, notes) for r in records}
    untold: dict[str, str] = {}
    pairs = pairs_of(scope, listed, seen.findings, untold)
    seen.findings += _wrong_pairs(pairs, records, untold, notes)
    outcomes = Outcomes()
    # Shards of one file of inputs come one after another.
    order = sorted(pairs, key=lambda key: (pairs[key][0] or "", key))
    jobs = chain(
        (partial(check_untold, scope, path, why) for path, why in sorted(untold.items())),
        (
            partial(check_shard, scope, plans.get(key[0]), key[:2], pairs[key], outcomes)
            for key in order
        ),
        (
            partial(check_file, scope, name, path)
            for name in listed.keys() - set(SHARD_TABLES)
            for path in sorted(listed[name])
        ),
    )
    people: dict[int, Sorter] = {}
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for some in batched(jobs, _WINDOW):
            for part in pool.map(lambda job: job(), some):
                for generation, hashes in part.subjects.items():
                    people.setdefault(generation, Sorter()).add(np.frombuffer(hashes, HASH))
                seen.add(part)
    shards: dict[str, set[int]] = {}
    for run_id, shard, _ in pairs:
        shards.setdefault(run_id, set()).add(shard)
    for record in records:
        gone, own = record.run_id in scope.without, shards.get(record.run_id, set())
        seen.findings += _wrong_run(record, plans[record.run_id], own, seen, notes, gone)
    seen.findings += _second_issues(people)


def _plan(scope: Scope, record: RunRecord, findings: list[str], notes: list[str]) -> Plan | None:
    """A run's plan. None where it is gone, or was changed since it was frozen; this is noted."""
    if not record.fingerprint.get("plan"):
        if record.kind != Purpose.REKEY:
            notes.append(f"the plan of run {record.run_id} went with a person who was erased")
        return None
    try:
        frozen, _ = plan_plans.load(
            layout.plan_folder(scope.tables.dest, record.run_id), scope.store
        )
        wrong = plan_plans.verify(frozen, scope.store)
        if not wrong and plan_plans.digest_of(frozen, scope.store) != record.fingerprint.get(
            "plan"
        ):
            wrong = [f"the plan of run {record.run_id} is not the one that was frozen"]
    except IronmaskError as error:
        wrong = [str(error)]
    findings += wrong
    return None if wrong else frozen


def _wrong_pairs(
    pairs: dict[Attempt, Pair],
    records: list[RunRecord],
    untold: Collection[str],
    notes: list[str],
) -> Iterator[str]:
    """untold: files of inputs whose shards are not known, and would seem to be missing."""
    blurred = {layout.run_of(path) for path in untold}
    known = {record.run_id: record.state for record in records}
    for key, same in groupby(sorted(pairs), lambda key: key[:2]):
        run_id, shard = key
        attempts = list(same)
        if run_id not in known:
            yield f"shard {shard} of run {run_id} is listed, and the run is not"
        if run_id not in blurred and any(pairs[one][0] is None for one in attempts):
            text = f"shard {shard} of run {run_id}: its templates are listed, its inputs are not"
            if known.get(run_id) == RunState.RUNNING:
                notes.append(f"{text}: the next start of the run completes it")
            else:
                yield text
        if len(attempts) > 1:
            yield f"shard {shard} of run {run_id} is listed {len(attempts)} times"


def _wrong_run(
    record: RunRecord,
    frozen: Plan | None,
    shards: set[int],
    seen: Seen,
    notes: list[str],
    gone: bool,
) -> Iterator[str]:
    """Compare a run with its plan and with its own record. Its templates may be gone."""
    if frozen and (strange := shards - set(range(frozen.shards))):
        yield f"run {record.run_id} lists {len(strange)} shards that its plan does not have"
    if frozen is None and record.fingerprint.get("plan"):
        return
    if record.state != RunState.COMPLETE:
        if frozen and record.state == RunState.RUNNING:
            text = f"run {record.run_id} is unfinished: {len(shards):,} of {frozen.shards:,} shards"
            notes.append(f"{text} are committed")
        return
    found = {o.value: seen.outcomes[record.run_id, o.value] for o in Outcome}
    if frozen and sum(found.values()) != frozen.inputs:
        yield (
            f"run {record.run_id} planned {frozen.inputs:,} inputs and has outcomes for "
            f"{sum(found.values()):,}"
        )
    said = {name: record.counts.get(name) for name in (*found, "subjects_enrolled")}
    if not gone:
        issued = seen.templates[record.run_id] + seen.gone[record.run_id]
        found["subjects_enrolled"] = issued
    for name, count in found.items():
        if said[name] != count:
            yield f"run {record.run_id} counted {said[name]} {name}, the tables hold {count:,}"


def _second_issues(people: dict[int, Sorter]) -> Iterator[str]:
    for generation, found in people.items():
        if repeated := found.total - len(found.distinct()):
            yield f"generation {generation}: {repeated:,} templates are second issues of a person"
