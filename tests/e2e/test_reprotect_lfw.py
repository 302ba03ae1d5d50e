"""Re-protection from real photos: after a move, and over to another model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.command import command
from support.faces import photographs
from support.table import keys_of, templates

PEOPLE, ENROLLED = 6, 3


@pytest.fixture
def photos(faces: Path, tmp_path: Path) -> tuple[Path, dict[str, Path]]:
    """A folder of some people's photos, and another photo of each."""
    chosen = sorted(photographs(faces).items())[:PEOPLE]
    for name, found in chosen:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for photo in found[:ENROLLED]:
            shutil.copy(photo, tmp_path / "photos" / name)
    return tmp_path / "photos", {name: found[ENROLLED] for name, found in chosen}


@pytest.mark.slow
def test_photos_move_and_the_model_changes(
    photos: tuple[Path, dict[str, Path]], tmp_path: Path, shared: Path, model: Path
) -> None:
    source, probes = photos
    dest = tmp_path / "table"
    where = ["--executor=local", f"--keys={keys_of(dest)}"]

    def run(*words: object) -> str:
        done = command(tmp_path, *words)
        assert done.code == 0, done.err
        return done.out

    def accepted(pack: Path) -> list[bool]:
        found = []
        for name in probes:
            words = ["verify", dest, f"--subject={name}", f"--model={pack}", where[1], "--json"]
            answer = command(tmp_path, *words, *probes.values())
            found += [
                verdict["accepted"] == (Path(verdict["probe"]) == probes[name])
                for verdict in json.loads(answer.out)
            ]
        return found

    run("enroll", source, dest, f"--model={model}", *where, "--vault")
    before = accepted(model)
    moved = source.rename(tmp_path / "moved")
    stranger = moved / "late"
    stranger.mkdir()
    shutil.copy(next(iter(probes.values())), stranger / "1.jpg")
    gone = command(tmp_path, "reprotect", dest, f"--model={model}", *where)
    assert gone.code == 1
    assert "does not exist" in gone.err
    run("reprotect", dest, f"--model={model}", f"--source={moved}", *where)
    assert set(templates(dest)) == set(probes), "who was not enrolled is not enrolled now"
    assert accepted(model).count(False) <= before.count(False) + 1
    other = shared / "models" / "edgeface_s"
    silent = command(tmp_path, "reprotect", dest, *where, IRONMASK_MODEL=str(other))
    assert silent.code == 2
    assert "is another one" in silent.err
    run("reprotect", dest, f"--model={other}", "--alpha=12", "--tolerance=0", *where)
    rows = templates(dest).values()
    assert {(row["alpha"], row["generation"]) for row in rows} == {(12, 3)}
    assert accepted(other).count(False) <= 3
    # The vault holds what the live model makes, and nothing else.
    run("reprotect", dest, "--vault", *where)
    assert accepted(other).count(False) <= 3
    run("check", dest, "--deep", where[1])
