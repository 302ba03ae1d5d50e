"""What a worker builds from the plain values that travel to it, and a whole shard done with it.

A `WorkerSpec` travels; stores, keys and models cannot, so each process builds them, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from infra.faces.onnx_faces import FaceAligner, FaceRecogniser
from infra.models.onnx_session import check_file
from infra.models.packs import ModelPack
from pipelines.plan.plans import Plan
from pipelines.ports import Recogniser
from pipelines.preflight import profile
from pipelines.setup.ports import kept_keys, shared_store
from pipelines.shard import embeddings, photos, vault
from pipelines.shard.context import (
    Context,
    ShardResult,
    clock,
    is_stored,
)
from pipelines.shard.protect import protect_shard
from pipelines.shard.rewrite import rewrite
from pipelines.spec.faces import FaceSettings
from pipelines.spec.template_job import SourceKind, TemplateJob
from pipelines.table import layout
from pipelines.table.layout import FIRST_GENERATION


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker needs to build its surroundings; holds no secret itself.

    storage: `StorageSettings.public()`. keys: path of the keyset file, which every worker must be
    able to read. pack: None where the source holds embeddings. vault_keys: path of the vault's.
    """

    storage: tuple[tuple[str, Any], ...]
    keys: Path
    table_id: str
    pack: ModelPack | None = None
    vault_keys: Path | None = None


def context(spec: WorkerSpec, job: TemplateJob, plan: Plan) -> Context:
    """Build what the stages of one shard share; secrets come from the process's environment.

    The keyset files are read anew each time, so that keys that are destroyed in them stop a run
    within one shard. Those that a key service no longer gives stop it within `KEPT_S` seconds.
    """
    store = shared_store(spec.storage)
    filling = None
    if job.profile:
        address = layout.profile_file(job.dest, job.profile)
        filling = profile.filling(address, job.profile, job.filling, store)
    old_keys = None
    if job.purpose.rewrites and job.renews is not None:
        old_keys = kept_keys(spec.keys, spec.table_id, job.renews)
    vault_keys = None
    if spec.vault_keys:
        vault_keys = kept_keys(spec.vault_keys, layout.vault_id(spec.table_id), FIRST_GENERATION)
    return Context(
        job=job,
        plan=plan,
        table_id=spec.table_id,
        store=store,
        keys=kept_keys(spec.keys, spec.table_id, job.generation),
        filling=filling,
        old_keys=old_keys,
        vault_keys=vault_keys,
    )


def aligner(spec: WorkerSpec, job: TemplateJob) -> FaceAligner:
    """Load the detector, once a process."""
    assert spec.pack is not None  # noqa: S101
    return _aligner(spec.pack, job.faces)


@lru_cache(maxsize=2)
def _aligner(pack: ModelPack, faces: FaceSettings) -> FaceAligner:
    return FaceAligner(pack, faces)


def try_models(pack: ModelPack, faces: FaceSettings, _unit: int) -> None:
    """Load the detector as a shard would, and look for the recogniser. Raises `ModelError`."""
    _aligner(pack, faces)
    check_file(pack.recogniser, pack.recogniser_sha256)


@lru_cache(maxsize=2)
def recogniser(spec: WorkerSpec, job: TemplateJob) -> Recogniser:
    """Load the recogniser, once a process."""
    assert spec.pack is not None  # noqa: S101
    return FaceRecogniser(spec.pack, job.faces)


def whole_shard(spec: WorkerSpec, job: TemplateJob, plan: Plan, shard: int) -> ShardResult:
    """All stages of one shard."""
    around = context(spec, job, plan)
    if job.purpose.rewrites:
        return rewrite(around, shard)
    if is_stored(job):
        load = vault.load if job.kind is SourceKind.VAULT else embeddings.load_embeddings
        return protect_shard(around, shard, *load(around, shard))
    aligned = photos.prepare(around, shard, aligner(spec, job))
    model = recogniser(spec, job)
    with clock(aligned.timings, "embed"):
        embedded = photos.embed(aligned, model)
    return protect_shard(around, shard, aligned, embedded)
