"""Compare templates that a table holds, for an evaluator with its keys and the same embeddings.

The embeddings of a row give back its codeword, and the row's own digests confirm it. So the stored
helpers themselves are compared, not others like them. A codeword is kept no longer than its block.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from numpy.typing import NDArray

from ironmask.arrays import F64, I32
from ironmask.centring import Centring
from ironmask.errors import MismatchError, ProtocolError, TableError
from ironmask.helper import encoding
from ironmask.params import Params
from ironmask.template import reopen
from pipelines.evaluation.comparisons import Comparisons, refuse_one_class
from pipelines.evaluation.frozen import Issued
from pipelines.plan.labelled_faces import Labels
from pipelines.ports import GenerationKeys, Tables
from pipelines.spec.addresses import row_and_image, shown
from pipelines.spec.outcomes import Outcome
from pipelines.spec.template_job import digest
from pipelines.table import contents, generations, read
from pipelines.table.details import decrypted
from pipelines.table.pseudonyms import are_kept
from pipelines.table.row_cipher import open_row, row_key
from pipelines.table.schemas import PARAMS

Index = NDArray[np.intp]
_TRAITS = ["generation", *PARAMS, "encoding", "centring", "model", "key_id"]
_MADE_FROM = ("template_id", "subject_id", "source_uris")


@dataclass(frozen=True)
class TemplateTraits:
    """The common settings of a generation's templates. key_id: of the keys that encrypt them."""

    issued: Issued
    encoding: str
    centring: Centring
    model: str
    key_id: str


def live(tables: Tables, keys: str) -> TemplateTraits:
    """The templates of a table's live generation. keys: path of its keyset file.

    Raises `TableError` where there is none, or where their settings differ.
    """
    generation = generations.live(tables)
    counted = [
        (traits, count)
        for traits, count in read.templates_by(tables, _TRAITS)
        if traits["generation"] == generation
    ]
    if not counted:
        raise TableError(f"{tables.dest} holds no template: enrol into it first")
    traits, count = counted[-1]
    if len(counted) > 1:
        raise TableError(
            f"{tables.dest}: generation {generation} holds templates of several settings"
        )
    issued = Issued(
        dest=tables.dest,
        table_id=tables.table_id,
        generation=generation,
        keys=keys,
        params=Params.recorded(traits),
        templates=count,
        digest=digest(_made_from(tables, generation)),
    )
    name, centring = encoding(traits["encoding"]).name, Centring(traits["centring"])
    return TemplateTraits(issued, name, centring, traits["model"], traits["key_id"])


@dataclass(frozen=True)
class Access:
    """Templates of a table. keys: opens those of their generation, again for each call."""

    issued: Issued
    tables: Tables
    keys: Callable[[], GenerationKeys] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Rows:
    """The templates whose faces are all in the source, and their comparisons.

    ids, subjects: of the templates. missing: templates without one of their faces in the source.
    duplicates: faces that the table knows as copies of another input; they are no probes.
    """

    ids: list[str] = field(repr=False)
    subjects: list[str] = field(repr=False)
    found: Comparisons
    missing: int
    duplicates: int


def rows(access: Access, source: str, labels: Labels) -> Rows:
    """Find the faces of the templates in a source. All its other faces are probes.

    Raises `MismatchError` where the table has changed since, `ProtocolError` where nothing can be
    compared.
    """
    issued, tables = access.issued, access.tables
    made_from = _made_from(tables, issued.generation)
    if digest(made_from) != issued.digest:
        raise MismatchError(
            f"the templates of {issued.dest} have changed since this evaluation began: name "
            "another OUT to evaluate them as they are now"
        )
    places = _Places(source, labels, _labels(access))
    ids, subjects, templates = [], [], []
    used: set[int] = set()
    for template_id, subject, uris in made_from:
        faces = [places.of(subject, uri) for uri in uris]
        used.update(face for face in faces if face is not None)
        if None not in faces:
            ids.append(template_id)
            subjects.append(subject)
            templates.append(np.array(sorted(face for face in faces if face is not None)))
    if not ids:
        raise ProtocolError(
            f"{source} holds the faces of no template of {issued.dest}: its rows must be those "
            "that were enrolled, or its images have their names"
        )
    again = set(_duplicates(tables, places)) - used
    probes = np.setdiff1d(np.arange(len(labels.subject)), np.array(sorted(used | again)))
    found = Comparisons(templates, labels.subject[[faces[0] for faces in templates]], probes)
    refuse_one_class(found, labels)
    return Rows(ids, subjects, found, len(made_from) - len(ids), len(again))


