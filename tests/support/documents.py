"""README and `deploy/docs` as tests read them: texts, fenced blocks, the commands in these.

A block of `sh` holds `ironmask` commands, and a test runs each of them as it is printed. A block of
`text` holds what no test can have at hand (an index, a key service, a cluster, a scheduler): its
commands are checked against the command line, and not run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer

from pipelines import cli

ROOT: Final = Path(__file__).parents[2]
GENERATED: Final = "deploy/docs/commands.md"
_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def texts() -> dict[str, str]:
    """Every document by its place below the root, the generated one among them."""
    paths = [ROOT / "README.md", *sorted((ROOT / "deploy" / "docs").glob("*.md"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def written() -> dict[str, str]:
    """The documents that are written by hand."""
    return {name: text for name, text in texts().items() if name != GENERATED}


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language, in their order."""
    return [content for name, content in _FENCE.findall(text) if name == language]


def languages(text: str) -> set[str]:
    """The languages of a document's fenced blocks; that of a drawing is empty."""
    return {name for name, _ in _FENCE.findall(text)}


def lines(block: str) -> list[str]:
    """The commands of a block: a line that ends with a backslash goes on in the next one."""
    found = block.replace("\\\n", " ").splitlines()
    return [line for line in found if line.strip() and not line.lstrip().startswith("#")]


def arguments(line: str) -> list[str]:
    """The words of an `ironmask` command, without its name. Raises `ValueError` for another one."""
    program, *words = shlex.split(line, comments=True)
    if program != "ironmask":
        raise ValueError(f"not a command of this project: {line}")
    return words


def ironmask_lines(block: str) -> list[str]:
    """Those commands of a block that are `ironmask`'s."""
    return [line for line in lines(block) if line.split()[0] == "ironmask"]


def commands() -> dict[str, Any]:
    """Every command of the command line by its full name, in the order of its help."""
    return dict(_below(typer.main.get_command(cli.app), "ironmask"))


def _below(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    for word, command in group.commands.items():
        full = f"{name} {word}"
        if hasattr(command, "commands"):
            yield from _below(command, full)
        else:
            yield full, command


def parse(words: list[str]) -> None:
    """Read a command's words as the command line does, and run nothing.

    Raises the command line's own error for an option, a value or an argument that it does not take.
    """
    command = typer.main.get_command(cli.app)
    name = "ironmask"
    while hasattr(command, "commands"):
        word, *words = words
        command, name = command.commands[word], f"{name} {word}"
    command.make_context(name, words)
