"""Where inputs come from: a folder tree, a manifest, or a Parquet of stored embeddings.

Each source yields batches of the plan's columns in a fixed order. A folder and a manifest give a
subject's inputs together, a Parquet of embeddings its rows as they lie. An input that needs no work
(a hidden file, an empty subject) has its outcome.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ironmask.errors import SourceError
from pipelines.plan import manifest
from pipelines.plan.reach import Reach, reach_of
from pipelines.plan.subject_folders import Found, subject_folders
from pipelines.plan.tabular import (
    TABULAR,
    holds_names,
    parquet_file,
    refuse_columns,
    refuse_inexact,
    refuse_no_text,
    sound,
    texts,
    written_out,
)
from pipelines.ports import F32, Entry, Store
from pipelines.spec.addresses import row_address, shown
from pipelines.spec.outcomes import FAILURES, Outcome, Reason
from pipelines.spec.template_job import SourceKind
from pipelines.table.identities import of_tag, of_vector

# 32-bit offsets would end at 2 GiB of names; some million inputs have more.
COLUMNS = pa.schema(
    [
        ("subject_id", pa.large_string()),
        ("uri", pa.large_string()),
        ("row", pa.int64()),
        ("content", pa.large_string()),
        ("before", pa.large_string()),
        ("address", pa.binary()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.large_string()),
    ]
)
"""row: index in a Parquet of embeddings, else null. content: its own name (`table.identities`),
else null. before: its name in older tables. address: encrypted labels, where subject_id and uri are
pseudonyms. outcome: null where the input needs work."""

_BATCH = 4096
# Hadoop and Spark put this file beside the parts of a complete table.
_PARTS_DONE: Final = "_SUCCESS"


@dataclass
class _Batch:
    """Rows of the plan before they go to Arrow. objects: by row, those that need an identity."""

    columns: dict[str, list[object]] = field(
        default_factory=lambda: {name: [] for name in COLUMNS.names}
    )
    objects: dict[int, Entry] = field(default_factory=dict)

    def add(self, subject: str, uri: str, **values: object) -> None:
        row = {"subject_id": subject, "uri": uri, "reason": "", "detail": "", **values}
        for name, column in self.columns.items():
            column.append(row.get(name))

    def table(self) -> pa.Table:
        return pa.table(self.columns, schema=COLUMNS)

    def __len__(self) -> int:
        return len(self.columns["uri"])


def detect(source: str, store: Store) -> SourceKind:
    """Tell what kind of source an address is. Raises `SourceError` where it is none."""
    if store.is_dir(source):
        _refuse_parts(source, store)
        return SourceKind.FOLDER
    if not store.exists(source):
        raise SourceError(f"{source} does not exist: give a folder, a manifest or a Parquet file")
    if not source.lower().endswith(TABULAR):
        raise SourceError(f"{source} is neither a folder nor a .parquet or .csv file")
    if source.lower().endswith(".csv"):
        return SourceKind.MANIFEST
    with store.open(source) as handle:
        parquet = parquet_file(source, handle)
        refuse_inexact(source, "subject_id", parquet)
        names = parquet.schema_arrow.names
    if "embedding" not in names and "uri" not in names:
        raise SourceError(
            f"{source} has neither a column uri (a manifest) nor embedding (a gallery), beside "
            f"subject_id; found {', '.join(names)}"
        )
    return SourceKind.EMBEDDINGS if "embedding" in names else SourceKind.MANIFEST


def _refuse_parts(source: str, store: Store) -> None:
    """Raise `SourceError` for a folder that holds the parts of one table."""
    if store.exists(f"{source.rstrip('/')}/{_PARTS_DONE}"):
        raise SourceError(
            f"{source} holds a table in parts, of which {_PARTS_DONE} tells, and no folders of "
            "people: write it as one Parquet or CSV file, and give that"
        )


def read(
    source: str,
    kind: SourceKind,
    store: Store,
    limit: int | None = None,
    allow_roots: Sequence[str] = (),
    key_before: bytes | None = None,
    own: Sequence[str] = (),
) -> Iterator[pa.Table]:
    """Yield the inputs of a source as tables of `COLUMNS`.

    limit: in bytes; larger images are not read for their content, since they will be refused.
    allow_roots: where inputs may lie besides the source's own folder; others fail, unread.
    key_before: 32 secret bytes that keyed the names of embeddings in older tables; None where these
    are not needed. own: the destination and its keyset files, which are never inputs.
    """
    if kind is SourceKind.FOLDER:
        return _folder(source, store, limit, reach_of(source, kind, allow_roots, store, own))
    if kind is SourceKind.MANIFEST:
        return _manifest(source, store, limit, reach_of(source, kind, allow_roots, store, own))
    return _embeddings(source, store, key_before)


def _folder(source: str, store: Store, limit: int | None, reach: Reach) -> Iterator[pa.Table]:
    """`<subject>/<image>`. Deeper folders belong to the subject above them."""
    batch = _Batch()
    for entry in store.items(source, recursive=False):
        _add_stray(batch, entry)
    for folder, found in subject_folders(source, store, reach):
        if len(batch) >= _BATCH:
            yield _identified(batch, store, limit, source)
            batch = _Batch()
        _add_subject(batch, folder, found, reach)
    if len(batch):
        yield _identified(batch, store, limit, source)


def _identified(batch: _Batch, store: Store, limit: int | None, source: str) -> pa.Table:
    """A batch with the names of its objects' contents."""
    contents = _contents(list(batch.objects.values()), store, limit, source)
    for place, content in zip(batch.objects, contents, strict=True):
        batch.columns["content"][place] = content
    return batch.table()


