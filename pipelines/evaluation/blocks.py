"""One block of an evaluation: it is compared, and written as two small files.

A block is done if and only if its file of counts exists, which is written last. The files hold
cosines, agreements and the numbers of faces, but no embedding, helper or codeword.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ironmask.arrays import F64
from ironmask.centring import Centring, centre
from ironmask.comparisons import BINS, Block, Compared, Issue, Matches, compare, fresh
from ironmask.errors import TemplateError
from pipelines.evaluation import stored_templates
from pipelines.evaluation.comparisons import Comparisons
from pipelines.evaluation.frozen import Case, Evaluation
from pipelines.evaluation.protocol import comparisons
from pipelines.evaluation.stored_templates import Access, Rows
from pipelines.plan import labelled_faces as faces_of
from pipelines.plan.labelled_faces import Faces
from pipelines.ports import Store
from pipelines.table import layout
from pipelines.table.schemas import as_parquet, of_parquet

Index = NDArray[np.intp]
# These take the place of a setting's number: impostors by cosine, and lost templates.
_COSINE: Final = -1
_LOST: Final = -2


@dataclass(frozen=True)
class Sources:
    """The sources of faces, and of templates where a table holds them."""

    store: Store
    access: Access | None = None


@dataclass(frozen=True)
class Part:
    """One case: its comparisons, and the numbers of its blocks."""

    case: Case
    found: Comparisons
    blocks: range


@dataclass(frozen=True)
class Plan:
    """The faces and comparisons of an evaluation. rows: where a table holds the templates."""

    faces: Faces
    parts: list[Part]
    rows: Rows | None

    @property
    def blocks(self) -> range:
        """Numbers of all blocks."""
        return range(self.parts[-1].blocks.stop)

    def part_of(self, block: int) -> Part:
        """The case that a block belongs to."""
        return next(part for part in self.parts if block in part.blocks)


@lru_cache(maxsize=1)
def plan(evaluation: Evaluation, sources: Sources) -> Plan:
    """Load the faces, once in each process."""
    store = sources.store
    faces = faces_of.load(evaluation.source, store, evaluation.excluded, evaluation.groups)
    rows = None
    if sources.access:
        rows = stored_templates.rows(sources.access, evaluation.source, faces.labels)
    parts: list[Part] = []
    for case in evaluation.cases:
        if parts and parts[-1].case.protocol == case.protocol:
            found = parts[-1].found
        elif rows:
            found = rows.found
        else:
            found = comparisons(case.protocol, faces.labels, evaluation.listed)
        first = parts[-1].blocks.stop if parts else 0
        count = -(-len(found.templates) // evaluation.block)
        parts.append(Part(case, found, range(first, first + count)))
    return Plan(faces, parts, rows)


def run(evaluation: Evaluation, sources: Sources, number: int) -> int:
    """Compare one block and write its counts. Returns its number."""
    known = plan(evaluation, sources)
    part = known.part_of(number)
    first = (number - part.blocks.start) * evaluation.block
    numbers = np.arange(first, min(first + evaluation.block, len(part.found.templates)))
    with _issues(evaluation, sources, number, numbers) as (kept, templates, issue):
        block, probes = _block(known.faces, part.found, kept, templates)
        done = compare(block, evaluation.settings, issue, evaluation.floor)
    store, lost = sources.store, np.setdiff1d(numbers, kept)
    store.write(_address(evaluation, number, "matches"), _matches(done, kept, probes))
    store.write(_address(evaluation, number, "counts"), _counts(done, lost))
    return number


@contextmanager
def _issues(
    evaluation: Evaluation, sources: Sources, number: int, numbers: Index
) -> Iterator[tuple[Index, F64, Issue]]:
    """The comparable templates of a block: their numbers, the templates, and their issues."""
    known = plan(evaluation, sources)
    kept, templates = _centred(known, known.part_of(number), numbers)
    if known.rows is None or sources.access is None:
        rng = evaluation.generator(f"block {number}")
        with fresh(templates, evaluation.settings, rng) as issue:
            yield kept, templates, issue
        return
    opened = stored_templates.opened(sources.access, known.rows, kept, templates)
    some = np.array(sorted(opened), dtype=np.intp)
    yield kept[some], templates[some], lambda _, place: opened[int(some[place])]


def _centred(known: Plan, part: Part, numbers: Index) -> tuple[Index, F64]:
    """Numbers of the templates whose faces do not cancel, and these templates, (t, n)."""
    vectors, method = known.faces.vectors, part.case.centring or Centring.MEAN
    found = {}
    for number in map(int, numbers):
        with suppress(TemplateError):
            own = vectors[part.found.templates[number]]
            found[number] = centre(own, vectors.shape[1], method)
    templates = np.array(list(found.values())).reshape(-1, vectors.shape[1])
    return np.array(list(found), dtype=np.intp), templates


def done(evaluation: Evaluation, store: Store) -> set[int]:
    """Blocks whose counts exist."""
    names = (entry.uri.rpartition("/")[2] for entry in store.entries(_folder(evaluation)))
    return {int(name.split(".")[0]) for name in names if name.endswith(".counts.parquet")}


def matches(evaluation: Evaluation, store: Store, blocks: Iterable[int]) -> pa.Table:
    """All kept comparisons, block by block."""
    return pa.concat_tables(
        of_parquet(_address(evaluation, number, "matches"), store) for number in blocks
    )


@dataclass(frozen=True)
class Counted:
    """Sums over blocks.

    cosines: (BINS,) impostors. agreements: (settings, alpha + 1) impostors of a sample. lost:
    numbers of templates that could not be compared.
    """

    cosines: NDArray[np.int64]
    agreements: NDArray[np.int64]
    lost: Index


def counted(evaluation: Evaluation, store: Store, blocks: Iterable[int]) -> Counted:
    """Add up the counts of some blocks."""
    settings = evaluation.settings
    width = max(setting.params.alpha for setting in settings) + 1
    cosines = np.zeros(BINS, dtype=np.int64)
    agreements = np.zeros((len(settings), width), dtype=np.int64)
    lost = []
    for number in blocks:
        table = of_parquet(_address(evaluation, number, "counts"), store)
        setting, place, count = (table[name].to_numpy() for name in ("setting", "place", "count"))
        lost.append(place[setting == _LOST])
        cosines[place[setting == _COSINE]] += count[setting == _COSINE]
        rest = setting >= 0
        agreements[setting[rest], place[rest]] += count[rest]
    return Counted(cosines, agreements, np.concatenate(lost).astype(np.intp))


def _block(faces: Faces, found: Comparisons, numbers: Index, templates: F64) -> tuple[Block, Index]:
    """The templates with some numbers, and the faces to compare them with."""
    probes = found.probes_after(int(numbers[0])) if len(numbers) else found.probes[:0]
    same = found.subject[numbers, None] == faces.labels.subject[probes]
    if found.pairs is not None:
        template, probe = found.pairs.T
        inside = np.isin(template, numbers)
        compared = np.zeros(same.shape, dtype=bool)
        compared[np.searchsorted(numbers, template[inside]), probe[inside]] = True
    elif found.once:
        compared = np.arange(len(probes)) > np.arange(len(numbers))[:, None]
    else:
        compared = np.ones(same.shape, dtype=bool)
    block = Block(
        templates=templates,
        probes=faces.vectors[probes],
        genuine=[np.flatnonzero(row) for row in same & compared],
        impostor=~same & compared,
    )
    return block, probes


def _folder(evaluation: Evaluation) -> str:
    return layout.join(evaluation.out, "blocks")


def _address(evaluation: Evaluation, number: int, kind: str) -> str:
    return layout.join(_folder(evaluation), f"{number:06d}.{kind}.parquet")


def _matches(found: Compared, numbers: Index, probes: Index) -> memoryview:
    sides = ((found.genuine, True), (found.impostor, False))
    return as_parquet(pa.concat_tables(_side(*side, numbers, probes) for side in sides))


def _side(found: Matches, genuine: bool, numbers: Index, probes: Index) -> pa.Table:
    columns: dict[str, Any] = {
        "genuine": np.full(len(found.template), genuine),
        "template": numbers[found.template].astype(np.int64),
        "probe": probes[found.probe].astype(np.int64),
        "cosine": found.cosine,
    }
    for number, agreement in enumerate(found.agreement):
        columns[f"agreement_{number}"] = agreement
        columns[f"tolerances_{number}"] = found.tolerances[number]
    return pa.table(columns)


def _counts(found: Compared, lost: Index) -> memoryview:
    places = np.flatnonzero(found.cosines)
    setting, agreement = np.nonzero(found.agreements)
    kinds = [np.full(len(lost), _LOST), np.full(len(places), _COSINE), setting]
    counts = [np.ones(len(lost)), found.cosines[places], found.agreements[setting, agreement]]
    return as_parquet(
        pa.table(
            {
                "setting": np.concatenate(kinds).astype(np.int32),
                "place": np.concatenate([lost, places, agreement]).astype(np.int64),
                "count": np.concatenate(counts).astype(np.int64),
            }
        )
    )