def opened(
    access: Access, rows: Rows, numbers: Index, templates: F64
) -> dict[int, tuple[bytes, I32]]:
    """Helper and codeword of a few templates, by place, where the row's digests confirm them.

    numbers: (t,), increasing. templates: (t, n), made from their faces again. Raises
    `TamperedError` where a row was changed.
    """
    if not len(numbers):
        return {}
    table_id, keys = access.issued.table_id, access.keys()
    # Rows are sorted by subject, so a range of subjects needs few files.
    subject = pads.field("subject_id")
    low, high = rows.subjects[numbers[0]], rows.subjects[numbers[-1]]
    where = _of(access.issued.generation) & (subject >= low) & (subject <= high)
    people = [rows.subjects[number] for number in numbers]
    found = access.tables.table("templates").rows(where=where, people=people).to_pylist()
    stored = {row["template_id"]: row for row in found}
    opened = {}
    for place, template_id in enumerate(rows.ids[number] for number in numbers):
        if template_id not in stored:
            raise TableError(f"template {template_id} is gone since this evaluation began")
        protected = open_row(table_id, stored[template_id], keys)
        key = row_key(table_id, stored[template_id], keys)
        code = reopen(protected, templates[place], key)
        if code is not None:
            opened[place] = protected.helper, code
    return opened


@dataclass(frozen=True)
class Losses:
    """The losses of enrolment. used: inputs in templates. failed: the other inputs, by their newest
    reason. subjects: all subjects to enrol. without: those of them without a template.
    """

    used: int
    failed: dict[str, int]
    subjects: int
    without: int


def losses(tables: Tables, generation: int) -> Losses:
    """Count the inputs that a table's generation used, and those that failed."""
    used = contents.used_inputs(tables, generation)
    failed = contents.newest_failures(tables)
    enrolled = contents.live_subjects(tables, generation)
    subjects = pa.array({failure.subject for failure in failed.values()}, pa.string())
    without = len(subjects) - int(enrolled.has(subjects).sum())
    reasons = Counter(failure.reason for failure in failed.values())
    return Losses(used, dict(reasons.most_common()), len(enrolled) + without, without)


class _Places:
    """Finds a table's inputs among the faces of a source: by row, or by name or its end."""

    def __init__(
        self, source: str, labels: Labels, stored: dict[str, tuple[str, str]] | None = None
    ) -> None:
        """stored: subject id and address of inputs by their stored address, if that differs."""
        self._labels = labels
        self._stored = stored or {}
        file = posixpath.basename(source)
        rows = {f"{file}#row={row}": place for place, row in enumerate(labels.rows)}
        self._images = {shown(image): place for place, image in enumerate(labels.images)}
        self._known = rows | self._images
        self._nameless = {name: place for name, place in rows.items() if not labels.is_named(place)}

    def of(self, subject: str, uri: str) -> int | None:
        """The face of an input; None where the source has none, or one of another subject."""
        subject, _ = self._stored.get(uri, (subject, uri))
        place = self.named(uri)
        if place is None or self._labels.subjects[self._labels.subject[place]] != subject:
            return None
        return place

    def named(self, uri: str) -> int | None:
        _, uri = self._stored.get(uri, ("", uri))
        row, image = row_and_image(uri)
        if not image:
            return _found(row, self._known)
        place = _found(image, self._images)
        return _found(row, self._nameless) if place is None else place


def _labels(access: Access) -> dict[str, tuple[str, str]]:
    """Subject id and address of the inputs of a table that holds pseudonyms for them."""
    if not are_kept(access.tables):
        return {}
    table_id, keys = access.issued.table_id, access.keys().table
    columns = ["run_id", "subject_id", "uri", "details"]
    found: dict[str, tuple[str, str]] = {}
    for batch in access.tables.table("inputs").batches(columns):
        for row in batch.to_pylist():
            facts = decrypted(table_id, row, keys)
            if "address" in facts:
                found[row["uri"]] = facts["subject"], facts["address"]
    return found


def _found(address: str, known: dict[str, int]) -> int | None:
    return next((known[name] for name in _endings(address) if name in known), None)


def _endings(uri: str) -> Iterator[str]:
    """A whole address and its ends, from the longest to the shortest, with and without suffix."""
    while uri:
        yield uri
        yield posixpath.splitext(uri)[0]
        uri = uri.partition("/")[2]


def _duplicates(tables: Tables, places: _Places) -> Iterator[int]:
    for batch in tables.table("inputs").batches(["uri", "outcome"]):
        again = batch.filter(pc.equal(batch["outcome"], Outcome.DUPLICATE.value))
        for uri in again["uri"].to_pylist():
            place = places.named(uri)
            if place is not None:
                yield place


def _of(generation: int) -> pads.Expression:
    return pads.field("generation") == generation


def _made_from(tables: Tables, generation: int) -> list[tuple[str, str, list[str]]]:
    """Id, subject and inputs of each template, in the order of subjects."""
    some = tables.table("templates").rows(_MADE_FROM, _of(generation))
    columns = [some[name].to_pylist() for name in _MADE_FROM]
    return sorted(zip(*columns, strict=True), key=lambda row: (row[1], row[0]))
