"""One step over a table of many shards, in a process of its own.

Arguments: name of the step, folder of the table, number of shards. Prints CPU seconds, and the peak
of memory in bytes, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from .scale_steps import STEPS
from .scale_table import ASIDE, Place


def peak() -> int:
    """The most bytes that this process ever had in memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return 0


def main(name: str, folder: str, size: str) -> None:
    start = time.process_time()
    STEPS[name].take(Place(Path(folder), int(size)))
    spent = time.process_time() - start - sum(ASIDE)
    print(json.dumps({"cpu": spent, "peak": peak()}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
