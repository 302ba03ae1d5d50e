"""Guard keyset files against strangers, and the keys in memory against dumps of the process.

A file with its own key-encryption key belongs to the user of the process, and only this user may
read and write it. A file whose keysets are wrapped by a key service holds nothing secret: it may
belong to root, and others may read it, as in a volume that a cluster mounts. Nobody else may write
either file, or replace it in its folder. Whoever could would name a key-encryption key of their
own.
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
    """Raise `KeyFileError` for a keyset file that others may change, or read secrets from.

    found: of the open file. secret: the file holds its own key-encryption key.
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
    """Raise `KeyFileError` where others may replace a keyset file, or the files beside it.

    A folder with the sticky bit, such as /tmp, is safe: nobody can touch files of others in it.
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

    The limit alone does not stop a dump that the system pipes to a program; the flag does. Child
    processes inherit the limit. They have the flag until they run another program. Raises
    `KeyStoreError` where the system refuses.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0, 0, 0, 0):
        raise KeyStoreError(
            "core dumps of this process cannot be turned off (prctl PR_SET_DUMPABLE), and would "
            "hold keys: allow it that call"
        )
