"""Every `ironmask` command of the documents, run as printed, where what it names is at hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support import documents
from support.command import Answer, command
from support.crops import write_crops
from support.documents import blocks
from support.enrolling import write_manifest
from support.examples import people, write_faces

PEOPLE = {"Ada": "Serena_Williams", "Bob": "Tony_Blair"}
BUCKET = "bucket"
# Small and weak, so that an audit's searches end.
WEAK = ("--alpha=8", "--tolerance=0", "--executor=local")


@dataclass(frozen=True)
class Place:
    """The folder of a walk. ask: gives a fixture by its name. settings: of the environment."""

    folder: Path
    ask: Callable[[str], Any]
    settings: dict[str, str] = field(default_factory=dict)

    def run(self, *words: object) -> Answer:
        """Run a command, which must end with 0."""
        models = str(self.folder / "models")
        answer = command(self.folder, *words, IRONMASK_MODELS=models, **self.settings)
        assert answer.code == 0, (words, answer)
        return answer


def photos(place: Place) -> None:
    """Two models, photos of two subjects, other photos of one of them, and a list of these."""
    models, faces = place.ask("shared") / "models", place.ask("faces")
    shutil.copytree(models / "buffalo_sc", place.folder / "models" / "buffalo_sc")
    shutil.copytree(models / "edgeface_s", place.folder / "models" / "other")
    for name, person in PEOPLE.items():
        (place.folder / "photos" / name).mkdir(parents=True)
        for photo in sorted((faces / person).iterdir())[:4]:
            shutil.copyfile(photo, place.folder / "photos" / name / photo.name)
    probes = [place.folder / f"probe{number}.jpg" for number in (1, 2)]
    others = sorted((faces / PEOPLE["Ada"]).iterdir())[4:6]
    for photo, probe in zip(others, probes, strict=True):
        shutil.copyfile(photo, probe)
    write_manifest(place.folder / "probes.csv", [("Ada", Path(probe.name)) for probe in probes])


def in_bucket(place: Place) -> None:
    """The same photos in the bucket that documents name, and nothing else there."""
    photos(place)
    client = place.ask("s3").client()
    if BUCKET not in {found["Name"] for found in client.list_buckets().get("Buckets", [])}:
        client.create_bucket(Bucket=BUCKET)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for found in page.get("Contents", []):
            client.delete_object(Bucket=BUCKET, Key=found["Key"])
    for photo in (place.folder / "photos").rglob("*.jpg"):
        key = photo.relative_to(place.folder).as_posix()
        client.put_object(Bucket=BUCKET, Key=key, Body=photo.read_bytes())
    place.settings.update(place.ask("s3").environment())


def every_source(place: Place) -> None:
    in_bucket(place)
    found = sorted((place.folder / "photos").rglob("*.jpg"))
    entries = [(photo.parent.name, photo.relative_to(place.folder)) for photo in found]
    write_manifest(place.folder / "people.csv", entries)
    write_faces(place.folder / "embeddings.parquet", people(4), each=2, width=512)


def enrolled(place: Place) -> None:
    photos(place)
    place.run("enroll", "photos/", "table/", "--model=buffalo_sc", "--executor=local")


def enrolled_with_vault(place: Place) -> None:
    photos(place)
    more = ("--executor=local", "--vault")
    place.run("enroll", "photos/", "table/", "--model=buffalo_sc", *more)


def embeddings(place: Place) -> None:
    write_faces(place.folder / "embeddings.parquet", people(6), each=2)


def compared(place: Place) -> None:
    """Faces, a table of the first ones of each subject, and lists that name some."""
    write_faces(place.folder / "embeddings.parquet", people(12))
    write_faces(place.folder / "gallery.parquet", people(12), each=3)
    place.run("enroll", "gallery.parquet", "table/", "--executor=local")
    (place.folder / "pairs.txt").write_text("Ada\t1\t2\nBob\t4\t5\nAda\t1\tBob\t3\n")
    (place.folder / "wrong-labels.txt").write_text("# seen by eye\nBob/Bob_0012.jpg\n")


def measured(place: Place) -> None:
    """Photos, faces of so many people that they can tell a rate, and an evaluation of these."""
    photos(place)
    everybody = people(200)
    write_faces(place.folder / "embeddings.parquet", everybody, each=2, width=512)
    asked = ("--protocol=first:1", "--setting=512,12,1", "--executor=local")
    place.run("evaluate", "embeddings.parquet", "every/", *asked)


def attacked(place: Place) -> None:
    """Two tables of the same subjects under keys of their own, and faces of strangers."""
    folder = place.folder
    write_faces(folder / "enrolled.parquet", people(12), each=1)
    strangers = [f"stranger_{number}" for number in range(50)]
    write_faces(folder / "embeddings.parquet", strangers, seed=2)
    place.run("enroll", "enrolled.parquet", "table/", *WEAK)
    place.run("enroll", "enrolled.parquet", "backup/", *WEAK, "--keys=b.json")
    (own,) = (folder / "config" / "ironmask" / "keys").glob("*.json")
    shutil.copy(own, folder / "a.json")


def inverted(place: Place) -> None:
    """Aligned faces of a hundred people in a zip file, two models, and a table of these people."""
    photos(place)
    shutil.move(place.folder / "models" / "other", place.folder / "models" / "edgeface_s")
    known = sorted(place.ask("faces").iterdir())[:100]
    write_crops(place.folder / "faces.zip", [person.name for person in known], each=3)
    people = [(person.name, min(person.iterdir())) for person in known]
    write_manifest(place.folder / "enrolled.csv", people)
    asked = ("--model=buffalo_sc", "--executor=local", f"--allow-root={known[0].parent}")
    place.run("enroll", "enrolled.csv", "table/", *asked)


@dataclass(frozen=True)
class Walk:
    """What a document's commands find, and the names that they leave in the folder."""

    prepare: Callable[[Place], None]
    leaves: frozenset[str]


