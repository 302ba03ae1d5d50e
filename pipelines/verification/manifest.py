"""Probes of many people, as a manifest or a Parquet of embeddings lists them."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from infra.store.addresses import allowed, is_inside, normalise
from infra.store.lease import refuse_unwritable
from ironmask.errors import ParameterError, SourceError
from pipelines.plan import manifest, sources
from pipelines.plan.manifest import Listed
from pipelines.plan.reach import reach_of
from pipelines.plan.tabular import holds_names, sound, text_parts, texts
from pipelines.ports import F32, Store
from pipelines.spec.addresses import row_address
from pipelines.spec.outcomes import Reason
from pipelines.spec.template_job import SourceKind
from pipelines.verification.answers import Answer, Answered, refuse_other_file, writing
from pipelines.verification.images import Image, Resolved
from pipelines.verification.probe import Verdict
from pipelines.verification.verifier import Verifier

Progress = Callable[[int, int], None]
"""Takes how many probes are answered, and how many there are."""

# A person's probes beyond these are answered in several parts.
_PROBES: Final = 512
_SUBJECTS: Final = 32
_ROWS: Final = 2048
_SUFFIX: Final = ".parquet"


def quiet(_done: int, _all: int) -> None:
    """No progress display."""


def verify_manifest(
    verifier: Verifier,
    source: str,
    out: str,
    allow_roots: Sequence[str] = (),
    progress: Progress = quiet,
) -> Answered:
    """Verify every probe that a manifest lists, and write the answers as Parquet.

    source: `subject_id` and `uri` as CSV or Parquet, or a Parquet of `subject_id` and `embedding`.
    Relative addresses start at its folder, and images lie in it or in one of `allow_roots`. out: a
    file that appears once all is answered, with the columns of `answers.COLUMNS`. The answers of
    images come by subject, those of embeddings in the order of the rows.

    A subject without a template and an image that cannot be used are answers without a verdict.
    Raises `SourceError` for what is no manifest or lists nothing, `ParameterError` for an `out`
    that cannot be, and what else `Verifier.verify_many` does.
    """
    source, out = normalise(source), normalise(out)
    store = verifier.store
    _refuse_out(out, source, verifier, store)
    kind = sources.detect(source, store)
    if kind is SourceKind.FOLDER:
        raise SourceError(f"{source} is a folder: list its images in a .csv or .parquet file")
    every = sum(len(part) for part in text_parts(source, ["subject_id"], store))
    if not every:
        raise SourceError(f"{source} lists no probe")
    parts = (
        _of_embeddings(verifier, source)
        if kind is SourceKind.EMBEDDINGS
        else _of_images(verifier, source, allowed(allow_roots))
    )
    with writing(out, store) as writer:
        progress(0, every)
        for answers in parts:
            writer.add(answers)
            progress(writer.done.probes, every)
    return writer.done


def _refuse_out(out: str, source: str, verifier: Verifier, store: Store) -> None:
    if not out.lower().endswith(_SUFFIX):
        raise ParameterError(f"{out}: the answers are Parquet, so name a file that ends so")
    if any(out == place or is_inside(out, place) for place in (source, *verifier.own)):
        raise ParameterError(
            f"{out} is a file of the manifest, of the table or of its keys: keep the answers apart"
        )
    if store.is_dir(out):
        raise ParameterError(f"{out} is a folder: name a file for the answers")
    refuse_other_file(out, store)
    refuse_unwritable(posixpath.dirname(out))


def _of_images(verifier: Verifier, source: str, roots: Sequence[str]) -> Iterator[list[Answer]]:
    store = verifier.store
    reach = reach_of(source, SourceKind.MANIFEST, roots, store, verifier.own)
    for rows in _together(manifest.listed(source, store, reach)):
        asked: dict[str, list[Image]] = {}
        for row in rows:
            if row.outcome is None:
                asked.setdefault(row.subject, []).append(Resolved(row.uri))
        said = verifier.verify_many(asked, home=source)
        answers = {subject: iter(verdicts) for subject, verdicts in said.items()}
        yield [
            Answer(row.subject, next(answers[row.subject]) if row.outcome is None else _fault(row))
            for row in rows
        ]


def _fault(row: Listed) -> Verdict:
    return Verdict(row.uri, None, row.reason, row.detail)


def _together(rows: Iterator[Listed]) -> Iterator[list[Listed]]:
    """Rows of a few people, in order."""
    some: list[Listed] = []
    people: set[str] = set()
    for row in rows:
        is_full = row.subject not in people and len(people) == _SUBJECTS
        if is_full or len(some) == _PROBES:
            yield some
            some, people = [], set()
        some.append(row)
        people.add(row.subject)
    if some:
        yield some


def _of_embeddings(verifier: Verifier, source: str) -> Iterator[list[Answer]]:
    start = 0
    for chunk in _chunks(source, verifier.store):
        yield _of_rows(verifier, source, chunk, start)
        start += len(chunk)


def _chunks(source: str, store: Store) -> Iterator[pa.RecordBatch]:
    with store.open(source) as handle, sound(source):
        parquet = sources.embedding_file(source, handle, optional=["image"])
        columns = ["subject_id", "embedding"]
        columns += ["image"] if holds_names(parquet.schema_arrow, "image") else []
        yield from parquet.iter_batches(_ROWS, columns=columns)


def _of_rows(verifier: Verifier, source: str, chunk: pa.RecordBatch, start: int) -> list[Answer]:
    subjects = texts(source, "subject_id", chunk["subject_id"]).to_pylist()
    images = [""] * len(chunk)
    if "image" in chunk.schema.names:
        images = texts(source, "image", chunk["image"]).to_pylist()
    asked: dict[str, list[F32]] = {}
    for subject, value in zip(subjects, chunk["embedding"], strict=True):
        if subject:
            asked.setdefault(subject, []).append(_vector(value))
    said = verifier.verify_embeddings_many(asked)
    answers = {subject: iter(verdicts) for subject, verdicts in said.items()}
    made = []
    for at, (subject, image) in enumerate(zip(subjects, images, strict=True)):
        uri = row_address(source, start + at, image)
        found = next(answers[subject]) if subject else _nobody()
        made.append(Answer(subject, Verdict(uri, found.accepted, found.reason, found.detail)))
    return made


def _nobody() -> Verdict:
    return Verdict("", None, Reason.NO_SUBJECT, "the row names no subject")


def _vector(value: pa.ListScalar) -> F32:
    """A row's embedding; a null has no value at all."""
    if not value.is_valid:
        return np.empty(0, np.float32)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        return np.asarray(value.values, np.float32)
