"""The destination of an enrolment, held: its lease, tables, keys and a place to work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final
from uuid import UUID

import pyarrow as pa

from infra.keys.kek import LOCAL
from infra.keys.key_file import KeyFile
from infra.keys.paths import default_keys_path
from infra.store.lease import refuse_held, refuse_unwritable
from ironmask.errors import MismatchError, ParameterError, WrongKeyError
from pipelines.enrolment.request import CheckedEnrolment, EnrolRequest
from pipelines.ports import GenerationKeys, StoredTables, Tables
from pipelines.run import admit, begin, draft
from pipelines.run.begin import Forecast
from pipelines.run.course import Watch
from pipelines.run.template_run import TemplateRun
from pipelines.setup import places, ports
from pipelines.setup.hold import Crew, OpenKeys, Site, hold_to_work
from pipelines.spec.template_job import SourceKind, TemplateJob
from pipelines.table import generations, run_records

# Stands for the id of a table that is still to be made.
_NO_TABLE: Final = str(UUID(int=0))


@contextmanager
def opened(
    request: EnrolRequest, prepared: CheckedEnrolment, watch: Watch | None = None
) -> Iterator[TemplateRun]:
    """Hold the destination: its lease, its tables, its keys and a place to work.

    What can be known before anything is written is refused before.
    """
    stored, store = ports.open_tables(prepared.job.dest, prepared.storage), prepared.store
    site = Site(stored, store, prepared.storage, prepared.settings)
    known = site.sealed(request.key_files.keys)
    job = settled_job(request, prepared, known)
    # A refusal must not wait for workers.
    if known:
        admit.admit(known, job, restart=request.restart)
    refuse_held(job.dest, store)
    refuse_unwritable(job.dest)
    _rehearse_keys(request, prepared, stored, job)
    if not known:
        draft.refuse_empty(job, store)
    crew = Crew(request.workplace, prepared.pack, job, prepared.judged)
    with hold_to_work(
        site,
        crew,
        partial(_open_keys, request, site, job),
        own=lambda: own_files(request, prepared, stored),
    ) as held:
        generations.begin(held.dest)
        yield TemplateRun(job, held.dest, held.executor, watch or Watch(), request.restart)


def foresee(
    request: EnrolRequest,
    prepared: CheckedEnrolment,
    look: Callable[[pa.Table], None] = lambda _: None,
) -> Forecast:
    """Say what an enrolment would do, and write nothing. look: sees the plan's rows pass by.

    Raises `NothingToDoError` where nothing is left to do.
    """
    stored = ports.open_tables(prepared.job.dest, prepared.storage)
    site = Site(stored, prepared.store, prepared.storage, prepared.settings)
    known = site.sealed(request.key_files.keys)
    keys = existing_keys(request, prepared, known) if known else None
    job = settled_job(request, prepared, known)
    own = own_files(request, prepared, stored)
    return begin.forecast(
        job, known, prepared.store, keys, restart=request.restart, own=own, look=look
    )


def _open_keys(request: EnrolRequest, site: Site, job: TemplateJob) -> OpenKeys:
    """The keys of the job's generation, and of a vault: made where there are none."""
    stored = site.stored
    stored.create()
    path = site.keys_path(request.key_files.keys)
    tables = site.sealed(request.key_files.keys) or stored
    keys = _ensure_keys(path, tables, job, request.kek)
    vault = None
    if job.vault:
        vault = places.vault_keys(request.key_files.vault_keys, path, tables, request.kek)
    return OpenKeys(KeyFile.open(path, stored.table_id), keys, vault=vault)


def own_files(
    request: EnrolRequest, prepared: CheckedEnrolment, stored: StoredTables
) -> tuple[str, ...]:
    """Paths of the keyset files of a destination, and of its vault, which are never inputs."""
    if not (request.key_files.keys or prepared.settings.keys or stored.exist()):
        return ()
    path = places.keys_path(request.key_files.keys, prepared.settings, stored)
    return str(path), str(places.vault_keys_path(request.key_files.vault_keys, path))


def settled_job(
    request: EnrolRequest, prepared: CheckedEnrolment, tables: Tables | None
) -> TemplateJob:
    """The job for the live generation, its model as the table knows it: perhaps by name only."""
    job, pack = prepared.job, prepared.pack
    if tables is None:
        return job
    job = replace(job, generation=generations.live(tables))
    job = admit.as_begun(tables, job, restart=request.restart)
    if pack is None or job.kind is not SourceKind.EMBEDDINGS:
        return job
    return replace(job, model=run_records.declared_model(tables, pack.name) or job.model)


def existing_keys(
    request: EnrolRequest, prepared: CheckedEnrolment, tables: Tables
) -> GenerationKeys | None:
    """The live keys of a table that is there already; None where it has no run yet."""
    path = places.keys_path(request.key_files.keys, prepared.settings, tables)
    if not run_records.runs(tables):
        return None
    return ports.keys(path, tables.table_id, generations.live(tables))


def _rehearse_keys(
    request: EnrolRequest, prepared: CheckedEnrolment, stored: StoredTables, job: TemplateJob
) -> None:
    """Raise for keys that could not be opened, or made, and write nothing."""
    exist = stored.exist()
    path = places.expanded(
        request.key_files.keys or prepared.settings.keys or default_keys_path(_NO_TABLE)
    )
    if exist:
        path = places.keys_path(request.key_files.keys, prepared.settings, stored)
    if exist and (path.exists() or run_records.runs(stored)):
        file = KeyFile.open(path, stored.table_id)
        _refuse_other_kek(file, request.kek)
        if job.generation in file.generations():
            _refuse_unlike(path, file.generation(job.generation), job)
    else:
        KeyFile.rehearse(path, request.kek or LOCAL)
    if job.vault:
        places.rehearse_vault_keys(request.key_files.vault_keys, path, job.dest, request.kek)


def _ensure_keys(path: Path, tables: Tables, job: TemplateJob, kek: str | None) -> GenerationKeys:
    """Make the keys of a generation that has no run yet; open and prove those of any other."""
    runs = run_records.runs(tables)
    known = {r.config["key_id"] for r in runs if r.config["generation"] == job.generation}
    if not path.exists() and not runs:
        KeyFile.create(path, tables.table_id, kek or LOCAL)
    file = KeyFile.open(path, tables.table_id)
    file.add_table()
    _refuse_other_kek(file, kek)
    if job.generation not in file.generations() and not known:
        file.add_generation(job.generation, sealed=job.sealed)
    keys = file.generation(job.generation)
    if known and keys.key_id not in known:
        raise WrongKeyError(
            f"{path} holds key {keys.key_id}; {tables.dest} was enrolled under "
            f"{' and '.join(sorted(known))}: name the right file with --keys"
        )
    _refuse_unlike(path, keys, job)
    return keys


def _refuse_other_kek(file: KeyFile, kek: str | None) -> None:
    if kek not in (None, file.kek_uri):
        raise ParameterError(
            f"{file.path} is wrapped by {file.kek_uri}, not by {kek}: leave --kek out"
        )


def _refuse_unlike(path: Path, keys: GenerationKeys, job: TemplateJob) -> None:
    if keys.sealed != job.sealed:
        raise MismatchError(
            f"the keys in {path} are for {'sealed' if keys.sealed else 'plaintext'} helpers: "
            f"{'leave out' if keys.sealed else 'add'} --plaintext-helpers"
        )
