"""Name the machine, for reports whose times depend on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_CPUS = Path("/proc/cpuinfo")


def machine() -> str:
    """Processor, cores and Python of this process."""
    return f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _processor() -> str:
    try:
        lines = _CPUS.read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
