"""Write `deploy/docs/commands.md` from the command line's own help: `make docs`."""

from __future__ import annotations

import inspect
from itertools import groupby
from typing import Any, Final

import typer

from pipelines import cli
from support.documents import GENERATED, ROOT, commands

_OTHERS: Final = "Other commands"
_TOP: Final = """# Commands

`make docs` writes this page from the command line's own help. Change the help, not the page.

Exit codes that all commands share: 0 done, 1 error, 2 usage. Others stand with their command. A
command that was interrupted ends with 130 (Ctrl-C) or 143 (SIGTERM).
"""


def page() -> str:
    """The whole page: a section a panel of the help, in it the commands in the help's order."""
    every = commands()
    order = list(dict.fromkeys(_panel(name) for name in every))
    named = sorted(every, key=lambda name: order.index(_panel(name)))
    parts = [_TOP]
    for panel, names in groupby(named, _panel):
        parts.append(f"## {panel}\n")
        parts += [_command(name, every[name]) for name in names]
    return "\n".join(parts)


def _panel(name: str) -> str:
    """Where the help shows a command: its own panel, or that of its group."""
    command = typer.main.get_command(cli.app)
    found = _OTHERS
    for word in name.split()[1:]:
        command = command.commands[word]
        # What was left out is a placeholder of the library.
        if isinstance(command.rich_help_panel, str):
            found = command.rich_help_panel
    return found


def _command(name: str, command: Any) -> str:
    context = command.context_class(command, info_name=name)
    wanted = [p for p in command.params if p.param_type_name == "argument"]
    usage = " ".join([name, *(_usage(p, context) for p in wanted), "[OPTIONS]"])
    rows = [_row(p, context) for p in command.params if not p.hidden]
    table = "\n".join(["| argument or option | meaning |", "| --- | --- |", *rows])
    said = _text(inspect.cleandoc(command.help))
    return f"### {name}\n\n`{usage}`\n\n{said}\n\n{table}\n"


def _usage(argument: Any, context: Any) -> str:
    names = _names(argument, context)
    return names if argument.required else f"[{names}]"


def _names(parameter: Any, context: Any) -> str:
    """As the help shows it: all its names; an argument without its type."""
    names, _ = parameter.get_help_record(context)
    return names.partition(" <")[0] if parameter.param_type_name == "argument" else names


def _row(parameter: Any, context: Any) -> str:
    names, meaning = _names(parameter, context), parameter.get_help_record(context)[1]
    return f"| `{_cell(names)}` | {_cell(_text(' '.join(meaning.split())))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _text(text: str) -> str:
    """Outside of code, what is in angle brackets would be taken for HTML."""
    return text.replace("<", "&lt;")


if __name__ == "__main__":
    (ROOT / GENERATED).write_text(page(), encoding="utf-8")
