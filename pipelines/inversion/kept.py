"""Embeddings of the faces at hand, kept encrypted while a job needs them, so that it can resume.

The key lies in a keyset file of its own in the user's configuration folder, and is destroyed at the
end. No embedding is on a disk, or on its way between processes, in the clear.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from infra.keys import passing
from pipelines.ports import F32, GenerationKeys, Store
from pipelines.setup import ports
from pipelines.table import layout

_FOLDER: Final = "embedded"
_ENDING: Final = ".bin"

Failure = tuple[int, str, str]
"""The place of a photo that cannot be used, the reason's code, and its text."""


@dataclass(frozen=True)
class Kept:
    """What a job keeps in its output folder. name: a UUID, of the job and of its key."""

    out: str
    name: str
    store: Store

    @property
    def _keys(self) -> GenerationKeys:
        # Every worker must be able to read its file.
        return ports.keys(passing.place(self.name), self.name, passing.GENERATION)

    def begin(self) -> None:
        """Make the key where there is none yet; what only a lost one opens is removed."""
        if passing.make(self.name):
            self._remove()

    def end(self) -> None:
        """Destroy the key, and remove what it opened."""
        passing.remove(self.name)
        self._remove()

    def done(self) -> set[int]:
        """Numbers of the batches that are there."""
        names = (entry.uri.rpartition("/")[2] for entry in self.store.entries(self._folder))
        return {int(name.removesuffix(_ENDING)) for name in names if name.endswith(_ENDING)}

    def write(self, number: int, rows: F32, failures: Sequence[Failure]) -> None:
        """Keep a batch: rows, (b, n), NaN where a photo cannot be used."""
        head = json.dumps({"width": rows.shape[1], "failures": failures}).encode()
        plain = b"\n".join((head, rows.astype("<f4").tobytes()))
        sealed = self._keys.encrypt(plain, self._bound(number))
        self.store.write(self._address(number), sealed)

    def read(self, number: int) -> tuple[F32, list[Failure]]:
        """Undo `write`. Raises `TamperedError` where the batch was changed."""
        plain = self._keys.decrypt(self.store.read(self._address(number)), self._bound(number))
        head, _, body = plain.partition(b"\n")
        told = json.loads(head)
        rows = np.frombuffer(body, "<f4").reshape(-1, told["width"]).astype(np.float32)
        return rows, [(place, reason, text) for place, reason, text in told["failures"]]

    def _remove(self) -> None:
        self.store.delete([entry.uri for entry in self.store.entries(self._folder)])

    @property
    def _folder(self) -> str:
        return layout.join(self.out, _FOLDER)

    def _address(self, number: int) -> str:
        return layout.join(self._folder, f"{number:06d}{_ENDING}")

    def _bound(self, number: int) -> bytes:
        return f"ironmask inversion embeddings\0{self.name}\0{number}".encode()
