"""A destination held by this process: its lease, its keys, its seal, and who does the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from infra.keys.key_file import KeyFile
from infra.models.packs import ModelPack
from infra.settings import Settings, StorageSettings
from infra.settings import load as load_settings
from infra.store.lease import lease, refuse_held
from ironmask.errors import WrongKeyError
from pipelines.ports import GenerationKeys, Keyring, Store, StoredTables
from pipelines.preflight import calibrate
from pipelines.preflight.calibrate import Judged
from pipelines.run.steps import Executor
from pipelines.setup import places, ports
from pipelines.setup.exposed import exposed
from pipelines.setup.worker import WorkerSpec
from pipelines.setup.workplace import ShardExecutor, tried_engine
from pipelines.spec.template_job import TemplateJob
from pipelines.spec.workplace import Workplace
from pipelines.table import erasing, generations, layout
from pipelines.table.generations import Generation
from pipelines.table.held import Destination
from pipelines.table.sealed import SealedTables


@dataclass(frozen=True)
class Site:
    """A destination that nobody holds yet: its tables, and what reaches them."""

    stored: StoredTables
    store: Store
    storage: StorageSettings
    settings: Settings

    def keys_path(self, given: str | None) -> Path:
        """Where the table's keys lie. given: the path that was named, if one was."""
        return places.keys_path(given, self.settings, self.stored)

    def sealed(self, given: str | None) -> SealedTables | None:
        """The tables that are there already, as far as their seal vouches for them.

        given: as of `keys_path`. None where they hold nothing that there could be keys for. Raises
        `TableError` where they were changed, `KeyStoreError` where their keys are not at hand.
        """
        if not self.stored.exist():
            return None
        path = self.keys_path(given)
        if not path.exists() and not self.store.exists(layout.seal_file(self.stored.dest)):
            return None
        return ports.sealed(self.stored, self.store, KeyFile.open(path, self.stored.table_id))


@dataclass(frozen=True)
class OpenKeys:
    """Keys of a destination. old: of the generation that is made anew. vault: path of the keyset
    file of its vault, where the work needs it.
    """

    file: KeyFile = field(repr=False)
    keys: GenerationKeys = field(repr=False)
    old: GenerationKeys | None = field(default=None, repr=False)
    vault: Path | None = None


@dataclass(frozen=True)
class Crew:
    """Who makes the templates of a job. pack: of the model, None where none is needed."""

    place: Workplace
    pack: ModelPack | None
    job: TemplateJob
    judged: Judged = field(default_factory=Judged)


@dataclass(frozen=True)
class Held:
    """A destination that this process holds, the keyset file of its keys, and what runs shards."""

    dest: Destination
    keyring: Keyring = field(repr=False)
    executor: Executor


@contextmanager
def hold(
    stored: StoredTables,
    store: Store,
    opened: Callable[[], OpenKeys],
    *,
    own: Callable[[], tuple[str, ...]] = tuple,
    during_erasure: bool = False,
) -> Iterator[tuple[Destination, OpenKeys]]:
    """Hold a destination: its lease, its keys, its seal.

    opened: gives the keys, and refuses what may not go on; called once nobody else can change the
    destination. own: gives what a `Destination` has under that name. during_erasure: also where one
    was broken off.
    """
    with lease(stored.dest, store) as check:
        if not during_erasure:
            erasing.refuse_unfinished_erasure(stored.dest, store)
        found = opened()
        seal = ports.log_seal(stored, store, found.old or found.keys, found.file)
        yield Destination(seal.tables, store, found.keys, check, seal, found.old, own()), found


@contextmanager
def hold_to_work(
    site: Site,
    crew: Crew,
    opened: Callable[[], OpenKeys],
    *,
    own: Callable[[], tuple[str, ...]] = tuple,
) -> Iterator[Held]:
    """Hold a destination as `hold` does, with what runs the shards of a job.

    A destination that somebody else holds is refused before workers are waited for, and so are
    models that they cannot load. The figures of the run can be scraped where the settings say.
    """
    refuse_held(site.stored.dest, site.store)
    site.storage.export()
    with (
        exposed(site.settings),
        tried_engine(crew.place, site.settings, crew.pack, crew.job.faces) as engine,
        hold(site.stored, site.store, opened, own=own) as (dest, keys),
    ):
        calibrate.keep(crew.judged, crew.job, site.store)
        calibrate.write_forecast(crew.judged, dest)
        public, table_id = site.storage.public(), site.stored.table_id
        spec = WorkerSpec(public, keys.file.path, table_id, crew.pack, keys.vault)
        yield Held(dest, keys.file, ShardExecutor(engine, spec))


@contextmanager
def hold_live(dest: str, keys: str | None) -> Iterator[tuple[Destination, Keyring]]:
    """Hold a destination with its live keys, without any work for shards.

    Also where an erasure was broken off.
    """
    settings, storage = load_settings()
    site = Site(places.existing(dest, storage), ports.open_store(storage), storage, settings)
    file = KeyFile.open(site.keys_path(keys), site.stored.table_id)
    opened = partial(live_keys, site, file)
    with hold(site.stored, site.store, opened, during_erasure=True) as (held, _):
        yield held, file


def live_keys(site: Site, file: KeyFile) -> OpenKeys:
    """The keys of a destination's live generation, as far as its seal vouches for it."""
    file.add_table()
    found = generations.read(ports.sealed(site.stored, site.store, file))
    return OpenKeys(file, own_keys(file, found, generations.live_of(found)))


def own_keys(file: KeyFile, found: dict[int, Generation], number: int) -> GenerationKeys:
    """The keys of a generation. Raises `WrongKeyError` for others than the table names."""
    keys = file.generation(number)
    if number in found and found[number].key_id != keys.key_id:
        raise WrongKeyError(
            f"{file.path} holds key {keys.key_id} for generation {number}, and the table names "
            f"{found[number].key_id}: name the right file with --keys"
        )
    return keys
