"""One block of an evaluation: compared, and written as two small files.

A block is done if and only if its counts exist, which are written last. Files hold cosines,
agreements and the numbers of faces, never an embedding, a helper or a codeword.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ironmask.arrays import F64
from ironmask.centring import centre
from ironmask.comparisons import BINS, Block, Compared, Matches, compare
from ironmask.errors import StorageError
from pipelines import layout
from pipelines.evaluation import faces as faces_of
from pipelines.evaluation.faces import Faces
from pipelines.evaluation.job import Evaluation
from pipelines.evaluation.protocol import Comparisons, comparisons
from pipelines.ports import Store
from pipelines.records import as_parquet


@dataclass(frozen=True)
class Plan:
    """The faces of an evaluation and what is compared with what."""

    faces: Faces
    found: Comparisons
    templates: F64

    def blocks(self, size: int) -> range:
        """Numbers of the blocks."""
        return range(-(-len(self.found.templates) // size))


@lru_cache(maxsize=1)
def plan(evaluation: Evaluation, store: Store) -> Plan:
    """Load the faces, once a process."""
    faces = faces_of.load(evaluation.source, store, evaluation.excluded, evaluation.groups)
    found = comparisons(evaluation.protocol, faces.labels, evaluation.listed)
    vectors = faces.vectors
    templates = [centre(vectors[own], evaluation.n, evaluation.centring) for own in found.templates]
    return Plan(faces, found, np.stack(templates))


def run(evaluation: Evaluation, store: Store, number: int) -> int:
    """Compare one block and write what it counted; return its number."""
    known = plan(evaluation, store)
    first = number * evaluation.block
    last = min(first + evaluation.block, len(known.found.templates))
    block, probes = _block(known, first, last)
    rng = evaluation.generator(f"block {number}")
    done = compare(block, evaluation.settings, rng, evaluation.floor)
    store.write(_address(evaluation, number, "matches"), _matches(done, first, probes))
    store.write(_address(evaluation, number, "counts"), _counts(done))
    return number


def done(evaluation: Evaluation, store: Store) -> set[int]:
    """Blocks whose counts are there."""
    names = (entry.uri.rpartition("/")[2] for entry in store.entries(_folder(evaluation)))
    return {int(name.split(".")[0]) for name in names if name.endswith(".counts.parquet")}


def matches(evaluation: Evaluation, store: Store, blocks: Iterable[int]) -> pa.Table:
    """All comparisons that were kept, block by block."""
    return pa.concat_tables(
        _read(_address(evaluation, number, "matches"), store) for number in blocks
    )


def counted(
    evaluation: Evaluation, store: Store, blocks: Iterable[int]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Impostors by cosine, (BINS,), and by agreement, (settings, alpha + 1), of each block."""
    settings = evaluation.settings
    width = max(setting.params.alpha for setting in settings) + 1
    for number in blocks:
        table = _read(_address(evaluation, number, "counts"), store)
        columns = {name: table[name].to_numpy() for name in table.column_names}
        cosines = np.zeros(BINS, dtype=np.int64)
        is_cosine = columns["setting"] < 0
        cosines[columns["place"][is_cosine]] = columns["count"][is_cosine]
        agreements = np.zeros((len(settings), width), dtype=np.int64)
        rest = {name: column[~is_cosine] for name, column in columns.items()}
        agreements[rest["setting"], rest["place"]] = rest["count"]
        yield cosines, agreements


def _block(known: Plan, first: int, last: int) -> tuple[Block, NDArray[np.intp]]:
    """Templates from first to before last, and the faces that they are compared with."""
    found, labels = known.found, known.faces.labels
    probes = found.probes_after(first)
    same = found.subject[first:last, None] == labels.subject[probes]
    if found.pairs is not None:
        template, probe = found.pairs.T
        inside = (template >= first) & (template < last)
        compared = np.zeros(same.shape, dtype=bool)
        compared[template[inside] - first, probe[inside]] = True
    elif found.once:
        compared = np.arange(len(probes)) > np.arange(last - first)[:, None]
    else:
        compared = np.ones(same.shape, dtype=bool)
    block = Block(
        templates=known.templates[first:last],
        probes=known.faces.vectors[probes],
        genuine=[np.flatnonzero(row) for row in same & compared],
        impostor=~same & compared,
    )
    return block, probes


def _folder(evaluation: Evaluation) -> str:
    return layout.join(evaluation.out, "blocks")


def _address(evaluation: Evaluation, number: int, kind: str) -> str:
    return layout.join(_folder(evaluation), f"{number:06d}.{kind}.parquet")


def _matches(found: Compared, first: int, probes: NDArray[np.intp]) -> memoryview:
    parts = [_part(found.genuine, first, probes, True), _part(found.impostor, first, probes, False)]
    return as_parquet(pa.concat_tables(parts))


def _part(found: Matches, first: int, probes: NDArray[np.intp], genuine: bool) -> pa.Table:
    columns: dict[str, Any] = {
        "genuine": np.full(len(found.template), genuine),
        "template": (found.template + first).astype(np.int64),
        "probe": probes[found.probe].astype(np.int64),
        "cosine": found.cosine,
    }
    for number, agreement in enumerate(found.agreement):
        columns[f"agreement_{number}"] = agreement
        columns[f"tolerances_{number}"] = found.tolerances[number]
    return pa.table(columns)


def _counts(found: Compared) -> memoryview:
    places = np.flatnonzero(found.cosines)
    setting, agreement = np.nonzero(found.agreements)
    return as_parquet(
        pa.table(
            {
                "setting": np.concatenate([np.full(len(places), -1), setting]).astype(np.int32),
                "place": np.concatenate([places, agreement]).astype(np.int32),
                "count": np.concatenate(
                    [found.cosines[places], found.agreements[setting, agreement]]
                ),
            }
        )
    )


def _read(uri: str, store: Store) -> pa.Table:
    with store.open(uri) as handle:
        try:
            return pq.read_table(handle)
        except pa.ArrowInvalid:
            raise StorageError(f"{uri} is damaged: remove it and run the same command") from None
