"""What answers verifications again and again: keys, sealed tables and models that are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from infra.faces.onnx_faces import FaceAligner, FaceRecogniser
from infra.keys.key_file import KeyFile
from infra.models.packs import ModelPack
from pipelines.ports import F32, Aligner, GenerationKeys, Recogniser, Store, StoredTables
from pipelines.setup import ports
from pipelines.spec.faces import FaceSettings
from pipelines.table import read, run_records
from pipelines.table.pseudonyms import Pseudonyms, kept
from pipelines.table.read import Row
from pipelines.verification import probe
from pipelines.verification.probe import Verdict


class Verifier:
    """Answers from what the seal of a destination vouched for when it was last looked at."""

    def __init__(self, tables: StoredTables, store: Store, file: KeyFile) -> None:
        """Raises `TableError` where the seal or a log was changed, `KeyStoreError` without keys."""
        self._tables = ports.sealed(tables, store, file)
        self._table_id = file.table_id
        self._file = file
        self._open: Callable[[int], GenerationKeys] = file.generation
        self._pseudonyms: Pseudonyms | None = None
        self._look_for_pseudonyms()
        self._keys: dict[int, GenerationKeys] = {}
        self._faces: dict[str, FaceSettings] = {}
        self._models = lru_cache(maxsize=2)(_models)

    def refresh(self) -> bool:
        """Look for a newer seal, by one request where there is none; tell whether there was one.

        Raises `TableError` where the seal or a log was changed.
        """
        renewed = self._tables.refresh()
        if renewed:
            # Those of a generation that is gone must not open anything any more.
            self._keys.clear()
            self._faces.clear()
            self._look_for_pseudonyms()
        return renewed

    def _look_for_pseudonyms(self) -> None:
        self._pseudonyms = kept(self._tables, self._file.table())

    def row(self, subject: str) -> Row:
        """A subject's live row and its keys; errors as of `read.open_live`."""
        stored = self._pseudonyms.subject(subject) if self._pseudonyms else subject
        return read.open_live(self._tables, stored, self._generation)

    def verify_embeddings(self, subject: str, embeddings: F32) -> list[bool]:
        """Tell for each probe embedding, (k, n), whether it matches a subject's template."""
        row, keys = self.row(subject)
        return probe.verify_embeddings(self._table_id, row, embeddings, keys)

    def verify_images(
        self, row: Row, images: Sequence[tuple[str, bytes]], pack: ModelPack
    ) -> list[Verdict]:
        """Tell for each probe image, given as (name, content), whether it matches a row."""
        found, keys = row
        aligner, recogniser = self._models(pack, self.faces(found["run_id"]))
        model = pack.fingerprint, pack.name
        return probe.verify_images(self._table_id, found, images, model, aligner, recogniser, keys)

    def faces(self, run_id: str) -> FaceSettings:
        """The face settings of the run that made a row, for this machine's CPU."""
        if run_id not in self._faces:
            self._faces[run_id] = FaceSettings(**self._enrolled(run_id))
        return self._faces[run_id]

    def _enrolled(self, run_id: str) -> dict[str, Any]:
        for record in run_records.runs(self._tables):
            if record.run_id == run_id:
                stored = dict(record.config["job"]["faces"])
                stored["det_sizes"] = tuple(stored["det_sizes"])
                return {**stored, "provider": "cpu"}
        return {}

    def _generation(self, number: int) -> GenerationKeys:
        if number not in self._keys:
            self._keys[number] = self._open(number)
        return self._keys[number]


def _models(pack: ModelPack, faces: FaceSettings) -> tuple[Aligner, Recogniser]:
    return FaceAligner(pack, faces), FaceRecogniser(pack, faces)