def _add_stray(batch: _Batch, entry: Entry) -> None:
    hidden = posixpath.basename(entry.uri).startswith(".")
    reason = Reason.HIDDEN_FILE if hidden else Reason.NO_SUBJECT
    uri = shown(_printable(entry.uri)[0])
    batch.add("", uri, outcome=Outcome.SKIPPED, reason=reason, detail="not in a subject's folder")


def _add_subject(batch: _Batch, folder: str, found: list[Found], reach: Reach) -> None:
    subject, clean = _printable(posixpath.basename(folder.rstrip("/")))
    subject = shown(subject)
    for entry, known in found:
        name, utf8 = _printable(entry.uri)
        if not (clean and utf8):
            batch.add(
                subject,
                shown(name),
                outcome=Outcome.FAILED,
                reason=Reason.NAME_NOT_UTF8,
                detail="rename the file or folder: its name is not valid UTF-8",
            )
        elif "/." in entry.uri.removeprefix(posixpath.dirname(folder)):
            batch.add(subject, shown(name), outcome=Outcome.SKIPPED, reason=Reason.HIDDEN_FILE)
        elif fault := known or reach.fault(entry.uri):
            reason, detail = fault
            outcome = Outcome.FAILED if reason in FAILURES else Outcome.SKIPPED
            batch.add(subject, shown(name), outcome=outcome, reason=reason, detail=detail)
        else:
            batch.objects[len(batch)] = entry
            batch.add(subject, entry.uri)
    if not found:
        uri, _ = _printable(folder)
        batch.add(
            subject,
            uri,
            outcome=Outcome.SKIPPED,
            reason=Reason.EMPTY_SUBJECT,
            detail="the folder holds no file",
        )


