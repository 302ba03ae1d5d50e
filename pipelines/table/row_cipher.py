"""Bind a helper to its row: authenticated encryption with the row as associated data."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from ironmask import shuffle
from ironmask.errors import ParameterError, TableError, TamperedError
from ironmask.params import FIRST_VERSION, SCHEME_VERSION, Params
from ironmask.template import ProtectedTemplate
from pipelines.ports import GenerationKeys

_DOMAIN = "ironmask row v"
_RESERVED = {"conditioner": None, "own_secret": False}
_LATER = ("code_width", "structure", *_RESERVED)
_DETAILS = "ironmask template details v1"


def stated(params: Params) -> dict[str, Any]:
    """The columns of a new row that tell its parameters, and those that are reserved.

    Version 1 leaves the later ones null: its associated data does not cover them.
    """
    later = dict.fromkeys(_LATER) if params.version == FIRST_VERSION else _RESERVED
    return {**params.recording(), **later}


def associated_data(table_id: str, row: Mapping[str, Any]) -> bytes:
    """The data that a helper's ciphertext is bound to: identities, parameters, the row's digests.

    It is framed, so that no two rows give the same bytes.
    """
    version = row["scheme_version"]
    numbers = ("generation", "scheme_version", "n", "alpha", "tolerance")
    later = () if version == FIRST_VERSION else _LATER
    return framed(
        [
            f"{_DOMAIN}{version}",
            table_id,
            row["template_id"],
            row["subject_id"],
            *(str(row[name]) for name in numbers),
            row["encoding"],
            row["model"],
            sha256(row["digests"]).hexdigest(),
            *(_text(row.get(name)) for name in later),
        ]
    )


def _text(value: object) -> str:
    """A value as text; null and the empty text differ."""
    return "" if value is None else f"={value}"


def framed(fields: Sequence[str]) -> bytes:
    """Texts one after another, each after its length."""
    encoded = [field.encode() for field in fields]
    return b"".join(struct.pack("<I", len(field)) + field for field in encoded)


def encrypted_details(
    table_id: str, row: Mapping[str, Any], facts: Mapping[str, Any], keys: GenerationKeys
) -> bytes:
    """The encrypted facts that a row of `templates` stores, JSON values by name."""
    plain = json.dumps(facts, separators=(",", ":")).encode()
    return keys.encrypt(plain, _details_bound(table_id, row))


def details_of(table_id: str, row: Mapping[str, Any], keys: GenerationKeys) -> dict[str, Any]:
    """The encrypted facts that a row of `templates` stores; older rows have none.

    Raises `TamperedError` where they do not belong to this row.
    """
    stored = row.get("details")
    if stored is None:
        return {}
    found: dict[str, Any] = json.loads(keys.decrypt(stored, _details_bound(table_id, row)))
    return found


def row_key(table_id: str, row: Mapping[str, Any], keys: GenerationKeys) -> bytes:
    """The key of a row's digests. Each layer uses the id that the row had when it was added."""
    earlier = details_of(table_id, row, keys).get("earlier_ids", ())
    return keys.row_key(row["template_id"], earlier)


def _details_bound(table_id: str, row: Mapping[str, Any]) -> bytes:
    names = ("template_id", "subject_id", "generation", "key_id")
    return framed([_DETAILS, table_id, *(str(row[name]) for name in names)])


def encrypted_helper(
    table_id: str, row: Mapping[str, Any], plain: bytes, keys: GenerationKeys
) -> bytes:
    """The helper as a row stores it: shuffled where its generation shuffles, then encrypted."""
    secret = keys.shuffle_key(row["template_id"])
    if secret is not None:
        plain = shuffle.applied(plain, Params.recorded(row), row["encoding"], secret)
    return keys.encrypt(plain, associated_data(table_id, row)) if keys.sealed else plain


def open_row(table_id: str, row: Mapping[str, Any], keys: GenerationKeys) -> ProtectedTemplate:
    """Open one row of `templates` for verification.

    Raises `TamperedError` where the helper does not belong to this row as it is now, `TableError`
    for a row of a later release.
    """
    helper = row["helper"]
    if row["sealed"] != keys.sealed:
        raise TamperedError(
            f"template {row['template_id']} says sealed = {row['sealed']}, its keys say "
            f"{keys.sealed}: its row was changed; restore it from a backup"
        )
    if keys.sealed:
        try:
            helper = keys.decrypt(helper, associated_data(table_id, row))
        except TamperedError:
            raise TamperedError(
                f"template {row['template_id']} does not authenticate: its row was changed, holds "
                "another row's data, or was sealed under another key; restore it from a backup or "
                f"enrol the subject again{_perhaps_later(row)}"
            ) from None
    params = _params_of(row)
    secret = keys.shuffle_key(row["template_id"])
    if secret is not None:
        helper = shuffle.undone(helper, params, row["encoding"], secret)
    return ProtectedTemplate(
        params=params,
        encoding=row["encoding"],
        helper=helper,
        digests=row["digests"],
    )


def _params_of(row: Mapping[str, Any]) -> Params:
    """The parameters of an authentic row, or of one in the clear. Raises as `open_row`."""
    is_first = row["scheme_version"] == FIRST_VERSION
    for name, unused in _RESERVED.items():
        if not is_first and row.get(name) not in (None, unused):
            raise TableError(
                f"template {row['template_id']} was written by a later release of ironmask, which "
                f"uses its {name}: upgrade to that"
            )
    try:
        if is_first and any(row.get(name) is not None for name in _LATER):
            raise ParameterError("scheme version 1 has none of the later columns")
        return Params.recorded(row)
    except ParameterError as error:
        raise TamperedError(
            f"template {row['template_id']} has parameters that cannot be: its row was changed; "
            f"restore it from a backup ({error}){_perhaps_later(row)}"
        ) from None


def _perhaps_later(row: Mapping[str, Any]) -> str:
    """A hint for a row whose version is unknown: nothing tells whether that was changed."""
    version = row["scheme_version"]
    if version in (FIRST_VERSION, SCHEME_VERSION):
        return ""
    return f"; if a later release wrote it (scheme version {version}), upgrade ironmask"
