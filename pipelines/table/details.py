"""What tells of a photo, encrypted beside its row: box, scores, quality, names of its content.

Of an input these are encrypted under keys of the table, so that they stay readable after its
generation is gone; of a template under its generation's. Each is bound to its row.
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
    """What a row of `inputs` stores of some facts, JSON values by name; None where there are none.

    row: run_id, subject_id and uri. Facts that are None or empty are left out.
    """
    said = {name: value for name, value in facts.items() if value not in (None, "", [])}
    if not said:
        return None
    plain = padded(json.dumps(said, separators=(",", ":")).encode())
    return keys.cipher(row["run_id"]).encrypt(plain, _bound(table_id, row))


def padded(plain: bytes) -> bytes:
    """JSON of a length that says little of what is in it: JSON may end with blanks."""
    return plain + b" " * (-len(plain) % _PADDED)


def decrypted(table_id: str, row: Mapping[str, Any], keys: TableKeys | None) -> dict[str, Any]:
    """The facts that a row of `inputs` stores; those of a table of before lie in the clear.

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
