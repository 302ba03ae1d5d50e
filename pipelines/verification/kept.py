"""What a verifier keeps while the generations of its table stand: keys, pseudonyms, settings."""

from __future__ import annotations

from threading import Lock
from typing import Any

from infra.keys.key_file import KeyFile
from pipelines.ports import GenerationKeys, TableKeys
from pipelines.spec.faces import FaceSettings
from pipelines.table import run_records
from pipelines.table.pseudonyms import kept
from pipelines.table.sealed import SealedTables


class Kept:
    """What was opened since a generation came or went last.

    renewals: of the tables, when it was made. Several threads may ask.
    """

    def __init__(self, tables: SealedTables, file: KeyFile, before: Kept | None = None) -> None:
        """before: what was kept until the seal was renewed. A commit to the table of generations
        drops its keys.

        Raises `KeyNotFoundError` where the table holds pseudonyms whose keys are missing.
        """
        self.renewals = tables.renewals
        self._tables = tables
        self._file = file
        self._generations = tables.chain("generations")
        stands = before is not None and before._generations == self._generations
        self._table_keys: TableKeys | None = (
            before._table_keys if before and stands else file.table()
        )
        self._pseudonyms = kept(tables, self._table_keys)
        self._lock = Lock()
        self._keys: dict[int, GenerationKeys] = dict(before._keys) if before and stands else {}
        self._faces: dict[str, FaceSettings] = dict(before._faces) if before and stands else {}

    def stored(self, subject: str) -> str:
        """What a person is stored as."""
        return self._pseudonyms.subject(subject) if self._pseudonyms else subject

    def generation(self, number: int) -> GenerationKeys:
        """The keys of a generation. Raises as `KeyFile.generation` does."""
        with self._lock:
            if number not in self._keys:
                self._keys[number] = self._file.generation(number)
            return self._keys[number]

    def faces(self, run_id: str) -> FaceSettings:
        """The face settings of the run that made a row, for this machine's CPU."""
        with self._lock:
            if run_id not in self._faces:
                self._faces[run_id] = FaceSettings(**self._enrolled(run_id))
            return self._faces[run_id]

    def _enrolled(self, run_id: str) -> dict[str, Any]:
        for record in run_records.runs(self._tables):
            if record.run_id == run_id:
                return {**record.config["job"]["faces"], "provider": "cpu"}
        return {}
