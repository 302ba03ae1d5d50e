"""Probe images compared with a subject's live template."""

from __future__ import annotations

from collections.abc import Sequence

from infra.keys.key_file import KeyFile
from infra.models import packs
from infra.settings import load as load_settings
from infra.store.addresses import is_text, normalise
from ironmask.errors import ParameterError
from pipelines.setup import places, ports
from pipelines.verification.probe import Verdict
from pipelines.verification.verifier import Verifier


def verify(
    dest: str, subject: str, images: Sequence[str], model: str | None, keys: str | None
) -> list[Verdict]:
    """Verify probe images against a subject's template."""
    settings, storage = load_settings()
    store = ports.open_store(storage)
    if not is_text(subject):
        raise ParameterError(f"{subject!r} is no subject's id: it is not UTF-8")
    tables = places.existing(dest, storage)
    file = KeyFile.open(places.keys_path(keys, settings, tables), tables.table_id)
    verifier = Verifier(tables, store, file)
    row = verifier.row(subject)
    name = model or settings.model
    if name is None:
        raise ParameterError("no model: name the one that enrolled with --model")
    pack = packs.find_pack(name)
    limit = verifier.faces(row[0]["run_id"]).max_bytes
    probes = [(image, store.read(normalise(image), limit)) for image in images]
    return verifier.verify_images(row, probes, pack)
