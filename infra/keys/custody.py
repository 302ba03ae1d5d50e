"""Who may have to do with a keyset file, and that no dump of a process gives its keys away.

A file that holds its own key-encryption key belongs to the user of the process, who alone may read
and write it. One whose keysets are wrapped by a key service holds nothing secret: it may belong to
root, and others may read it, as in a volume that a cluster mounts. Nobody else may write either,
nor replace it in its folder: whoever did could name a key-encryption key of his own.
"""

from __future__ import annotations

import ctypes
import os
import resource
import stat
import sys
from pathlib import Path
from typing import Final

from ironmask.errors import KeyFileError, KeyStoreError

_ROOT: Final = 0
_SET_DUMPABLE: Final = 4
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def refuse_strangers(path: Path, found: os.stat_result, *, secret: bool) -> None:
    """Raise `KeyFileError` for a keyset file that somebody else may change, or read its secrets.

    found: of the open file. secret: it holds its own key-encryption key.
    """
    owners = {os.geteuid()} if secret else {os.geteuid(), _ROOT}
    if found.st_uid not in owners:
        raise KeyFileError(
            f"{path} belongs to user {found.st_uid}, and this process runs as {os.geteuid()}: run "
            f"it as the owner, or make the file its own (`chown {os.geteuid()} {path}`)"
            + _mounted(secret=secret)
        )
    if secret and found.st_mode & _OTHERS:
        raise KeyFileError(
            f"{path} is open to other users: run `chmod 600 {path}`" + _mounted(secret=secret)
        )
    if found.st_mode & _OTHERS_WRITE:
        raise KeyFileError(f"{path} can be written by others: run `chmod go-w {path}`")
    refuse_open_folder(path)


def refuse_open_folder(path: Path) -> None:
    """Raise `KeyFileError` where others may replace what lies beside a keyset file, or it.

    In a folder with the sticky bit, such as /tmp, nobody can touch another one's files.
    """
    folder = path.parent
    found = folder.stat()
    if found.st_uid not in (os.geteuid(), _ROOT):
        raise KeyFileError(
            f"{path} lies in a folder of user {found.st_uid}, who can replace it: keep it in a "
            "folder of your own (--keys, IRONMASK_KEYS)"
        )
    if found.st_mode & _OTHERS_WRITE and not found.st_mode & stat.S_ISVTX:
        raise KeyFileError(
            f"{path} lies in a folder that others may write, so they can replace it: run `chmod "
            f"go-w {folder}`, or keep it elsewhere (--keys, IRONMASK_KEYS)"
        )


def _mounted(*, secret: bool) -> str:
    advice = "; a mounted file may belong to root where a key service wraps it (`rotate-kek --kek`)"
    return advice if secret else ""


def forbid_core_dumps() -> None:
    """Keep the memory of this process out of core dumps, and from debuggers of the same user.

    The limit alone does not reach a dump that the system pipes to a program; the flag does. Child
    processes have the limit, and the flag until they run another program. Raises `KeyStoreError`
    where the system refuses.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0):
        raise KeyStoreError(
            "core dumps of this process cannot be turned off (prctl PR_SET_DUMPABLE), and would "
            "hold keys: allow it that call"
        )
