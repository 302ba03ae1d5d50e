"""Facts about a photo, encrypted beside its row: box, scores, quality, names of its content.

Facts of an input are encrypted under keys of the table: they stay readable after its generation is
gone. Facts of a template are encrypted under keys of its generation. All are bound to their row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from ironmask.errors import KeyNotFoundError
from pipelines.ports import GenerationKeys, TableKeys
from pipelines.table.row_cipher import framed

_INPUT: Final = "ironmask input details v1"
_PADDED: Final = 64


def _bound(table_id: str, row: Mapping[str, Any]) -> bytes:
    return framed([_INPUT, table_id, row["run_id"], row["subject_id"], row["uri"]])


def encrypted(
    table_id: str, row: Mapping[str, Any], facts: Mapping[str, Any], keys: TableKeys
) -> bytes | None:
    """The encrypted facts that a row of `inputs` stores, JSON values by name; None without facts.

    row: run_id, subject_id and uri. Facts that are None or empty are left out.
    """
    said = {name: value for name, value in facts.items() if value not in (None, "", [])}
    if not said:
        return None
    plain = padded(json.dumps(said, separators=(",", ":")).encode())
    return keys.cipher(row["run_id"]).encrypt(plain, _bound(table_id, row))


def padded(plain: bytes) -> bytes:
    """JSON padded with blanks, so that its length tells little about its content."""
    return plain + b" " * (-len(plain) % _PADDED)


def decrypted(table_id: str, row: Mapping[str, Any], keys: TableKeys | None) -> dict[str, Any]:
    """The facts that a row of `inputs` stores. Older tables have them in the clear.

    Raises `TamperedError` where they do not belong to this row, `KeyNotFoundError` without keys.
    """
    stored = row.get("details")
    if stored is None:
        return _of_before(row)
    if keys is None:
        raise KeyNotFoundError("the keyset file has no keys of its table: restore it from a backup")
    plain = keys.cipher(row["run_id"]).decrypt(stored, _bound(table_id, row))
    found: dict[str, Any] = json.loads(plain)
    return found


_BEFORE: Final = (
    "detail", "face_x1", "face_y1", "face_x2", "face_y2", "faces", "det_score", "sharpness",
    "quality",
)  # fmt: skip


def _of_before(row: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: row[name] for name in _BEFORE if row.get(name) not in (None, "")}
    contents = [name for name in row.get("identities") or [] if not name.startswith("id:")]
    return {**found, "contents": contents} if contents else found


def table_keys(keys: GenerationKeys) -> TableKeys:
    """The keys of a table for its whole life. Raises `KeyNotFoundError` where it has none yet."""
    if keys.table is None:
        raise KeyNotFoundError(
            "the keyset file has no keys of its table: a command that writes to it makes them"
        )
    return keys.table