WALKS = {
    "README.md": Walk(in_bucket, frozenset({"table", "config"})),
    "deploy/docs/enrol.md": Walk(
        every_source,
        frozenset({"table", "from-manifest", "from-embeddings", "answers.parquet", "config"}),
    ),
    "deploy/docs/evaluate.md": Walk(
        compared, frozenset({"every", "by-count", "by-list", "as-stored", "wide"})
    ),
    "deploy/docs/settings.md": Walk(measured, frozenset({"chosen"})),
    "deploy/docs/audit.md": Walk(attacked, frozenset({"audit", "both"})),
    "deploy/docs/inversion.md": Walk(inverted, frozenset({"linear", "report", "as-stored"})),
    "deploy/docs/operate.md": Walk(enrolled, frozenset()),
    "deploy/docs/capacity.md": Walk(photos, frozenset()),
    "deploy/docs/reprotect.md": Walk(enrolled_with_vault, frozenset()),
    "deploy/docs/keys.md": Walk(embeddings, frozenset({"table", "keys.json"})),
}


def test_every_document_with_commands_is_walked() -> None:
    texts = documents.written()
    assert {name for name, text in texts.items() if blocks(text, "sh")} == WALKS.keys()


# Beside other work, some documents take longer than a test usually may.
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", WALKS)
def test_the_commands_of_a_document(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place, walk = Place(tmp_path, request.getfixturevalue), WALKS[name]
    walk.prepare(place)
    before = {path.name for path in tmp_path.iterdir()}
    said: dict[str, Answer] = {}
    for block in blocks(documents.texts()[name], "sh"):
        for line in documents.lines(block):
            words = documents.arguments(line)
            said[words[0]] = place.run(*words)
    assert {path.name for path in tmp_path.glob("[!.]*")} - before == walk.leaves
    check = CHECKS.get(name)
    if check:
        check(tmp_path, said)


def _verified(_folder: Path, said: dict[str, Answer]) -> None:
    assert list(said) == ["models", "enroll", "inspect", "verify"]
    assert said["verify"].out.count("accepted") == 2


def _answered(folder: Path, _said: dict[str, Answer]) -> None:
    assert pq.read_table(folder / "answers.parquet")["accepted"].to_pylist() == [True, True]


def _reported(folder: Path, _said: dict[str, Answer]) -> None:
    for out in ("every", "by-count", "by-list", "as-stored"):
        assert (folder / out / "report.html").stat().st_size > 0


def _chosen(_folder: Path, said: dict[str, Answer]) -> None:
    assert "Chosen: n 512" in said["settings"].out
    assert "chosen by --fmr" in said["enroll"].err


def _attacked(folder: Path, _said: dict[str, Answer]) -> None:
    for out in ("audit", "both"):
        assert (folder / out / "report.html").stat().st_size > 0


def _inverted(folder: Path, _said: dict[str, Answer]) -> None:
    for out in ("report", "as-stored"):
        rows = pq.read_table(folder / out / "inversion.parquet").to_pylist()
        some = [row for row in rows if row["far"] == 1e-2 and row["type"] == 1 and row["attacked"]]
        found = {row["input"]: row["tar"] for row in some}
        assert found["readable helper, random codeword"] < found["stored embedding"]


CHECKS: dict[str, Callable[[Path, dict[str, Answer]], None]] = {
    "README.md": _verified,
    "deploy/docs/enrol.md": _answered,
    "deploy/docs/evaluate.md": _reported,
    "deploy/docs/settings.md": _chosen,
    "deploy/docs/audit.md": _attacked,
    "deploy/docs/inversion.md": _inverted,
}
