"""Nameless temporary files, which nobody else can open."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final

import pyarrow as pa
import pyarrow.ipc

from ironmask.errors import StorageError

Place = tuple[int, int]
"""Where a block begins in its file, and its bytes."""

_OPTIONS: Final = pa.ipc.IpcWriteOptions(compression="zstd")


@contextmanager
def spool() -> Iterator[IO[bytes]]:
    """A temporary file that ends with its use. Raises `StorageError` where it finds no room."""
    # Closing the file writes its last bytes, so errors of that are explained too.
    with explained(), tempfile.TemporaryFile(prefix="ironmask-") as file:
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


class Blocks:
    """Small tables in a spooled file, which can be read back in any order."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._end = 0

    def add(self, table: pa.Table) -> Place:
        """Append a table, and tell where it is."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as stream:
            stream.write_table(table)
        content = sink.getvalue()
        with explained():
            self._file.write(content)
        place = self._end, content.size
        self._end += content.size
        return place

    def flush(self) -> None:
        """Let `read` see all blocks."""
        with explained():
            self._file.flush()

    def read(self, place: Place) -> pa.Table:
        """The table at a place."""
        start, size = place
        with explained():
            content = os.pread(self._file.fileno(), size, start)
        with pa.ipc.open_stream(content) as stream:
            return stream.read_all()
