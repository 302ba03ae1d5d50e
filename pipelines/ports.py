"""What the jobs need from the world; `infra` provides it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class AlignedFace:
    """One face, ready for the recogniser.

    crop: (112, 112, 3) uint8, channels B, G, R.
    box: x1, y1, x2, y2 in pixels of the upright image.
    score: detector confidence in 0..1.
    sharpness: variance of the Laplacian of the grey crop.
    faces: how many faces the detector found in the image.
    """

    crop: U8 = field(repr=False)
    box: tuple[float, float, float, float]
    score: float
    sharpness: float
    faces: int


class Aligner(Protocol):
    """Decodes an image, finds the face and aligns it."""

    def align(self, data: bytes) -> AlignedFace:
        """Raise `ImageError` with a reason code where the image cannot be used."""


class Recogniser(Protocol):
    """Turns aligned faces into embeddings."""

    n: int

    def embed(self, crops: U8) -> F32:
        """Map (k, 112, 112, 3) uint8 BGR to (k, n) float32, not normalised."""


class Cipher(Protocol):
    """Authenticated encryption, bound to associated data."""

    def encrypt(self, plaintext: bytes, associated: bytes) -> bytes: ...

    def decrypt(self, ciphertext: bytes, associated: bytes) -> bytes:
        """Raise `TamperedError` where the ciphertext or the associated data was changed."""


class TableKeys(Protocol):
    """Keys that live as long as a table. Cannot be pickled, copied or printed."""

    def identity_key(self, generation: int) -> bytes:
        """32 bytes that identities of contents are keyed with in a generation's outcomes."""

    def pseudonym_key(self) -> bytes:
        """32 bytes that pseudonyms are keyed with."""

    def destruction_key(self) -> bytes:
        """32 bytes that the lists of destroyed generations' files are authenticated with."""

    def cipher(self, run_id: str) -> Cipher:
        """What encrypts the details of one run's outcomes."""


class GenerationKeys(Cipher, Protocol):
    """The keys of one generation of one table. Cannot be pickled, copied or printed."""

    key_id: str
    sealed: bool
    """Whether the generation's helpers are encrypted: no row may say otherwise."""

    @property
    def table(self) -> TableKeys | None:
        """The keys that live as long as the table; None where it has none yet."""

    def row_key(self, template_id: str, earlier: Sequence[str] = ()) -> bytes:
        """32 bytes for each layer of the digests, pseudo-random functions of the template id.

        earlier: ids that the row had when its first layers were made, one for each of them.
        """

    def shuffle_key(self, template_id: str) -> bytes | None:
        """32 bytes that a row's helper is shuffled by; None where the generation does not."""

    def content_key(self) -> bytes:
        """32 bytes that identities of embeddings were keyed with before tables had keys."""

    def log_seal_key(self) -> bytes:
        """32 bytes that the seal over the tables' logs is keyed with."""


class Keyring(Protocol):
    """The keys of all generations of one table."""

    def generation(self, generation: int) -> GenerationKeys:
        """Raise `KeyNotFoundError` where it has none, or they were destroyed."""

    def destroy_generation(self, generation: int) -> GenerationRecord:
        """Remove the keys of a generation for good; of a destroyed one nothing changes."""


