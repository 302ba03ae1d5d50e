"""A key of what is kept during one job: in a keyset file of its own, removed when the job ends."""

from __future__ import annotations

from pathlib import Path

from infra.keys import keyset_file
from infra.keys.key_file import KeyFile
from infra.keys.paths import user_keys_path

GENERATION = 1
"""The generation that the key stands under."""


def place(name: str) -> Path:
    """Where the key of a job lies: in the user's configuration folder. name: a UUID."""
    return user_keys_path(name)


def make(name: str) -> bool:
    """Make the key of a job; False where it is there already. Raises `KeyFileError`."""
    if place(name).exists():
        return False
    KeyFile.create(place(name), name).add_generation(GENERATION)
    return True


def remove(name: str) -> None:
    """Remove the key of a job, and the lock beside it; nothing where there is none."""
    path = place(name)
    if path.exists():
        with keyset_file.writing(path):
            path.unlink(missing_ok=True)
        path.with_name(f".{path.name}.lock").unlink(missing_ok=True)
