"""Environment variables that Prefect reads, set before its first import."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

# Without a server Prefect starts its own, which takes a while on a busy machine.
_DEFAULTS: Final = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "DO_NOT_TRACK": "1",
}


def prepare_environment() -> None:
    """Set quiet defaults and a private home. Variables that the user has set stay."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    home = os.environ.setdefault("PREFECT_HOME", str(state / "ironmask" / "prefect"))
    # Prefect makes only the last folder of its home.
    Path(home).mkdir(parents=True, exist_ok=True)


def has_server() -> bool:
    """Tell whether the user has configured a Prefect server."""
    return bool(os.environ.get("PREFECT_API_URL"))
