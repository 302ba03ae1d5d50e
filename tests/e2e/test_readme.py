"""The README's way through an enrolment, command by command as it stands there."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

from support.command import command

README = (Path(__file__).parents[2] / "README.md").read_text()
PEOPLE = {"Ada": "Serena_Williams", "Bob": "Tony_Blair"}


def commands() -> list[list[str]]:
    found = []
    for title in ("## Enrol\n", "### Operate\n"):
        block = re.search(r"```sh\n(.*?)```", README.partition(title)[2], re.DOTALL)
        assert block
        found += [shlex.split(line, comments=True) for line in block[1].splitlines()]
    return found


def test_the_commands_of_the_readme(tmp_path, model, faces):
    shutil.copytree(model, tmp_path / "models" / "buffalo_sc")
    for name, person in PEOPLE.items():
        photos = sorted((faces / person).iterdir())
        (tmp_path / "photos" / name).mkdir(parents=True)
        for photo in photos[:4]:
            shutil.copyfile(photo, tmp_path / "photos" / name / photo.name)
    for number, photo in enumerate(sorted((faces / PEOPLE["Ada"]).iterdir())[4:6], 1):
        shutil.copyfile(photo, tmp_path / f"probe{number}.jpg")
    before = {path.name for path in tmp_path.iterdir()}
    said = {}
    for program, verb, *arguments in commands():
        assert program == "ironmask"
        said[verb] = command(tmp_path, verb, *arguments, IRONMASK_MODELS=str(tmp_path / "models"))
        assert said[verb].code == 0, said[verb]
    assert list(said) == [
        "models", "enroll", "inspect", "verify", "status", "failures", "check", "vacuum", "repair",
    ]  # fmt: skip
    assert said["verify"].out.count("accepted") == 2
    assert {path.name for path in tmp_path.iterdir()} - before == {"table", "config"}
