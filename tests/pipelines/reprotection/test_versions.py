"""From version 1 of the scheme to version 2, and staying in either."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.command import Answer, ironmask
from support.enrolling import (
    WIDTH,
    PowerCutError,
    captures,
    request,
    run,
    run_as_first_version,
    several,
    unit_vectors,
)
from support.marks import few, slow
from support.table import checked, copied, keys_of, rows, templates, verified

from ironmask.params import PRESETS, Params, preset

PEOPLE = 5
WIDE = {"code_width": 2 * WIDTH, "structure": "quaternionic"}
LATER = ("code_width", "structure", "conditioner", "own_secret")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Tables of both versions, with vaults."""
    folder = tmp_path_factory.mktemp("made")
    source = several(folder / "e.parquet", PEOPLE)
    run_as_first_version(request(source, folder / "first", vault=True))
    run(request(source, folder / "second", vault=True, **WIDE))
    return folder


@pytest.fixture
def first(made, tmp_path) -> Path:
    return copied(made / "first", tmp_path / "table")


@pytest.fixture
def second(made, tmp_path) -> Path:
    return copied(made / "second", tmp_path / "table")


def again(dest: Path, *more: object, command: str = "reprotect") -> Answer:
    return ironmask(command, dest, "--executor=local", f"--keys={keys_of(dest)}", *more)


def params(dest: Path) -> Params:
    """The parameters of all templates."""
    (found,) = {Params.recorded(row) for row in templates(dest).values()}
    return found


def answers(dest: Path) -> list[bool]:
    """Whether each person's own probe matches, and one of somebody else."""
    probes = captures(unit_vectors(PEOPLE), 1, seed=5)
    found = []
    for number in range(PEOPLE):
        found += verified(dest, f"s{number:03d}", np.stack([probes[number], probes[number - 1]]))
    return found


def assert_whole(dest: Path) -> None:
    assert answers(dest) == [True, False] * PEOPLE
    assert checked(dest).code == 0, checked(dest).out


@pytest.mark.parametrize("way", few([[], ["--vault"]], ["--vault"]), ids=["embeddings", "vault"])
def test_explicit_options_move_it_to_version_2(first, way):
    done = again(first, "--code-width=128", *way)
    assert done.code == 0, done.err
    assert params(first) == Params(WIDTH, 12, 1, 128, "quaternionic")
    reserved = {(row["conditioner"], row["own_secret"]) for row in templates(first).values()}
    assert reserved == {(None, False)}
    assert_whole(first)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_moves_it_to_version_2(first, name):
    done = again(first, f"--preset={name}", "--vault")
    assert done.code == 0, done.err
    assert params(first) == preset(name, WIDTH)
    assert checked(first).code == 0


@pytest.mark.parametrize("more", few([[], ["--alpha=13"], ["--encoding=float16"]], []), ids=str)
def test_without_a_wider_code_it_stays_of_version_1(first, more):
    assert again(first, *more).code == 0
    found = params(first)
    assert (found.version, found.code_width) == (1, WIDTH)
    assert {row[name] for row in templates(first).values() for name in LATER} == {None}
    assert_whole(first)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        slow("first", "rekey"),
        ("first", "rotate-mac"),
        ("second", "rekey"),
        slow("second", "rotate-mac"),
    ],
)
def test_rows_made_from_rows_keep_their_version(made, tmp_path, name, command):
    dest = copied(made / name, tmp_path / "table")
    before = {row["subject_id"]: row for row in rows(dest, "templates")}
    for _ in range(2):
        done = again(dest, command=command)
        assert done.code == 0, done.err
    for subject, row in templates(dest).items():
        for column in ("scheme_version", "n", "alpha", "tolerance", *LATER):
            assert row[column] == before[subject][column], column
        assert row["helper"] != before[subject]["helper"]
    assert_whole(dest)


def test_from_version_2_nothing_leads_back(second):
    """A square real helper is of version 2 as well."""
    assert again(second, "--preset=paper", "--alpha=12", "--tolerance=1").code == 0
    assert params(second) == Params(WIDTH, 12, 1)
    assert_whole(second)


def test_a_move_that_was_begun_goes_on_with_its_own_options_alone(first, monkeypatch):
    def cut(*_: object) -> None:
        raise PowerCutError

    with monkeypatch.context() as patched:
        patched.setattr("pipelines.reprotection.losses.refuse_losses", cut)
        with pytest.raises(PowerCutError):
            again(first, "--code-width=128")
    assert answers(first) == [True, False] * PEOPLE
    versions = {(row["generation"], row["scheme_version"]) for row in rows(first, "templates")}
    assert versions == {(1, 1), (2, 2)}
    refused = again(first)
    assert refused.code == 1
    for said in ("scheme_version is 2 there and 1 here", "code_width is 128 there and 64 here"):
        assert said in refused.errors[0]
    assert again(first, "--code-width=128").code == 0
    assert params(first).code_width == 128
    assert_whole(first)


def test_plaintext_helpers_never_move_to_a_wider_code(tmp_path):
    source, dest = several(tmp_path / "e.parquet", PEOPLE), tmp_path / "d"
    risk = {"plaintext_helpers": True, "accepted_risk": "stolen-rows"}
    run_as_first_version(request(source, dest, preset="compact", **risk))
    before = rows(dest, "templates")
    wide = next(name for name, one in PRESETS.items() if one.widening > 1)
    for asked in (f"--preset={wide}", "--code-width=128"):
        refused = again(dest, asked, "--accept-risk=stolen-rows")
        assert refused.code == 1
        assert "less than nothing" in refused.errors[0]
        assert "into a table of encrypted ones" in refused.errors[0]
    assert rows(dest, "templates") == before
    assert again(dest, "--preset=compact").code == 0
    assert params(dest) == preset("compact", WIDTH)
    assert {row["sealed"] for row in rows(dest, "templates")} == {False}


@pytest.mark.slow
def test_photos_move_it_too(tmp_path, face_data):
    model, faces = face_data / "models" / "buffalo_sc", face_data / "faces" / "lfw_dev"
    people = [one for one in sorted(faces.iterdir()) if len(list(one.iterdir())) > 2][:2]
    for one in people:
        (tmp_path / "photos" / one.name).mkdir(parents=True)
        for photo in sorted(one.iterdir())[:2]:
            shutil.copy(photo, tmp_path / "photos" / one.name)
    dest = tmp_path / "d"
    settings = {"alpha": 16, "tolerance": 4}
    run_as_first_version(request(tmp_path / "photos", dest, model=str(model), **settings))
    assert params(dest) == Params(512, 16, 4, version=1)
    moved = again(dest, f"--model={model}", "--code-width=1024", "--alpha=18", "--tolerance=3")
    assert moved.code == 0, moved.err
    assert params(dest) == Params(512, 18, 3, 1024, "quaternionic")
    own, stranger = (sorted(one.iterdir())[2] for one in people)
    answer = ironmask(
        "verify", dest, own, stranger, f"--subject={people[0].name}", f"--model={model}",
        f"--keys={keys_of(dest)}", "--json",
    )  # fmt: skip
    assert [verdict["accepted"] for verdict in answer.json()] == [True, False]
