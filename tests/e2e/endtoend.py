"""Whole runs of the command line on real faces, and what their tables hold."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from commandline import Answer
from deltalake import DeltaTable

from infra.faces.onnx_faces import FaceAligner, FaceRecogniser
from infra.keys.key_file import KeyFile
from infra.models.packs import find_pack
from infra.store.delta import DeltaTables
from ironmask import Params, codeword, digest, helper, tiles
from ironmask.arrays import F32, F64, I32
from ironmask.errors import ImageError
from ironmask.template import ProtectedTemplate
from pipelines.ports import GenerationKeys
from pipelines.spec.faces import FaceSettings
from pipelines.table.row_cipher import open_row

Row = dict[str, Any]
_FOREIGN = ("IRONMASK_", "PREFECT_", "RAY_")


def clean_environment(folder: Path, **more: str) -> dict[str, str]:
    """This process's environment without its settings; whatever is made lands in a folder."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
    return {
        **kept,
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_STATE_HOME": str(folder / "state"),
        "RAY_USAGE_STATS_ENABLED": "0",
        **more,
    }


def command(folder: Path, *arguments: object, **environment: str) -> Answer:
    """Run the installed command in a process of its own."""
    program = Path(sys.executable).with_name("ironmask")
    done = subprocess.run(
        [program, *map(str, arguments)],
        cwd=folder,
        env=clean_environment(folder, **environment),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def keys_of(dest: Path) -> Path:
    return dest.with_name(f"{dest.name}.keys.json")


def table_id_of(dest: Path) -> str:
    return DeltaTables(str(dest), {}).table_id


def rows(dest: Path, name: str) -> list[Row]:
    """The rows that the log lists."""
    files = DeltaTable(str(dest / name)).file_uris()
    found: list[Row] = pads.dataset(files, partitioning="hive").to_table().to_pylist()
    return found


def templates(dest: Path) -> dict[str, Row]:
    """The row of each subject."""
    found = rows(dest, "templates")
    by_subject = {row["subject_id"]: row for row in found}
    assert len(by_subject) == len(found), "two live issues of one person"
    return by_subject


def generation_keys(dest: Path) -> GenerationKeys:
    return KeyFile.open(keys_of(dest), table_id_of(dest)).generation(1)


def data_files(dest: Path, name: str) -> list[Path]:
    return sorted(Path(uri) for uri in DeltaTable(str(dest / name)).file_uris())


def rewrite(path: Path, change: Callable[[list[Row]], None]) -> None:
    """Change the rows of one data file in place, as somebody with write access could."""
    table = pq.ParquetFile(path).read()
    content = table.to_pylist()
    change(content)
    pq.write_table(pa.Table.from_pylist(content, table.schema), path)


def write_manifest(path: Path, entries: Iterable[tuple[str, Path]]) -> Path:
    """A CSV of (subject, image)."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["subject_id", "uri"])
        writer.writerows(entries)
    return path


def write_embeddings(path: Path, subjects: Sequence[str], vectors: Any) -> Path:
    """A Parquet of stored embeddings, (k, n) float32."""
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, len(vectors[0]))
    pq.write_table(pa.table({"subject_id": list(subjects), "embedding": column}), path)
    return path


def photographs(faces: Path) -> dict[str, list[Path]]:
    """The images of each subject, by name."""
    return {folder.name: sorted(folder.iterdir()) for folder in sorted(faces.iterdir())}


def embed_images(model: Path, images: Sequence[Path]) -> list[F32 | None]:
    """The raw embedding of each image; None where no face can be taken from it."""
    pack, settings = find_pack(str(model)), FaceSettings()
    aligner, recogniser = FaceAligner(pack, settings), FaceRecogniser(pack, settings)
    return [_embed(path, aligner, recogniser) for path in images]


def _embed(path: Path, aligner: FaceAligner, recogniser: FaceRecogniser) -> F32 | None:
    try:
        face = aligner.align(path.read_bytes())
    except ImageError:
        return None
    vector: F32 = recogniser.embed(face.crop[None])[0]
    return vector


@dataclass(frozen=True)
class Opened:
    """One row as its owner sees it. matrix: P, (n, n). code: the signed support, (alpha,)."""

    subject: str
    matrix: F32
    code: I32

    @property
    def template(self) -> F64:
        """The enrolled unit template, P' c."""
        found: F64 = self.matrix.T @ codeword.dense(self.code, len(self.matrix))[0]
        return found

    def tolerances(self, probes: F32, largest: int) -> Any:
        """Tolerances up to the largest that accept each unit probe, (k, n), as bits: (k,)."""
        params = Params(len(self.matrix), len(self.code), largest)
        return tiles.judge(self.matrix, self.code, probes, params)[1]


def open_template(table_id: str, row: Row, keys: GenerationKeys, near: Any) -> Opened:
    """Open a row with its keys. near: a vector close enough to the template to give its codeword.

    That it is the codeword itself is proven by its digests, which must be the row's.
    """
    protected: ProtectedTemplate = open_row(table_id, row, keys)
    params = protected.params
    matrix = helper.decode([protected.helper], protected.encoding, params.n)[0]
    code = codeword.decode(matrix @ np.asarray(near, np.float32), params.alpha)[0]
    tags = digest.digests(code, params, keys.row_key(row["template_id"]))
    assert tags == row["digests"], f"no codeword found for {row['subject_id']}"
    return Opened(row["subject_id"], matrix, code)


def open_all(dest: Path, near: Mapping[str, Any]) -> dict[str, Opened]:
    """Every template of a destination, opened."""
    table_id, keys = table_id_of(dest), generation_keys(dest)
    return {
        subject: open_template(table_id, row, keys, near[subject])
        for subject, row in templates(dest).items()
    }


def unit(vectors: Any) -> F32:
    """(k, n) of any scale to unit rows."""
    wide = np.asarray(vectors, dtype=np.float64)
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)
