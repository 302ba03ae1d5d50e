"""What travels between processes: arrays between a worker and a host of models, outcomes to the
driver. All of it is encrypted and bound to its place.

Pictures, crops, embeddings and outcomes pass through an object store that spills to disk, and over
networks.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.ports import Cipher

DETECT: Final = "detect"
EMBED: Final = "embed"
_OUTCOMES: Final = "outcomes"


@dataclass(frozen=True, slots=True)
class Channel:
    """The questions of one shard, and their answers. run_id, shard: whose they are."""

    keys: Cipher = field(repr=False)
    run_id: str
    shard: int

    def question(self, what: str, number: int, *arrays: NDArray[Any]) -> bytes:
        """Encrypt a question. number: it is the only one of its shard that has it."""
        return self.keys.encrypt(_packed(arrays), self._bound(f"{what} question {number}"))

    def asked(self, what: str, number: int, sealed: bytes) -> list[NDArray[Any]]:
        """Undo `question`. Raises `TamperedError` for what was asked elsewhere, or changed."""
        return _unpacked(self.keys.decrypt(sealed, self._bound(f"{what} question {number}")))

    def answer(self, what: str, number: int, *arrays: NDArray[Any]) -> bytes:
        """Encrypt the answer to a question."""
        return self.keys.encrypt(_packed(arrays), self._bound(f"{what} answer {number}"))

    def answered(self, what: str, number: int, sealed: bytes) -> list[NDArray[Any]]:
        """Undo `answer`. Raises `TamperedError` for an answer to another question."""
        return _unpacked(self.keys.decrypt(sealed, self._bound(f"{what} answer {number}")))

    def settled(self, rows: pa.Table) -> bytes:
        """Encrypt a shard's rows of `inputs`, for whoever writes them."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as out:
            out.write_table(rows)
        return self.keys.encrypt(sink.getvalue().to_pybytes(), self._bound(_OUTCOMES))

    def rows(self, sealed: bytes) -> pa.Table:
        """Undo `settled`. Raises `TamperedError` for rows of another shard, or changed ones."""
        plain = self.keys.decrypt(sealed, self._bound(_OUTCOMES))
        return pa.ipc.open_stream(pa.py_buffer(plain)).read_all()

    def _bound(self, what: str) -> bytes:
        return f"ironmask in transit {self.run_id} {self.shard} {what}".encode()


def _packed(arrays: tuple[NDArray[Any], ...]) -> bytes:
    out = io.BytesIO()
    for array in arrays:
        np.lib.format.write_array(out, np.ascontiguousarray(array), allow_pickle=False)
    return out.getvalue()


def _unpacked(content: bytes) -> list[NDArray[Any]]:
    source, found = io.BytesIO(content), []
    while source.tell() < len(content):
        found.append(np.lib.format.read_array(source, allow_pickle=False))
    return found
