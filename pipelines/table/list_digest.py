"""The digest of a list of files, computed column by column.

It is that of `listing.digest_of` over the files' lines, without a Python object for each file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.table.listing import rises

_TEXT: Final = pa.large_string()
# All that `json.dumps` writes as it is.
_PLAIN: Final = r"^[ !#-\[\]-~]*$"
_CHUNK: Final = 2_048
_EMPTY: Final = sha256().hexdigest()


def digest_of_columns(columns: pa.Table) -> str:
    """The digest of the files in the columns of a `Listing`, whatever their order."""
    parts = (_lines(columns.slice(start, _CHUNK)) for start in range(0, len(columns), _CHUNK))
    return _digest_in_order(parts) or _digest_in_order(_sorted(columns)) or _EMPTY


def _digest_in_order(parts: Iterable[pa.Array]) -> str:
    """The digest of lines in order; empty where they are not, or where there are none."""
    hasher, last = sha256(), ""
    for lines in parts:
        if not rises(lines) or lines[0].as_py() < last:
            return ""
        hasher.update((b"\n" if last else b"") + _joined(lines))
        last = lines[-1].as_py()
    return hasher.hexdigest() if last else ""


def _sorted(columns: pa.Table) -> Iterator[pa.Array]:
    """The lines in parts, in order. Those of a listing are, as a rule, without this."""
    if len(columns):
        lines = _lines(columns)
        lines = lines.take(pc.sort_indices(lines))
        yield from (lines[start : start + _CHUNK] for start in range(0, len(lines), _CHUNK))


def _joined(lines: pa.Array) -> bytes:
    whole = pa.LargeListArray.from_arrays(pa.array([0, len(lines)], pa.int64()), lines)
    text: str = pc.binary_join(whole, pa.scalar("\n", _TEXT))[0].as_py()
    return text.encode()


def _lines(columns: pa.Table) -> pa.Array:
    """The line of each file, as `listing.line` writes it."""
    numbers = (pc.cast(_whole(columns[name]), _TEXT) for name in ("size", "rows"))
    facts = (_facts(columns, kind) for kind in ("partition", "low", "high"))
    parts = [_json(_whole(columns["path"])), *numbers, *facts]
    return _concat("[", pc.binary_join_element_wise(*parts, _scalar(",")), "]")


def _facts(columns: pa.Table, kind: str) -> pa.Array:
    """The facts of one kind as a JSON object for each file. Nulls are left out."""
    prefix = f"{kind}."
    names = sorted(name for name in columns.column_names if name.startswith(prefix))
    pairs = [
        _concat(f",{json.dumps(name.removeprefix(prefix))}:", _json(_whole(columns[name])))
        for name in names
    ]
    if not pairs:
        return pa.repeat(_scalar("{}"), len(columns))
    inner = _concat(*(pc.fill_null(pair, "") for pair in pairs))
    return _concat("{", pc.ascii_ltrim(inner, characters=","), "}")


def _json(texts: pa.Array) -> pa.Array:
    """Texts as JSON. A null stays one."""
    plain = pc.match_substring_regex(texts, _PLAIN)
    if pc.all(plain, min_count=0).as_py():
        return _concat('"', texts, '"')
    written = [None if text is None else json.dumps(text) for text in texts.to_pylist()]
    return pa.array(written, _TEXT)


def _concat(*parts: pa.Array | str) -> pa.Array:
    known = [_scalar(part) if isinstance(part, str) else part for part in parts]
    return pc.binary_join_element_wise(*known, _scalar(""))


def _scalar(text: str) -> pa.Scalar:
    return pa.scalar(text, _TEXT)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks()
