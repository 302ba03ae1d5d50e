"""Reading a data file back as what was written."""

from __future__ import annotations

from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq

from ironmask.errors import TamperedError
from pipelines import layout
from pipelines.ports import Store


def read_data_file(dest: str, store: Store, table: str, path: str) -> pa.Table:
    """The rows of a data file, given by its path in its table.

    Raises `TamperedError` where its content is not what its name says, `StorageError` where it
    cannot be read.
    """
    uri = layout.join(dest, table, path)
    content = store.read(uri)
    if sha256(content).hexdigest() != layout.digest_in(path):
        raise TamperedError(f"{uri} is not what was written: restore it from a backup")
    # A thread of Arrow's that frees a buffer while the interpreter ends aborts the process.
    return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
