"""The command line, in this process and in one of its own, and what it said."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pipelines import cli

TESTS = Path(__file__).parents[1]
_FOREIGN = ("IRONMASK_", "PREFECT_", "RAY_")


@dataclass(frozen=True)
class Answer:
    """What the command line said."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]

    def json(self) -> Any:
        return json.loads(self.out)


def ironmask(*arguments: object) -> Answer:
    """Run the command line in this process; an exception that it does not catch comes through."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with (
        patch.object(sys, "argv", ["ironmask", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code
    return Answer(int(code or 0), out.getvalue(), err.getvalue())


def clean_environment(folder: Path, **more: str) -> dict[str, str]:
    """This process's environment without its settings; whatever is made lands in a folder."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
    return {
        **kept,
        "XDG_CONFIG_HOME": str(folder / "config"),
        # Else Ray's workers wait for everything else that this machine does.
        "RAY_worker_niceness": "0",
        "XDG_STATE_HOME": str(folder / "state"),
        "RAY_USAGE_STATS_ENABLED": "0",
        **more,
    }


def command(folder: Path, *arguments: object, seconds: float = 500, **environment: str) -> Answer:
    """Run the installed command in a process of its own, which may take so many seconds."""
    program = Path(sys.executable).with_name("ironmask")
    done = subprocess.run(
        [program, *map(str, arguments)],
        cwd=folder,
        env=clean_environment(folder, **environment),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def with_tests(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which a process finds this package, and whatever else lies beside it."""
    paths = [str(TESTS), *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(paths)}
