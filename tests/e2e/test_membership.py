"""Whoever holds a table and a collection of photos cannot tell which photos are in the table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.command import ironmask

from infra.faces.onnx_faces import FaceAligner
from infra.models.packs import find_pack
from pipelines.spec.faces import FaceSettings

CANDIDATES = 3000
ENROLLED = 40
OPTIONS = ("--executor=local", "--alpha=16", "--tolerance=4", "--max-failures=100")
# The operator's labels, and what is encrypted.
LABELS = {"uri", "subject_id", "source_uris"}
ENCRYPTED = {"helper", "digests", "details", "embedding"}


@dataclass(frozen=True)
class Table:
    dest: Path
    keys: Path
    photos: list[Path]
    candidates: list[Path]


@pytest.fixture(scope="module")
def known(shared: Path) -> Any:
    """Embedding and box of each photo by name."""
    found = np.load(shared / "faces" / "lfw_w600k_mbf_embeddings.npz")
    pairs = zip(found["emb"], found["bbox"], strict=True)
    return dict(zip(found["path"].tolist(), pairs, strict=True))


@pytest.fixture(scope="module")
def table(shared: Path, known: Any, tmp_path_factory: pytest.TempPathFactory) -> Table:
    """40 people by a photo of each, 40 others by a stored embedding of each, in one table."""
    folder = tmp_path_factory.mktemp("membership")
    people = sorted((shared / "faces" / "lfw_dev").iterdir())
    photos = [sorted(person.iterdir())[0] for person in people[: 2 * ENROLLED]]
    every = [photo for person in people for photo in sorted(person.iterdir())]
    source = folder / "photos"
    for photo in photos[:ENROLLED]:
        (source / photo.parent.name).mkdir(parents=True)
        (source / photo.parent.name / "1.jpg").write_bytes(photo.read_bytes())
    names = [f"{photo.parent.name}/{photo.name}" for photo in photos[ENROLLED:]]
    stored = pa.table(
        {
            "subject_id": [name.partition("/")[0] for name in names],
            "embedding": [known[name][0] for name in names],
        }
    )
    pq.write_table(stored, folder / "stored.parquet")
    dest, keys = folder / "table", folder / "keys.json"
    model = f"--model={shared / 'models' / 'buffalo_sc'}"
    for one in (source, folder / "stored.parquet"):
        answer = ironmask("enroll", one, dest, f"--keys={keys}", model, *OPTIONS)
        assert answer.code == 0, answer.err
    return Table(dest, keys, photos, every[:CANDIDATES])


def values(dest: Path) -> Iterator[Any]:
    """Every value that lies in the clear: of columns, statistics, footers, logs and other files."""
    for path in dest.rglob("*"):
        if path.is_file() and path.suffix == ".parquet":
            yield from _of_parquet(path)
        elif path.is_file():
            for line in path.read_text(errors="replace").splitlines():
                yield from _leaves(_parsed(line))
        yield path.name


def _of_parquet(path: Path) -> Iterator[Any]:
    parquet = pq.ParquetFile(path)
    for name in parquet.schema_arrow.names:
        if name not in LABELS | ENCRYPTED:
            for value in parquet.read([name])[name].to_pylist():
                yield from _leaves(_parsed(value))
    for key, value in (parquet.schema_arrow.metadata or {}).items():
        yield from (key, value)
    for group in range(parquet.num_row_groups):
        for column in range(parquet.metadata.num_columns):
            found = parquet.metadata.row_group(group).column(column)
            if found.is_stats_set and found.path_in_schema.split(".")[0] not in LABELS:
                yield from (found.statistics.min, found.statistics.max)


def _parsed(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in LABELS:
                yield from _leaves(_parsed(inner))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(_parsed(inner))
    else:
        yield value


def facts(photo: Path, known: Any) -> set[Any]:
    """What whoever holds a photo can compute of it."""
    content = photo.read_bytes()
    digests = [sha256(content), md5(content, usedforsecurity=False)]
    vector, box = known.get(f"{photo.parent.name}/{photo.name}", (np.zeros(1), np.zeros(4)))
    norm = np.linalg.norm(vector.astype(np.float64))
    numbers = {float(norm), float(np.float32(norm)), *map(float, box)} - {0.0, 1.0}
    return {one.hexdigest() for one in digests} | numbers


def _clear(dest: Path) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for value in values(dest):
        if isinstance(value, float):
            found[round(value, 3)] += 1
        elif isinstance(value, str | bytes):
            found[value.decode("latin-1") if isinstance(value, bytes) else value] += 1
    return found


def test_no_value_in_the_clear_singles_out_a_photo(table: Table, known: Any) -> None:
    clear = _clear(table.dest)
    texts = "\n".join(str(value) for value in clear if isinstance(value, str))
    numbers = {value for value in clear if isinstance(value, float)}
    assert len(clear) > 200
    told = []
    for photo in table.candidates:
        for fact in facts(photo, known):
            is_told = fact in texts if isinstance(fact, str) else round(fact, 3) in numbers
            if is_told:
                told.append((photo.name, fact))
    assert told == []


def test_nor_does_what_a_detector_says_of_one(table: Table, shared: Path) -> None:
    """The very box, score and sharpness that the software itself found.

    A time of .766 s may be a score of .766 by chance. What is kept tells of every photo.
    """
    aligner = FaceAligner(find_pack(str(shared / "models" / "buffalo_sc")), FaceSettings())
    numbers = {value for value in _clear(table.dest) if isinstance(value, float)}
    told = 0
    for photo in table.photos[:ENROLLED]:
        face = aligner.align(photo.read_bytes())
        found = {float(one) for one in (*face.box, face.score, face.sharpness)}
        told += bool({round(one, 3) for one in found} & numbers)
    assert told <= ENROLLED / 10


@pytest.mark.slow
def test_raw_bytes_hold_no_digest_of_a_photo(table: Table) -> None:
    content = b"".join(p.read_bytes() for p in table.dest.rglob("*") if p.is_file())
    for photo in table.candidates:
        data = photo.read_bytes()
        for one in (sha256(data), md5(data, usedforsecurity=False)):
            assert one.digest() not in content
            assert one.hexdigest().encode() not in content


@pytest.mark.slow
def test_duplicates_are_found_by_who_has_the_keys(
    table: Table, shared: Path, tmp_path: Path
) -> None:
    """Over runs and generations: one photo for two people is never two templates."""
    source = tmp_path / "again"
    (source / "somebody_else").mkdir(parents=True)
    (source / "somebody_else" / "1.jpg").write_bytes(table.photos[0].read_bytes())
    model = f"--model={shared / 'models' / 'buffalo_sc'}"
    keys = f"--keys={table.keys}"
    answer = ironmask("enroll", source, table.dest, keys, model, *OPTIONS, "--json")
    assert json.loads(answer.out)["reasons"] == {"duplicate_other_subject": 1}
    for command in ("rekey", "rotate-mac"):
        answer = ironmask(command, table.dest, keys, "--executor=local")
        assert answer.code == 0, answer.err
        answer = ironmask("enroll", source, table.dest, keys, model, *OPTIONS, "--json")
        assert json.loads(answer.out)["reasons"] == {"duplicate_other_subject": 1}
    answer = ironmask("check", table.dest, keys, "--deep")
    assert answer.code == 0, answer.out


@pytest.mark.slow
def test_an_erasure_is_proved_after_the_next_renewal(table: Table) -> None:
    keys = f"--keys={table.keys}"
    subject = table.photos[1].parent.name
    assert ironmask("erase", "--yes", table.dest, keys, f"--subject={subject}").code == 0
    for command in ("rekey", "rotate-mac"):
        assert ironmask(command, table.dest, keys, "--executor=local").code == 0
        proof = ironmask("prove", table.dest, keys, f"--subject={subject}", "--json")
        assert proof.code == 0, proof.out
        (what,) = json.loads(proof.out)["record"]
        assert what.startswith("erasure ")
