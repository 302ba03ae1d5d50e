"""Keyed names of contents: without keys, nobody can tell whether a photo was enrolled in a table.

A content's own name tells what it is: `sha256:` and `md5:` of a file, `vec:` of an embedding's
direction. It is only stored encrypted (`details`). In the clear stands its HMAC. The HMAC's key
belongs to the table and to one generation of its templates: no two generations share a key. Older
tables have the own names in the clear; these still match.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b, md5, sha256
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike

from pipelines.ports import GenerationKeys
from pipelines.table.details import table_keys

_KEYED: Final = "id:"
_HEX: Final = 32
_STEPS: Final = 1 << 14
_KIND: Final = pa.large_string()
FILES: Final = ("sha256:", "md5:")
"""Prefixes of the names of files."""


@dataclass(frozen=True)
class Identities:
    """Names the contents of one generation's inputs. key: 32 secret bytes."""

    key: bytes = field(repr=False)

    @classmethod
    def of(cls, keys: GenerationKeys, generation: int) -> Identities:
        """Those of a generation. Raises `KeyNotFoundError` where the table has no keys."""
        return cls(table_keys(keys).identity_key(generation))

    def named(self, own: str) -> str:
        """The identity of a content, from its own name."""
        mac = hmac.digest(self.key, own.encode(), sha256).hex()
        return _KEYED + mac[:_HEX]

    def all_named(self, own: Iterable[str]) -> list[str]:
        """Identities of several contents, in their order."""
        return [self.named(one) for one in own]

    def column(self, own: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Identities of a column of names; null where there is none."""
        names = own.to_pylist()
        made = [None if name is None else self.named(name) for name in names]
        return pa.array(made, _KIND)


def of_file(content: bytes) -> list[str]:
    """The names of a file's content: by SHA-256, and by MD5, which stores use."""
    md5sum = md5(content, usedforsecurity=False).hexdigest()
    return [f"sha256:{sha256(content).hexdigest()}", f"md5:{md5sum}"]


def of_tag(tag: str) -> str:
    """The name of an object's content, by the MD5 that its store gives."""
    return f"md5:{tag}"


def of_vector(values: ArrayLike, key: bytes = b"") -> str | None:
    """The name of an embedding, (n,) of any scale; None for an unusable one.

    key: 32 bytes, for the names that older tables had in the clear.
    """
    with np.errstate(over="ignore"):
        # Stored embeddings, for example in a vault, are float32.
        vector = np.asarray(values, dtype=np.float32).astype(np.float64)
    if not vector.size or not np.isfinite(vector).all() or not vector.any():
        return None
    # Only the direction counts, without its last digits: exports differ in scale and type.
    unit = vector / np.abs(vector).max()
    steps = np.rint(unit / np.linalg.norm(unit) * _STEPS).astype("<i4")
    return "vec:" + blake2b(steps.tobytes(), key=key, digest_size=16).hexdigest()


def is_file(own: str) -> bool:
    """Whether a name is of a file, not of an embedding."""
    return own.startswith(FILES)


def with_owner(subjects: pa.Array, contents: pa.Array) -> pa.Array:
    """Contents with their owners, as one text each; null where there is no content."""
    return pc.binary_join_element_wise(
        pc.cast(subjects, _KIND), pc.cast(contents, _KIND), pa.scalar("\0", _KIND)
    )
