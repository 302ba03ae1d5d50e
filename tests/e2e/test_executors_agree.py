"""The local and the Ray executor give the same rows and the same decisions."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.command import Answer, command
from support.faces import embed_images, photographs
from support.table import Row, generation_keys, keys_of, rows, table_id_of, templates

from pipelines.verification.probe import verify_embeddings

SUBJECTS, EACH, PROBES = 10, 3, 2
# What no two runs share: identities, times, keys and what is encrypted under them.
OWN = {"template_id", "run_id", "enrolled_at", "helper", "digests", "key_id", "details"}
OWN |= {"identities"}


@pytest.fixture(scope="module")
def people(faces) -> dict[str, list[Path]]:
    """Ten people with the images to enrol and to probe."""
    found = photographs(faces)
    return {name: found[name][: EACH + PROBES] for name in list(found)[:SUBJECTS]}


@pytest.fixture(scope="module")
def source(people, faces, tmp_path_factory) -> Path:
    """A folder of good images, and of what people put beside them."""
    folder = tmp_path_factory.mktemp("agree") / "source"
    for name, images in people.items():
        (folder / name).mkdir(parents=True)
        for path in images[:EACH]:
            shutil.copy(path, folder / name)
    spare = next(images for name, images in photographs(faces).items() if name not in people)
    _add_bad(folder, [*people.values(), spare])
    return folder


def _add_bad(folder: Path, images: list[list[Path]]) -> None:
    first, second, spare = images[0], images[1], images[-1]
    own = folder / first[0].parent.name
    content = first[0].read_bytes()
    (own / "truncated.jpg").write_bytes(content[: len(content) // 2])
    (own / "empty.jpg").touch()
    (own / "text.jpg").write_text("no picture")
    (own / "moving.gif").write_bytes(b"GIF89a" + bytes(64))
    Image.new("RGB", (200, 200), (90, 120, 90)).save(own / "nobody.png")
    (own / "copy of a = \u00e9\u4e16.jpg").write_bytes(content)
    (own / ".hidden.jpg").write_bytes(first[EACH].read_bytes())
    (folder / second[0].parent.name / "of another.jpg").write_bytes(content)
    (folder / "nobody at all").mkdir()
    only_bad = folder / "only bad=1"
    only_bad.mkdir()
    (only_bad / "text.jpg").write_text("no picture either")
    odd = folder / "J\u00fcrgen = \u4e16\u754c"
    odd.mkdir()
    (odd / "a b=c \u00fc.jpg").write_bytes(spare[0].read_bytes())
    (folder / "stray.jpg").write_bytes(second[EACH].read_bytes())


@pytest.fixture(scope="module")
def local(source, model) -> tuple[Path, Answer]:
    return _enrol(source, model, "local")


@pytest.fixture(
    scope="module",
    params=[0, pytest.param(2, marks=pytest.mark.slow)],
    ids=["whole shards", "with embedders"],
)
def on_ray(source, model, request) -> tuple[Path, Answer]:
    return _enrol(source, model, "ray", f"--embedders={request.param}")


def _enrol(source: Path, model: Path, executor: str, *more: str) -> tuple[Path, Answer]:
    dest = source.with_name(executor + "".join(more).replace("=", ""))
    own = ("--shard-size=12", "--keys", keys_of(dest), "--json", f"--executor={executor}")
    answer = command(source.parent, "enroll", source, dest, "--model", model, *own, *more)
    assert answer.code == 3, answer.err
    return dest, answer


def comparable(found: list[Row], *order: str) -> list[Row]:
    kept = [{name: v for name, v in row.items() if name not in OWN} for row in found]
    return sorted(kept, key=lambda row: [row[name] for name in order])


def test_every_kind_of_input_is_there(local):
    dest, answer = local
    reasons = Counter(row["reason"] for row in rows(dest, "inputs"))
    assert reasons == {
        "": SUBJECTS * EACH + 1,
        "truncated": 1,
        "empty_file": 1,
        "not_an_image": 2,
        "format_not_allowed": 1,
        "no_face": 1,
        "duplicate_content": 1,
        "duplicate_other_subject": 1,
        "hidden_file": 1,
        "empty_subject": 1,
        "no_subject": 1,
    }
    assert answer.json()["subjects_enrolled"] == SUBJECTS + 1
    assert answer.json()["subjects_not_enrolled"] == 1


def test_the_inputs_are_the_same(local, on_ray):
    there, here = (comparable(rows(dest, "inputs"), "uri") for dest, _ in (on_ray, local))
    assert there == here


def test_the_templates_are_the_same(local, on_ray):
    there, here = (comparable(rows(dest, "templates"), "subject_id") for dest, _ in (on_ray, local))
    assert len(here) == SUBJECTS + 1
    assert there == here


def test_the_summaries_are_the_same(local, on_ray):
    own = ("run_id", "dest", "seconds", "stage_seconds", "bytes_written")
    there, here = ({k: v for k, v in a.json().items() if k not in own} for _, a in (on_ray, local))
    assert there == here


def test_nothing_secret_is_shared(local, on_ray):
    """Two issues must be drawn apart: another codeword, another rotation, other keys."""
    here, there = templates(local[0]), templates(on_ray[0])
    for subject, row in here.items():
        for name in ("template_id", "key_id", "helper", "digests"):
            assert row[name] != there[subject][name]


def test_the_decisions_are_the_same(local, on_ray, people, model):
    images = [path for paths in people.values() for path in paths]
    vectors = embed_images(model, images)
    assert not any(vector is None for vector in vectors)
    here, there = (_decisions(dest, np.stack(vectors)) for dest, _ in (local, on_ray))
    held_out = []
    for subject in here:
        both = zip(here[subject], there[subject], strict=True)
        for path, answers in zip(images, both, strict=True):
            if path in people.get(subject, [])[EACH:]:
                held_out.append(answers)
            else:
                assert answers == (path.parent.name == subject,) * 2
    # Codewords are drawn anew, so a probe at the edge may fall on either side of it.
    assert sum(a == b for a, b in held_out) >= 0.9 * len(held_out) > 0
    assert sum(a and b for a, b in held_out) > len(held_out) / 2


def _decisions(dest: Path, probes: np.ndarray) -> dict[str, list[bool]]:
    table_id, keys = table_id_of(dest), generation_keys(dest)
    return {
        subject: verify_embeddings(table_id, row, probes, keys)
        for subject, row in templates(dest).items()
    }
