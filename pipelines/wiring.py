"""Where the stages' ports meet what provides them.

A `Spec` travels to workers as plain values; each process builds from it, once, what cannot travel:
stores, keys and models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from infra.delta import DeltaTables
from infra.faces import FaceAligner, FaceRecogniser
from infra.keys import KeyFile
from infra.models import ModelPack
from infra.settings import StorageSettings
from infra.storage import FsspecStore
from ironmask.errors import WrongKeyError
from pipelines import generations, layout, profile
from pipelines.evaluation.blocks import Sources
from pipelines.evaluation.issued import Access
from pipelines.evaluation.job import Issued
from pipelines.job import EnrolJob
from pipelines.plan import Plan
from pipelines.ports import Aligner, GenerationKeys, Recogniser, Store, Tables
from pipelines.stages import Context


@dataclass(frozen=True)
class Spec:
    """What a worker needs to build its surroundings; holds no secret itself.

    storage: `StorageSettings.public()`. keys: path of the keyset file, which every worker must be
    able to read. pack: None where the source holds embeddings. vault_keys: path of the vault's.
    """

    storage: tuple[tuple[str, Any], ...]
    keys: Path
    table_id: str
    pack: ModelPack | None = None
    vault_keys: Path | None = None


def open_store(storage: StorageSettings) -> Store:
    return FsspecStore(storage)


def open_tables(dest: str, storage: StorageSettings) -> Tables:
    return DeltaTables(dest, storage.delta_options())


def keys(path: Path, table_id: str, generation: int) -> GenerationKeys:
    """Open a generation's keys."""
    return KeyFile.open(path, table_id).generation(generation)


def seal_key_of(file: KeyFile) -> Callable[[str], bytes]:
    """Finds the key of a seal by the id of the generation's keys that it names."""

    def find(key_id: str) -> bytes:
        for number, record in file.generations().items():
            if record.key_id == key_id:
                return file.generation(number).seal_key()
        raise WrongKeyError(
            f"{file.path} holds no keys {key_id}, which the seal of its table names: name the "
            "right file with --keys"
        )

    return find


def context(spec: Spec, job: EnrolJob, plan: Plan) -> Context:
    """Build what the stages of one shard share; secrets come from the process's environment.

    The keys are opened anew each time, so that destroyed or revoked ones stop a run within one
    shard.
    """
    store = shared_store(spec.storage)
    filling = None
    if job.profile:
        address = layout.profile_file(job.dest, job.profile)
        filling = profile.filling(address, job.profile, job.filling, store)
    old_keys = None
    if job.purpose.rewrites and job.renews is not None:
        old_keys = keys(spec.keys, spec.table_id, job.renews)
    vault_keys = None
    if spec.vault_keys:
        vault_keys = keys(spec.vault_keys, layout.vault_id(spec.table_id), generations.FIRST)
    return Context(
        job=job,
        plan=plan,
        table_id=spec.table_id,
        store=store,
        keys=keys(spec.keys, spec.table_id, job.generation),
        filling=filling,
        old_keys=old_keys,
        vault_keys=vault_keys,
    )


@lru_cache(maxsize=4)
def shared_store(storage: tuple[tuple[str, Any], ...]) -> Store:
    """One store a process: its connections are kept, and what was read is known by it."""
    return open_store(StorageSettings(**dict(storage)))


@lru_cache(maxsize=4)
def shared_tables(dest: str, storage: tuple[tuple[str, Any], ...]) -> Tables:
    """The tables of a destination, once a process."""
    return open_tables(dest, StorageSettings(**dict(storage)))


def sources(storage: tuple[tuple[str, Any], ...], issued: Issued | None) -> Sources:
    """Where the faces and templates of an evaluation come from."""
    store = shared_store(storage)
    if issued is None:
        return Sources(store)
    opener = partial(keys, Path(issued.keys), issued.table_id, issued.generation)
    return Sources(store, Access(issued, shared_tables(issued.dest, storage), opener))


@lru_cache(maxsize=2)
def aligner(spec: Spec, job: EnrolJob) -> Aligner:
    """Load the detector, once a process."""
    assert spec.pack is not None  # noqa: S101
    return FaceAligner(spec.pack, job.faces)


@lru_cache(maxsize=2)
def recogniser(spec: Spec, job: EnrolJob) -> Recogniser:
    """Load the recogniser, once a process."""
    assert spec.pack is not None  # noqa: S101
    return FaceRecogniser(spec.pack, job.faces)