class GenerationRecord(Protocol):
    """What may be said about a generation's keys. destroyed_at: UTC, None while they are there."""

    @property
    def key_id(self) -> str: ...

    @property
    def destroyed_at(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a store: its full address, its size in bytes, its entity tag if any.

    unlisted: it is a folder that may not be listed.
    """

    uri: str
    size: int
    etag: str | None = None
    is_link: bool = False
    unlisted: bool = False


class Store(Protocol):
    """Objects under addresses: local paths or `s3://bucket/key`."""

    def __hash__(self) -> int: ...

    def exists(self, uri: str) -> bool: ...

    def is_dir(self, uri: str) -> bool: ...

    def size(self, uri: str) -> int: ...

    def version(self, uri: str) -> str:
        """A text that changes when the object is replaced."""

    def children(self, uri: str) -> Iterator[str]:
        """Addresses of the folders directly under a folder, in a fixed order."""

    def entries(self, uri: str, *, recursive: bool = True) -> Iterator[Entry]:
        """The objects under a folder, in a fixed order: by address where the server sorts so."""

    def items(self, uri: str, *, recursive: bool = True) -> Iterator[Entry]:
        """What somebody put under a folder, in the order of `entries`, special files among it.

        Links to folders, and folders that may not be listed, are entries themselves.
        """

    def resolve(self, uri: str) -> str:
        """The address that is read for another one: links are followed, dots are no parts."""

    def read(self, uri: str, limit: int | None = None) -> bytes:
        """The whole object; `StorageError` where it is longer than `limit` bytes."""

    def read_many(
        self, uris: Sequence[str], limit: int | None = None, home: str = ""
    ) -> Iterator[bytes | OSError]:
        """In order, fetched concurrently; an object that is at fault comes back as its error.

        home: an address; what another bucket refuses is at fault, too. Raises `StorageError`
        where the store is at fault, which says nothing about the object.
        """

    def part(self, uri: str, start: int, end: int) -> bytes:
        """Bytes [start, end) of the object; fewer where it ends before."""

    def after(self, uri: str, name: str) -> list[str]:
        """Names of the objects directly under a folder that come after a given one, in byte order.

        At most the first thousand of them, by one request.
        """

    def open(self, uri: str) -> BinaryIO:
        """A seekable reader over the object."""

    def write(self, uri: str, data: bytes | memoryview) -> None:
        """Publish a whole object; a failure or a kill never leaves a partial one visible."""

    def create(self, uri: str, data: bytes) -> bool:
        """Create the object if and only if it does not exist; False where it did."""

    def delete(self, uris: Sequence[str]) -> None:
        """Destroy objects, all versions of each; absent ones are no error."""

    def remains(self, uri: str) -> Iterator[str]:
        """Addresses of all that exists under a folder, also of what only older versions hold."""

    def abort_uploads(self, uri: str) -> int:
        """Destroy the parts of uploads under a folder that never ended; return how many."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """A finished Parquet file that waits for its commit.

    path: relative to its table. partition: values of the partition columns. sha256: of the file.
    low, high: least and greatest value of the id columns.
    """

    path: str
    size: int
    rows: int
    sha256: str
    partition: Mapping[str, str]
    low: Mapping[str, str]
    high: Mapping[str, str]


class Table(Protocol):
    """One table for whoever reads it: data files, and a log that says which of them are its."""

    uri: str

    def files(self) -> dict[str, int]:
        """The files that the log lists: bytes by path, relative to the table."""

    def counts(self) -> dict[str, int]:
        """How many rows each of those files has, as the log says."""

    def rows(
        self,
        columns: Sequence[str] | None = None,
        where: pads.Expression | None = None,
        people: Collection[str] | None = None,
    ) -> pa.Table:
        """The rows that the log lists, as of now. people: all whose rows `where` wants.

        Raises `TableError` where a file that it lists is missing or damaged.
        """

    def batches(
        self, columns: Sequence[str], runs: Collection[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The same, a file at a time. runs: only files that these wrote."""


class StoredTable(Table, Protocol):
    """A table as it lies: its newest version, whoever wrote it, and what writes the next one."""

    def listed(self, version: int) -> Sequence[DataFile]:
        """The files at a version of the log, without digests. May raise `StorageError`."""

    def let_go(self) -> None:
        """Forget what was read of the log; the next question reads it again."""

    def commit(
        self,
        files: Sequence[DataFile],
        application: str,
        sequence: int,
        removed: Sequence[str] = (),
    ) -> None:
        """Make files visible and take others out of sight, together and once.

        A repeated sequence number changes nothing. removed: paths as `files` gives them; the files
        stay. Raises `TableError` for one that is not listed.
        """

    def widen(self, begin: Callable[[Mapping[str, object]], None]) -> bool:
        """Let the log name all columns of today's files. Returns whether it did not.

        begin: told the `metaData` of the entry before it is written.
        """

    def checkpoint(self) -> int:
        """Write what the log says at its present version into one file; return the version.

        From then on readers need nothing of the log that is older. Raises `StorageError` where it
        cannot be written, or does not say the same.
        """

    def sequence(self, application: str) -> int:
        """The last sequence number committed under an application's name; 0 before the first."""


class Tables(Protocol):
    """The tables of one destination, to be read."""

    dest: str

    @property
    def table_id(self) -> str:
        """The identity that keys and rows are bound to."""

    def table(self, name: str) -> Table:
        """One of `pipelines.table.schemas.TABLES`."""


class StoredTables(Tables, Protocol):
    """The tables of one destination as they lie, perhaps not there yet."""

    def exist(self) -> bool: ...

    def create(self) -> None:
        """Create the tables, empty. Those that exist already are left as they are."""

    def table(self, name: str) -> StoredTable: ...
