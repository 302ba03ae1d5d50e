"""The faces of an evaluation: embeddings with their labels, less what is excluded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ironmask.errors import ProtocolError, SourceError
from pipelines.plan.sources import embedding_column
from pipelines.ports import F32, Store
from pipelines.spec.outcomes import Reason

_LEAST_NORM: Final = 1e-12
_NO_EMBEDDING: Final = "no_embedding"
Index = NDArray[np.intp]


@dataclass(frozen=True)
class Labels:
    """Faces in the order of their subjects and images.

    subject: (k,) index into `subjects`. images: names of the faces. rows: (k,) of the source.
    excluded: faces that a list names. unusable: faces without an embedding that can be compared, by
    reason. lost: subjects who have no other ones. groups: (k,) by name of a demographic label,
    empty where it is not known.
    """

    subject: Index
    subjects: list[str]
    images: list[str]
    rows: Index
    excluded: int
    unusable: dict[str, int]
    lost: int
    groups: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Faces:
    """vectors: (k, n) float32 of unit length, in the order of the labels."""

    labels: Labels
    vectors: F32 = field(repr=False)


def load(source: str, store: Store, exclusions: Iterable[str], groups: Iterable[str]) -> Faces:
    """Read a Parquet file of embeddings: subject_id, embedding, and image where faces have names.

    A face that could not be acquired has no embedding, and a column reason may say why.
    exclusions: names of images or of subjects to leave out. groups: columns of demographic labels.
    Raises `SourceError` for a file of another kind, `ProtocolError` for names that it does not
    hold or one image that it holds twice.
    """
    table = _read(source, store, list(groups))
    subject = [str(value) for value in pc.cast(table["subject_id"], pa.large_string()).to_pylist()]
    image = _images(table, subject)
    vectors, reasons = _vectors(source, table)
    kept = _kept(source, subject, image, set(exclusions))
    usable = reasons == ""
    chosen = np.flatnonzero(kept & usable)
    if not len(chosen):
        raise SourceError(f"{source} holds no embedding that can be compared")
    order = chosen[sorted(range(len(chosen)), key=lambda i: (subject[chosen[i]], image[chosen[i]]))]
    names, codes = np.unique(np.array([subject[row] for row in order]), return_inverse=True)
    failed = np.flatnonzero(kept & ~usable)
    labels = Labels(
        subject=codes.astype(np.intp),
        subjects=names.tolist(),
        images=[image[row] for row in order],
        rows=order,
        excluded=int((~kept).sum()),
        unusable=dict(Counter(reasons[failed].tolist()).most_common()),
        lost=len({subject[row] for row in failed} - set(names.tolist())),
        groups={name: _texts(table[name], order) for name in groups},
    )
    unit = vectors[order].astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return Faces(labels, unit.astype(np.float32))


def _read(source: str, store: Store, groups: list[str]) -> pa.Table:
    with store.open(source) as handle:
        try:
            file = pq.ParquetFile(handle)
            names = file.schema_arrow.names
            missing = [n for n in ("subject_id", "embedding", *groups) if n not in names]
            if missing:
                raise SourceError(f"{source} has no column {missing[0]!r}; it has {names}")
            optional = [name for name in ("image", "reason") if name in names]
            return file.read(["subject_id", "embedding", *optional, *groups])
        except pa.ArrowInvalid:
            raise SourceError(f"{source} is no Parquet file of embeddings") from None


def _images(table: pa.Table, subject: list[str]) -> list[str]:
    """Names of the faces: the image column, or the subject and the row."""
    if "image" in table.column_names:
        images = [str(value) for value in table["image"].to_pylist()]
    else:
        images = [f"{name}#{row}" for row, name in enumerate(subject)]
    if len(set(images)) < len(images):
        twice = next(name for name in images if images.count(name) > 1)
        raise ProtocolError(
            f"image {twice!r} is in the source twice: it would be compared to itself"
        )
    return images


def _vectors(source: str, table: pa.Table) -> tuple[F32, NDArray[np.object_]]:
    """The embeddings, (k, n), and for each the reason why it cannot be compared, or nothing."""
    column = table["embedding"].combine_chunks()
    lengths, rows = embedding_column(column)
    if not len(rows):
        raise SourceError(f"{source} holds no embeddings")
    whole = lengths == rows.shape[1]
    vectors = np.full((len(table), rows.shape[1]), np.nan, dtype=np.float32)
    vectors[whole] = rows
    reasons = np.full(len(table), "", dtype=object)
    # The last that applies stands.
    reasons[np.linalg.norm(vectors.astype(np.float64), axis=1) <= _LEAST_NORM] = (
        Reason.ZERO_NORM.value
    )
    reasons[~np.isfinite(vectors).all(axis=1)] = Reason.NOT_FINITE.value
    reasons[~whole] = Reason.WRONG_WIDTH.value
    absent = np.flatnonzero(lengths == 0)
    told = table["reason"].take(absent).to_pylist() if "reason" in table.column_names else []
    reasons[absent] = [str(text or _NO_EMBEDDING) for text in told or [""] * len(absent)]
    return vectors, reasons


def _kept(source: str, subject: list[str], image: list[str], names: set[str]) -> NDArray[np.bool_]:
    unknown = names - set(subject) - set(image)
    if unknown:
        raise ProtocolError(
            f"{len(unknown):,} excluded names are no image and no subject of {source}, "
            f"{min(unknown)!r} for one: correct the list"
        )
    return np.array(
        [s not in names and i not in names for s, i in zip(subject, image, strict=True)]
    )


def _texts(column: pa.ChunkedArray, order: Index) -> list[str]:
    values = column.to_pylist()
    return ["" if values[row] is None else str(values[row]) for row in order]
