"""What a model's embeddings look like as a whole: measured once, kept with the table.

A profile holds second moments of thousands of embeddings and nothing of any one of them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ironmask.arrays import F32, F64, unit_rows
from ironmask.errors import SourceError, TableError
from ironmask.filling import Filling
from ironmask.spectrum import Spectrum
from pipelines.plan.sources import embedding_column
from pipelines.ports import Store
from pipelines.table.schemas import as_parquet

LEAST_A_DIRECTION: Final = 4
"""Embeddings for each direction: of fewer, a spectrum tells more of them than of the model."""

_MOST: Final = 20_000
_HELD_OUT: Final = 16
_SCHEMA: Final = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("n", pa.int32(), nullable=False),
        pa.field("moments", pa.binary(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Profile:
    """The spectrum of a model's embeddings. source: what it was measured on."""

    model: str
    source: str
    space: Spectrum

    @property
    def is_enough(self) -> bool:
        """Whether so many embeddings tell the model's directions from the sample's."""
        return self.space.count >= LEAST_A_DIRECTION * self.space.n

    def to_bytes(self) -> bytes:
        """As it is stored: Parquet, moments as little-endian float64."""
        space = self.space
        row = {
            "model": self.model,
            "source": self.source,
            "count": space.count,
            "n": space.n,
            "moments": space.moments.astype("<f8").tobytes(),
        }
        return bytes(as_parquet(pa.Table.from_pylist([row], _SCHEMA)))

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Profile:
        """Undo `to_bytes`. Raises `TableError` for anything else."""
        try:
            (row,) = pq.read_table(io.BytesIO(data), schema=_SCHEMA).to_pylist()
            moments = np.frombuffer(row["moments"], "<f8").reshape(row["n"], row["n"])
        except (pa.ArrowException, ValueError) as error:
            raise TableError(f"{where} is no profile of a model ({type(error).__name__})") from None
        return cls(row["model"], row["source"], Spectrum(row["count"], moments))


@dataclass(frozen=True)
class Calibration:
    """A profile, and embeddings that are not in it: (k, n) unit rows."""

    profile: Profile
    others: F64 = field(repr=False)


def calibrated(model: str, source: str, embeddings: F32) -> Calibration:
    """Measure embeddings, (k, n); those that are none are left out.

    Raises `SourceError` where hardly any is left.
    """
    usable = embeddings[np.isfinite(embeddings).all(axis=1) & embeddings.any(axis=1)]
    if len(usable) < 2 * _HELD_OUT:
        raise SourceError(f"{source} holds {len(usable)} embeddings: too few to calibrate by")
    rows = unit_rows(usable, usable.shape[1])
    held = held_out(len(rows))
    space = Spectrum.of(np.delete(rows, held, axis=0), rows.shape[1])
    return Calibration(Profile(model, source, space), rows[held])


def held_out(count: int) -> NDArray[np.intp]:
    """Which of so many embeddings are attacked: a few, from all over them."""
    return np.linspace(0, count - 1, _HELD_OUT).astype(np.intp)


def sample(source: str, store: Store) -> F32:
    """Some thousands of a file's embeddings, of row groups anywhere in it: (k, n) float32.

    Raises `SourceError` where the file holds none.
    """
    parts = [rows for rows, _ in _sampled(source, store)]
    widths = {part.shape[1] for part in parts}
    if len(widths) != 1:
        raise SourceError(f"{source} holds no embeddings of one width: {sorted(widths)}")
    return np.concatenate(parts)[:_MOST]


def sample_people(source: str, n: int, store: Store) -> F32:
    """One embedding of each person in such a sample, (k, n) float32; none where nobody is named.

    Raises `SourceError` for a file without embeddings.
    """
    found: dict[str, F32] = {}
    for rows, names in _sampled(source, store):
        if rows.shape[1] == n:
            usable = np.isfinite(rows).all(axis=1) & rows.any(axis=1)
            for place in np.flatnonzero(usable & (names != "")):
                found.setdefault(names[place], rows[place])
    return np.array(list(found.values()), dtype=np.float32).reshape(-1, n)


def _sampled(source: str, store: Store) -> list[tuple[F32, NDArray[np.object_]]]:
    with store.open(source) as handle:
        try:
            return list(_parts(pq.ParquetFile(handle)))
        except (pa.ArrowException, KeyError):
            raise SourceError(
                f"{source} is no Parquet file of embeddings: it needs a column `embedding`"
            ) from None


def _parts(file: pq.ParquetFile) -> Iterator[tuple[F32, NDArray[np.object_]]]:
    """Row groups until they hold enough, and whose each row is, "" where nobody says; of a large
    one, rows from all over it.
    """
    taken = 0
    named = ["subject_id"] if "subject_id" in file.schema_arrow.names else []
    for group in np.random.Generator(np.random.PCG64(0)).permutation(file.num_row_groups):
        table = file.read_row_group(int(group), columns=["embedding", *named])
        lengths, rows = embedding_column(table["embedding"].combine_chunks())
        if len(rows):
            step = max(1, len(rows) // _MOST)
            whole = np.flatnonzero(lengths == rows.shape[1])[::step]
            yield rows[::step], _names(table.take(whole))
            taken += len(whole)
        if taken >= _MOST:
            return


def _names(table: pa.Table) -> NDArray[np.object_]:
    """Subjects of some rows as texts."""
    if "subject_id" not in table.column_names:
        return np.full(len(table), "", dtype=object)
    texts = pc.cast(table["subject_id"], pa.large_string())
    return np.array(pc.fill_null(texts, "").to_pylist(), dtype=object)


@lru_cache(maxsize=4)
def filling(address: str, digest: str, share: float, store: Store) -> Filling:
    """The filling of a table's templates, by its profile as it was when the table began.

    digest: SHA-256 in hex. Raises `TableError` for another file than that.
    """
    data = store.read(address)
    if sha256(data).hexdigest() != digest:
        raise TableError(f"{address} is not the profile that the table began with: restore it")
    return Filling.of(Profile.from_bytes(data, address).space, share)