def _printable(name: str) -> tuple[str, bool]:
    """A name that Arrow can hold, and whether it is the real name."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"), False
    return name, True


def _contents(
    entries: list[Entry], store: Store, limit: int | None, source: str
) -> Iterator[str | None]:
    """Names of objects' contents: the store's MD5 tag if it has one, else a SHA-256.

    An object that cannot be read has none. Its failure is recorded when it is loaded.
    """
    unread = [entry.uri for entry in entries if entry.etag is None]
    data = store.read_many(unread, limit, source)
    for entry in entries:
        if entry.etag is not None:
            yield of_tag(entry.etag)
            continue
        found = next(data)
        yield None if isinstance(found, OSError) else f"sha256:{sha256(found).hexdigest()}"


def _manifest(source: str, store: Store, limit: int | None, reach: Reach) -> Iterator[pa.Table]:
    """A CSV or Parquet with `subject_id` and `uri`."""
    rows = manifest.listed(source, store, reach)
    while chosen := list(islice(rows, _BATCH)):
        wanted = [Entry(row.uri, size=-1) for row in chosen if row.outcome is None]
        contents = _contents(wanted, store, limit, source)
        batch = _Batch()
        for row in chosen:
            content = next(contents) if row.outcome is None else None
            batch.add(
                row.subject,
                row.uri,
                content=content,
                outcome=row.outcome,
                reason=row.reason,
                detail=row.detail,
            )
        yield batch.table()


def embedding_width(source: str, store: Store) -> int:
    """The most frequent width in the first rows of a Parquet of embeddings."""
    with store.open(source) as handle:
        parquet = embedding_file(source, handle)
        kind = parquet.schema_arrow.field("embedding").type
        if pa.types.is_fixed_size_list(kind):
            return int(kind.list_size)
        with sound(source):
            first = next(parquet.iter_batches(_BATCH, columns=["embedding"]), None)
    widths = [] if first is None else pc.list_value_length(first["embedding"]).drop_null()
    if not len(widths):
        raise SourceError(f"{source} holds no embeddings")
    return int(pc.mode(widths)[0]["mode"].as_py())


def embedding_column(column: pa.Array) -> tuple[NDArray[np.intp], F32]:
    """How many values each row of a column of lists has, (m,), 0 for a null; and the rows of the
    most frequent width, (k, n) float32.
    """
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    if not lengths.any():
        return lengths, np.empty((0, 0), dtype=np.float32)
    n = int(np.bincount(lengths[lengths > 0]).argmax())
    flat = pc.list_flatten(column.filter(pa.array(lengths == n))).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is left out
        rows: F32 = flat.astype(np.float32).reshape(-1, n)
    return lengths, rows


def _embeddings(source: str, store: Store, key_before: bytes | None) -> Iterator[pa.Table]:
    """A Parquet with `subject_id` and `embedding` (lists of floats), its rows as they lie."""
    with store.open(source) as handle:
        parquet = embedding_file(source, handle, optional=["image"])
        columns = ["subject_id", "embedding"]
        columns += ["image"] if holds_names(parquet.schema_arrow, "image") else []
        start = 0
        with sound(source):
            for chunk in parquet.iter_batches(_BATCH, columns=columns):
                yield _embedding_rows(chunk, start, source, key_before)
                start += len(chunk)


def embedding_file(
    source: str, handle: object, more: Sequence[str] = (), optional: Sequence[str] = ()
) -> pq.ParquetFile:
    """Open a Parquet of embeddings whose columns have the right types.

    more: columns that it must have besides subject_id and embedding; optional: that it may have.
    Raises `SourceError` for a column that is missing, there twice or of another type.
    """
    parquet = parquet_file(source, handle)
    schema = parquet.schema_arrow
    refuse_columns(source, schema, ["subject_id", "embedding", *more], optional)
    refuse_no_text(source, "subject_id", schema.field("subject_id").type)
    kind = written_out(schema.field("embedding").type)
    if not isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType) or not (
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    ):
        raise SourceError(f"{source}: the column embedding must hold lists of floats, not {kind}")
    return parquet


def _embedding_rows(
    chunk: pa.RecordBatch, start: int, source: str, key_before: bytes | None
) -> pa.Table:
    batch = _Batch()
    subjects = texts(source, "subject_id", chunk["subject_id"]).to_pylist()
    images = [""] * len(chunk)
    if "image" in chunk.schema.names:
        images = texts(source, "image", chunk["image"]).to_pylist()
    for offset, subject in enumerate(subjects):
        row = start + offset
        uri = row_address(source, row, images[offset])
        if not subject:
            batch.add("", uri, row=row, outcome=Outcome.FAILED, reason=Reason.NO_SUBJECT)
            continue
        values = chunk["embedding"][offset]
        before = _name(values, key_before) if key_before else None
        batch.add(subject, uri, row=row, content=_name(values), before=before)
    return batch.table()


def _name(value: pa.ListScalar, key: bytes = b"") -> str | None:
    return of_vector(value.values, key) if value.is_valid else None
