"""The destination of a re-protection, held: the keys of both generations, and workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from infra.keys.key_file import KeyFile
from ironmask.errors import BusyError, KeyNotFoundError, NothingToDoError
from pipelines.ports import GenerationKeys, Tables
from pipelines.reprotection.job import Reprotection
from pipelines.reprotection.request import CheckedReprotection, ReprotectRequest, numbers
from pipelines.run import admit, begin
from pipelines.run.begin import Forecast
from pipelines.run.course import Watch
from pipelines.setup import places, ports
from pipelines.setup.hold import Crew, OpenKeys, Site, hold_to_work, own_keys
from pipelines.spec.template_job import Purpose, SourceKind, TemplateJob
from pipelines.spec.workplace import Workplace
from pipelines.table import generations


@contextmanager
def opened(
    request: ReprotectRequest, prepared: CheckedReprotection, watch: Watch | None = None
) -> Iterator[Reprotection]:
    """Hold the destination: its lease, its tables, the keys of both generations, and workers.

    What can be known before anything is written is refused before.
    """
    job, site = prepared.job, _site(prepared)
    file = KeyFile.open(site.keys_path(request.key_files.keys), site.stored.table_id)
    tables = ports.sealed(site.stored, site.store, file, goes_on=True)
    admit.admit(tables, job, restart=request.restart)
    # After the switch no shard is left to run.
    switched = generations.live(tables) == job.generation
    place = Workplace("local") if switched else request.workplace
    crew = Crew(place, prepared.pack, job, prepared.judged)
    with hold_to_work(site, crew, partial(_open_keys, request, prepared, file)) as held:
        yield Reprotection(
            job,
            held.dest,
            held.executor,
            watch or Watch(),
            request.restart,
            keyring=held.keyring,
            max_lost=request.losses.max_lost,
        )


def foresee(request: ReprotectRequest, prepared: CheckedReprotection) -> Forecast:
    """Say what a re-protection would do, and write nothing.

    Raises `NothingToDoError` once the new generation is live: only the old one's end is left.
    """
    job, site = prepared.job, _site(prepared)
    file = KeyFile.open(site.keys_path(request.key_files.keys), site.stored.table_id)
    tables = ports.sealed(site.stored, site.store, file, goes_on=True)
    live = own_keys(file, found := generations.read(tables), generations.live_of(found))
    if generations.live_of(found) == job.generation:
        raise NothingToDoError(
            f"{tables.dest}: generation {job.generation} is live, and everybody has a template in "
            f"it; what is left to do is to destroy generation {job.renews}"
        )
    return begin.forecast(job, tables, site.store, live, restart=request.restart)


def _site(prepared: CheckedReprotection) -> Site:
    return Site(prepared.tables, prepared.store, prepared.storage, prepared.settings)


def _open_keys(request: ReprotectRequest, prepared: CheckedReprotection, file: KeyFile) -> OpenKeys:
    """The keys of the new generation, made where it has none yet, and those of the live one."""
    job, site = prepared.job, _site(prepared)
    tables = ports.sealed(site.stored, site.store, file, goes_on=True)
    if numbers(tables, job.purpose, file) != (job.generation, job.renews):
        raise BusyError(f"{tables.dest} was changed by another run just now: run it again")
    # Somebody else may have come first.
    admit.admit(tables, job, restart=request.restart)
    site.stored.create()
    file.add_table()
    keys, old = _keys(file, tables, job)
    vault = None
    if job.kind is SourceKind.VAULT or job.vault:
        vault = places.vault_keys(request.key_files.vault_keys, file.path, tables)
    return OpenKeys(file, keys, old, vault)


def _keys(
    file: KeyFile, tables: Tables, job: TemplateJob
) -> tuple[GenerationKeys, GenerationKeys | None]:
    """The new generation's keys, made where it has none yet, and those of the one it replaces."""
    found = generations.read(tables)
    number, parent = job.generation, job.renews
    assert parent is not None  # noqa: S101
    if generations.live_of(found) == number:
        return own_keys(file, found, number), None
    old = own_keys(file, found, parent)
    if number not in file.generations():
        if number in found:
            raise KeyNotFoundError(
                f"{file.path} holds no keys of generation {number}, which was begun with "
                f"{found[number].key_id}: restore the file from a backup, or give the generation "
                "up with `ironmask reprotect --abandon`"
            )
        # Of a generation that never began: nothing was ever sealed with them.
        for stale in file.generations().keys() - found.keys():
            file.destroy_generation(stale)
        _make_keys(file, job, parent)
    return own_keys(file, found, number), old


def _make_keys(file: KeyFile, job: TemplateJob, parent: int) -> None:
    if job.purpose.rewrites:
        rekey = job.purpose is Purpose.REKEY
        file.succeed(job.generation, parent, rekey=rekey, rotate_mac=True)
    else:
        file.add_generation(job.generation, sealed=job.sealed)
