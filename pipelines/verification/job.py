"""Probe images compared with a subject's live template."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from infra.faces.onnx_faces import FaceAligner, FaceRecogniser
from infra.models import packs
from infra.settings import load as load_settings
from infra.store.addresses import is_text, normalise
from ironmask.errors import ParameterError
from pipelines.ports import Tables
from pipelines.setup import places, ports
from pipelines.spec.faces import FaceSettings
from pipelines.table import read, run_records
from pipelines.verification import probe
from pipelines.verification.probe import Verdict


def verify(
    dest: str, subject: str, images: Sequence[str], model: str | None, keys: str | None
) -> list[Verdict]:
    """Verify probe images against a subject's template."""
    settings, storage = load_settings()
    store = ports.open_store(storage)
    if not is_text(subject):
        raise ParameterError(f"{subject!r} is no subject's id: it is not UTF-8")
    tables = places.existing(dest, storage)
    table_id = tables.table_id
    opener = partial(ports.keys, places.keys_path(keys, settings, tables), table_id)
    row, opened_keys = read.open_live(tables, subject, opener)
    name = model or settings.model
    if name is None:
        raise ParameterError("no model: name the one that enrolled with --model")
    pack = packs.find_pack(name)
    faces = FaceSettings(**_enrolled_faces(tables, row["run_id"]))
    probes = [(image, store.read(normalise(image), faces.max_bytes)) for image in images]
    return probe.verify_images(
        table_id,
        row,
        probes,
        (pack.fingerprint, pack.name),
        FaceAligner(pack, faces),
        FaceRecogniser(pack, faces),
        opened_keys,
    )


def _enrolled_faces(tables: Tables, run_id: str) -> dict[str, Any]:
    """The face settings of the run that made a row, for this machine's CPU."""
    for record in run_records.runs(tables):
        if record.run_id == run_id:
            stored = dict(record.config["job"]["faces"])
            stored["det_sizes"] = tuple(stored["det_sizes"])
            return {**stored, "provider": "cpu"}
    return {}
