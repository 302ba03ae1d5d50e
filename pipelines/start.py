"""Where the `ironmask` command begins: signals are answered before anything large is loaded."""

from __future__ import annotations

import sys
from typing import NoReturn

from pipelines.run import stop


def main() -> NoReturn:
    """Run the command line, and end with its exit code."""
    stop.watch()
    code = 0
    try:
        from pipelines import cli

        cli.main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except stop.Interrupted:
        sys.stderr.write("interrupted; the same command starts again\n")
        code = 128 + stop.asked()
    stop.leave(code)
