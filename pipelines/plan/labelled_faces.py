"""The faces of an evaluation: embeddings with their labels, without the excluded ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ironmask.errors import ProtocolError, SourceError
from pipelines.plan.sources import embedding_column, embedding_file
from pipelines.plan.tabular import holds_names, sound, texts
from pipelines.ports import F32, Store
from pipelines.spec.outcomes import Reason

_NO_EMBEDDING: Final = "no_embedding"
EXCLUDED: Final = "excluded by the list"
Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Face:
    """place: in the labels; None where the face is left out, and `reason` says why."""

    place: int | None
    subject: str
    reason: str = ""


@dataclass(frozen=True)
class Labels:
    """Faces in the order of their subjects and images.

    subject: (k,) index into `subjects`. images: names of the faces. rows: (k,) of the source.
    left_out: the other faces by name. excluded: the number of those that a list names. unlabelled:
    of those without a subject. unusable: of those without a comparable embedding, by reason. lost:
    of subjects who have no other faces. groups: (k,) by name of a demographic label, empty where it
    is not known.
    """

    subject: Index
    subjects: list[str]
    images: list[str]
    rows: Index
    left_out: dict[str, Face] = field(repr=False)
    excluded: int
    unlabelled: int
    unusable: dict[str, int]
    lost: int
    groups: dict[str, list[str]] = field(default_factory=dict)

    def is_named(self, place: int) -> bool:
        """Whether a face has its own name rather than one made from its row."""
        owner = self.subjects[self.subject[place]]
        return self.images[place] != _name_of_row(owner, int(self.rows[place]))

    def faces(self) -> dict[str, Face]:
        """Every face of the source by its name."""
        owners = (self.subjects[code] for code in self.subject)
        places = enumerate(zip(self.images, owners, strict=True))
        return self.left_out | {image: Face(place, owner) for place, (image, owner) in places}


@dataclass(frozen=True)
class Faces:
    """vectors: (k, n) float32 of unit length, in the order of the labels."""

    labels: Labels
    vectors: F32 = field(repr=False)


def load(source: str, store: Store, exclusions: Iterable[str], groups: Iterable[str]) -> Faces:
    """Read a Parquet file of embeddings: subject_id, embedding, and image where faces have names.

    A face that could not be acquired has no embedding; a column `reason` may say why. A face
    without a subject is left out. exclusions: names of images to leave out, or of subjects with all
    their images. groups: columns of demographic labels. Raises `SourceError` for another kind of
    file, `ProtocolError` for names that it does not hold or an image that it holds twice.
    """
    table = _read(source, store, list(groups))
    subject = texts(source, "subject_id", table["subject_id"]).to_pylist()
    image = _images(source, table, subject)
    vectors, reasons = _vectors(source, table)
    unlabelled = np.array([not name for name in subject])
    excluded = _excluded(source, subject, image, set(exclusions)) & ~unlabelled
    failed = np.flatnonzero((reasons != "") & ~excluded & ~unlabelled)
    unusable = Counter(reasons[failed].tolist())
    reasons[excluded], reasons[unlabelled] = EXCLUDED, Reason.NO_SUBJECT.value
    chosen = np.flatnonzero(reasons == "")
    if not len(chosen):
        raise SourceError(f"{source} holds no embedding that can be compared")
    order = chosen[sorted(range(len(chosen)), key=lambda i: (subject[chosen[i]], image[chosen[i]]))]
    names, codes = np.unique(np.array([subject[row] for row in order]), return_inverse=True)
    left_out = np.flatnonzero(reasons != "")
    labels = Labels(
        subject=codes.astype(np.intp),
        subjects=names.tolist(),
        images=[image[row] for row in order],
        rows=order,
        left_out={image[row]: Face(None, subject[row], reasons[row]) for row in left_out},
        excluded=int(excluded.sum()),
        unlabelled=int(unlabelled.sum()),
        unusable=dict(unusable.most_common()),
        lost=len({subject[row] for row in failed} - set(names.tolist())),
        groups={name: _texts(table[name], order) for name in groups},
    )
    unit = vectors[order].astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return Faces(labels, unit.astype(np.float32))


def _name_of_row(subject: str, row: int) -> str:
    """The name of a face that has none of its own."""
    return f"{subject}#{row}"


def _read(source: str, store: Store, groups: list[str]) -> pa.Table:
    with store.open(source) as handle:
        file = embedding_file(source, handle, groups, ("image", "reason"))
        schema = file.schema_arrow
        optional = ["image"] if holds_names(schema, "image") else []
        optional += ["reason"] if "reason" in schema.names else []
        with sound(source):
            return file.read(["subject_id", "embedding", *optional, *groups])


def _images(source: str, table: pa.Table, subject: list[str]) -> list[str]:
    """Names of the faces: the image column, or the subject and the row."""
    names = [""] * len(subject)
    if "image" in table.column_names:
        names = texts(source, "image", table["image"]).to_pylist()
    images = [name or _name_of_row(subject[row], row) for row, name in enumerate(names)]
    if len(set(images)) < len(images):
        twice = Counter(images).most_common(1)[0][0]
        raise ProtocolError(
            f"image {twice!r} is in the source twice: it would be compared to itself"
        )
    return images


def _vectors(source: str, table: pa.Table) -> tuple[F32, NDArray[np.object_]]:
    """The embeddings, (k, n), and for each the reason why it cannot be compared, or none."""
    column = table["embedding"].combine_chunks()
    lengths, rows = embedding_column(column)
    if not len(rows):
        raise SourceError(f"{source} holds no embeddings")
    whole = lengths == rows.shape[1]
    vectors = np.full((len(table), rows.shape[1]), np.nan, dtype=np.float32)
    vectors[whole] = rows
    reasons = np.full(len(table), "", dtype=object)
    # Of several reasons the last one is kept.
    reasons[~vectors.any(axis=1)] = Reason.ZERO_NORM.value
    reasons[~np.isfinite(vectors).all(axis=1)] = Reason.NOT_FINITE.value
    reasons[~whole] = Reason.WRONG_WIDTH.value
    absent = np.flatnonzero(lengths == 0)
    told = [""] * len(absent)
    if "reason" in table.column_names:
        told = texts(source, "reason", table["reason"].take(absent)).to_pylist()
    reasons[absent] = [text or _NO_EMBEDDING for text in told]
    return vectors, reasons


def _excluded(
    source: str, subject: list[str], image: list[str], names: set[str]
) -> NDArray[np.bool_]:
    """Which faces some names exclude. A name of both an image and a subject means the image."""
    unknown = names - set(subject) - set(image)
    if unknown:
        aside = " (a comment needs a line of its own)" if "#" in min(unknown) else ""
        raise ProtocolError(
            f"{len(unknown):,} excluded names are no image and no subject of {source}, "
            f"{min(unknown)!r} for one: correct the list{aside}"
        )
    people = names - set(image)
    return np.array(
        [s in people or i in names for s, i in zip(subject, image, strict=True)], dtype=bool
    )


def _texts(column: pa.ChunkedArray, order: Index) -> list[str]:
    values = column.to_pylist()
    return ["" if values[row] in (None, "") else str(values[row]) for row in order]
