"""Where keyset files lie unless they are named."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from ironmask.errors import KeyFileError

_UUID: Final = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def default_keys_path(table_id: str) -> Path:
    """`IRONMASK_KEYS`, else `user_keys_path`."""
    named = os.environ.get("IRONMASK_KEYS")
    return Path(os.path.expanduser(named)) if named else user_keys_path(table_id)


def user_keys_path(table_id: str) -> Path:
    """A file named after the table in the user's configuration folder.

    Raises `KeyFileError` where the table's id is no UUID. The id comes from the table's log, and
    whoever wrote the log could otherwise choose a path with it.
    """
    if not _UUID.fullmatch(table_id):
        raise KeyFileError(
            f"the log of the table of templates names {table_id!r} as the table's id, which is no "
            "UUID, so no file of keys is named after it: name the file with --keys"
        )
    base = os.path.expanduser(os.environ.get("XDG_CONFIG_HOME") or "~/.config")
    return Path(base) / "ironmask" / "keys" / f"{table_id}.json"
