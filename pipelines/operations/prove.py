"""Evidence that something destroyed is gone."""

from __future__ import annotations

from infra.keys.key_file import KeyFile
from infra.settings import load as load_settings
from infra.store.addresses import is_text
from ironmask.errors import ParameterError
from pipelines.operations import prove_erasure
from pipelines.setup import ports
from pipelines.setup.places import existing, keys_path
from pipelines.table import destroy_generation, generations, log_chain, log_seal_file
from pipelines.table.evidence import Evidence


def key_states(file: KeyFile) -> dict[int, tuple[str, bool]]:
    """Key id of each generation in a keyset file, and whether it holds its keys."""
    return {
        number: (record.key_id, record.state == "live")
        for number, record in file.generations().items()
    }


def prove(
    dest: str, keys: str | None, *, generation: int | None = None, subject: str = ""
) -> Evidence:
    """Look for what a destroyed generation, or an erased person, must not have left.

    Raises `ParameterError` for what is no subject's id.
    """
    if generation is None and not (subject and is_text(subject)):
        raise ParameterError(f"{subject!r} is no subject's id: it is empty, or not UTF-8")
    settings, storage = load_settings()
    stored = existing(dest, storage)
    file = KeyFile.open(keys_path(keys, settings, stored), stored.table_id)
    store = ports.open_store(storage)
    tables = ports.sealed(stored, store, file)
    if generation is None:
        live = file.generation(generations.live(tables))
        found = prove_erasure.prove(tables, store, subject, live)
    else:
        found = destroy_generation.prove(tables, store, generation, key_states(file), file.table())
    state = log_seal_file.read(tables.dest, store, ports.log_seal_key_of(file), file.has_seals)
    broken = list(log_chain.broken_logs(stored, store, state)) if state else ["there is no seal"]
    told = f" ({'; '.join(broken)})" if broken else ""
    return found.found([(f"the logs that say so are those that were sealed{told}", not broken)])
