"""A model's embeddings as a whole: measured once, kept with the table.

A profile holds second moments of the templates of thousands of people, and nothing of any single
one.
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
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ironmask.arrays import F32, F64
from ironmask.centring import Centring, by_person
from ironmask.errors import SourceError, TableError
from ironmask.filling import Filling
from ironmask.spectrum import Spectrum
from pipelines.plan.sources import embedding_column
from pipelines.plan.tabular import texts
from pipelines.ports import Store
from pipelines.table.schemas import as_parquet

LEAST_A_DIRECTION: Final = 4
"""People for each direction. A spectrum of fewer tells more about them than about the model."""

_MOST: Final = 20_000
_HELD_OUT: Final = 16
_SCHEMA: Final = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("n", pa.int32(), nullable=False),
        pa.field("moments", pa.binary(), nullable=False),
        # The first version has no such field.
        pa.field("version", pa.int32()),
        pa.field("photos", pa.int64()),
    ]
)
_VERSION: Final = 2


@dataclass(frozen=True)
class Profile:
    """The spectrum of a model's templates.

    source: the measured data. photos: their number, of `space.count` people. version: 1 where each
    photo counted as its own template.
    """

    model: str
    source: str
    space: Spectrum
    photos: int
    version: int = _VERSION

    @property
    def is_enough(self) -> bool:
        """Whether there are enough people to tell the model's directions from the sample's."""
        return self.space.count >= LEAST_A_DIRECTION * self.space.n

    @property
    def of(self) -> str:
        """The measured people, as a text for people."""
        several = f", {self.photos:,} photos" if self.photos > self.space.count else ""
        return f"{self.space.count:,} people{several}"

    def to_bytes(self) -> bytes:
        """The stored form: Parquet, moments as little-endian float64."""
        space = self.space
        row = {
            "model": self.model,
            "source": self.source,
            "count": space.count,
            "n": space.n,
            "moments": space.moments.astype("<f8").tobytes(),
            "version": self.version,
            "photos": self.photos,
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
        space, version = Spectrum(row["count"], moments), row["version"] or 1
        if version > _VERSION:
            raise TableError(f"{where} is a profile of version {version}: upgrade ironmask")
        photos = space.count if row["photos"] is None else row["photos"]
        return cls(row["model"], row["source"], space, photos, version)


@dataclass(frozen=True)
class Calibration:
    """A profile, and templates of people outside of it: (k, n) unit rows."""

    profile: Profile
    others: F64 = field(repr=False)


@dataclass(frozen=True)
class Photos:
    """Embeddings, (k, n) float32, and their subjects, (k,) text. named: whether the subjects are
    known; otherwise each embedding counts as a subject's only one.
    """

    vectors: F32 = field(repr=False)
    people: NDArray[np.str_] = field(repr=False)
    named: bool = True


def calibrated(model: str, source: str, photos: Photos, centring: Centring) -> Calibration:
    """Measure templates as an enrolment makes them, one of each subject. Unusable embeddings are
    left out.

    Raises `SourceError` where hardly any subject is left.
    """
    vectors = photos.vectors
    usable = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
    person = np.unique(photos.people[usable], return_inverse=True)[1]
    people = int(person.max(initial=-1)) + 1
    if people < 2 * _HELD_OUT:
        raise SourceError(f"{source} holds embeddings of {people} people: too few to calibrate by")
    held = np.isin(person, held_out(people))
    rest, others = (by_person(vectors[usable][s], person[s], centring) for s in (~held, held))
    space = Spectrum.of(rest, vectors.shape[1])
    return Calibration(Profile(model, source, space, int((~held).sum())), others)


def held_out(count: int) -> NDArray[np.intp]:
    """Indices of the templates to attack: a few, spread over all `count`."""
    return np.linspace(0, count - 1, _HELD_OUT).astype(np.intp)


def sample(source: str, store: Store) -> Photos:
    """Some thousands of a file's embeddings, from row groups anywhere in it.

    It takes all photos of a subject in a row group, or none. Without a column `subject_id` each
    embedding counts as a subject's only one. Raises `SourceError` where the file holds none.
    """
    with store.open(source) as handle:
        try:
            parts = list(_parts(pq.ParquetFile(handle), source))
        except (pa.ArrowException, KeyError):
            raise SourceError(
                f"{source} is no Parquet file of embeddings: it needs a column `embedding`"
            ) from None
    if not parts:
        raise SourceError(f"{source} holds no embedding of anybody")
    widths = {part.vectors.shape[1] for part in parts}
    if len(widths) != 1:
        raise SourceError(f"{source} holds no embeddings of one width: {sorted(widths)}")
    vectors = np.concatenate([part.vectors for part in parts])[:_MOST]
    people = np.concatenate([part.people for part in parts])[:_MOST]
    return Photos(vectors, people, all(part.named for part in parts))


def sample_people(source: str, n: int, store: Store) -> F32:
    """One embedding of each subject in such a sample, (k, n) float32; none without subjects.

    Raises `SourceError` for a file without embeddings.
    """
    photos = sample(source, store)
    vectors = photos.vectors
    if not photos.named or vectors.shape[1] != n:
        return np.empty((0, n), dtype=np.float32)
    usable = np.flatnonzero(np.isfinite(vectors).all(axis=1) & vectors.any(axis=1))
    firsts = np.unique(photos.people[usable], return_index=True)[1]
    found: F32 = vectors[usable[np.sort(firsts)]]
    return found


def _parts(file: pq.ParquetFile, source: str) -> Iterator[Photos]:
    """Row groups until they hold enough; of a large one, subjects from all over it."""
    taken, rng = 0, np.random.Generator(np.random.PCG64(0))
    names = [name for name in ("subject_id", "embedding") if name in file.schema_arrow.names]
    for group in rng.permutation(file.num_row_groups):
        part = _photos(file.read_row_group(int(group), columns=names), int(group), source)
        if len(part.vectors):
            some = _whole_people(part.people, rng)
            yield Photos(part.vectors[some], part.people[some], part.named)
            taken += len(some)
        if taken >= _MOST:
            return


def _photos(rows: pa.Table, group: int, source: str) -> Photos:
    lengths, vectors = embedding_column(rows["embedding"].combine_chunks())
    whole = lengths == vectors.shape[1]
    if "subject_id" not in rows.column_names:
        unknown = np.char.add(f"{group}#", np.flatnonzero(whole).astype(str))
        return Photos(vectors, unknown, named=False)
    people = np.array(texts(source, "subject_id", rows["subject_id"]).to_pylist(), dtype=str)[whole]
    known = people != ""
    return Photos(vectors[known], people[known])


def _whole_people(people: NDArray[np.str_], rng: np.random.Generator) -> NDArray[np.intp]:
    """Places of all photos of some random subjects, as many as give enough photos."""
    if len(people) <= _MOST:
        return np.arange(len(people))
    codes, counts = np.unique(people, return_inverse=True, return_counts=True)[1:]
    order = rng.permutation(len(counts))
    enough = int(np.searchsorted(np.cumsum(counts[order]), _MOST)) + 1
    return np.flatnonzero(np.isin(codes, order[:enough]))


@lru_cache(maxsize=4)
def filling(address: str, digest: str, share: float, store: Store) -> Filling:
    """The filling of a table's templates, by the profile that the table began with.

    digest: SHA-256 in hex. Raises `TableError` for a file with another digest.
    """
    data = store.read(address)
    if sha256(data).hexdigest() != digest:
        raise TableError(f"{address} is not the profile that the table began with: restore it")
    return Filling.of(Profile.from_bytes(data, address).space, share)
