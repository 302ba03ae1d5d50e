"""Nameless temporary files, which nobody else can open."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from ironmask.errors import StorageError


@contextmanager
def spool() -> Iterator[IO[bytes]]:
    """A temporary file that ends with its use. Raises `StorageError` where it finds no room."""
    # Closing the file writes its last bytes, so errors of that are explained too.
    with explained(), tempfile.TemporaryFile(prefix="ironmask-plan-") as file:
        yield file


@contextmanager
def explained() -> Iterator[None]:
    """Turn an error of a spooled file into a `StorageError` with advice."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"{tempfile.gettempdir()}: {error.strerror or error}: make room there, or name "
            "another folder in TMPDIR"
        ) from None
