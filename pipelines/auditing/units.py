"""One unit of an audit: an attack on stored rows, or on issues that are made for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import pyarrow.dataset as pads

from ironmask import algebra, helper
from ironmask.arrays import F32, F64, unit_rows
from ironmask.attacks import (
    Budget,
    fresh_issues,
    largest_entry,
    nearest_codewords,
    recover_from_issues,
    recover_from_row,
    recover_from_width,
    scan_seeds,
)
from ironmask.attacks.result import Codes, Recovered
from ironmask.errors import TableError
from ironmask.filling import Filling
from ironmask.params import Params, Structure
from ironmask.random import secure_generator
from ironmask.spectrum import Spectrum
from ironmask.template import ProtectedTemplate, confirms, matrix, verify_batch
from pipelines.auditing.frozen import LINKED, Audit, Finding, Kind, Unit
from pipelines.plan.labelled_faces import Faces, Index
from pipelines.ports import GenerationKeys, Tables
from pipelines.table.row_cipher import open_row, row_key

_STRANGERS: Final = 100
_SEEDS: Final = 50
_LINK_STARTS: Final = 24_576
# A search in an encrypted helper need not be long: the helper is noise.
_LYING_S: Final = 5.0
# A search by the width of the code needs few guesses: so long it may take in any case.
_WIDTH_S: Final = 30.0


@dataclass(frozen=True)
class Surroundings:
    """The data that units work on.

    tables, keys: of each target; keys are opened again for each call. unknown: faces of subjects
    who are not sampled. templates: of these subjects, (m, n), made as the first target's are.
    space: of these templates. fillings: of each target.
    """

    audit: Audit
    faces: Faces
    unknown: Index
    tables: Sequence[Tables]
    keys: Callable[[int], GenerationKeys] = field(repr=False)
    templates: F64
    space: Spectrum
    fillings: Sequence[Filling | None]


@dataclass(frozen=True)
class _Row:
    """A stored row, and its check of codewords. lying: its helper's bytes as they are stored."""

    protected: ProtectedTemplate
    key: bytes = field(repr=False)
    lying: bytes = field(repr=False)

    def confirms(self, codes: Codes) -> bool:
        """Whether the row has the digests of the first codeword."""
        return confirms(self.protected, codes[0], self.key)

    def matrix(self) -> F32:
        return matrix(self.protected)

    def lying_matrix(self, *, sealed: bool) -> F32:
        """The stored bytes read as a helper."""
        if not sealed:
            p: F32 = helper.decode([self.lying], self.params, self.protected.encoding)[0]
            return p
        # Any bytes give a matrix; rows need no scale.
        levels = np.resize(np.frombuffer(self.lying, np.int8), self.params.helper_shape)
        matrix = algebra.expanded(levels[None].astype(np.float32), self.params.structure)[0]
        scaled: F32 = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1)
        return scaled

    @property
    def params(self) -> Params:
        return self.protected.params


def run(around: Surroundings, unit: Unit) -> Finding:
    """Do one unit. Raises `TableError` where a sampled row is gone."""
    return _KINDS[unit.kind](around, unit)


def _ended(unit: Unit, found: Recovered) -> Finding:
    return Finding(
        unit.kind, unit.label, found.success, found.seconds, found.trials,
        out_of_time=found.out_of_time,
    )  # fmt: skip


def _stored(around: Surroundings, target: int, subject: str) -> _Row:
    # Filter by subject: each file's statistics have the range of its subjects.
    some = around.audit.targets[target]
    mine = pads.field("subject_id") == subject
    where = (pads.field("generation") == some.generation) & mine
    rows = around.tables[target].table("templates").rows(where=where, people=[subject]).to_pylist()
    if not rows:
        raise TableError(f"a sampled row of {some.dest} is gone since the audit began")
    keys = around.keys(target)
    protected = open_row(some.table_id, rows[0], keys)
    return _Row(protected, row_key(some.table_id, rows[0], keys), rows[0]["helper"])


def _space(around: Surroundings, target: int) -> Spectrum:
    filling = around.fillings[target]
    return filling.spectrum(around.space) if filling else around.space


def _lying(around: Surroundings, unit: Unit) -> Finding:
    """Search a row, with its stored bytes read as a helper."""
    ((target, subject),) = unit.rows
    row, sealed = _stored(around, target, subject), around.audit.targets[target].sealed
    seconds = min(around.audit.seconds, _LYING_S) if sealed else around.audit.seconds
    found = _searched(around, target, row, row.lying_matrix(sealed=sealed), seconds)
    return _unhurried(_ended(unit, found), sealed)


def _row(around: Surroundings, unit: Unit) -> Finding:
    ((target, subject),) = unit.rows
    row = _stored(around, target, subject)
    return _ended(unit, _searched(around, target, row, row.matrix(), around.audit.seconds))


def _searched(
    around: Surroundings, target: int, row: _Row, matrix: F32, seconds: float
) -> Recovered:
    return recover_from_row(
        matrix, _space(around, target), row.params.alpha, secure_generator(),
        seconds=seconds, confirm=row.confirms, structure=row.params.structure,
    )  # fmt: skip


def _lying_width(around: Surroundings, unit: Unit) -> Finding:
    """Search a wide row for a sparse vector, with its stored bytes read as a helper."""
    ((target, subject),) = unit.rows
    row, sealed = _stored(around, target, subject), around.audit.targets[target].sealed
    seconds = min(around.audit.seconds, _LYING_S) if sealed else _WIDTH_S
    found = _by_width(row, row.lying_matrix(sealed=sealed), seconds)
    return _unhurried(_ended(unit, found), sealed)


def _width(around: Surroundings, unit: Unit) -> Finding:
    ((target, subject),) = unit.rows
    row = _stored(around, target, subject)
    seconds = max(around.audit.seconds, _WIDTH_S)
    return _ended(unit, _by_width(row, row.matrix(), seconds))


def _by_width(row: _Row, matrix: F32, seconds: float) -> Recovered:
    return recover_from_width(
        matrix, row.params.alpha, secure_generator(), structure=row.params.structure,
        budget=Budget(1 << 40, seconds), confirm=row.confirms,
    )  # fmt: skip


def _unhurried(found: Finding, sealed: bool) -> Finding:
    """More time would not help against encrypted bytes, so the result is no late one."""
    return replace(found, out_of_time=found.out_of_time and not sealed)


def _seeds(around: Surroundings, unit: Unit) -> Finding:
    """Try the seeds of careless software: 0, 1, 2, ... in NumPy's generator, with SciPy."""
    ((target, subject),) = unit.rows
    row = _stored(around, target, subject)

    def rotation(seed: int) -> F64:
        # It takes as long to load as all else here together.
        from scipy.stats import ortho_group

        made: F64 = ortho_group.rvs(row.params.n, random_state=seed)
        return made

    found = scan_seeds(
        row.matrix(), row.params.alpha, range(_SEEDS), rotation, confirm=row.confirms
    )
    return _ended(unit, found)


def _faces(around: Surroundings, unit: Unit) -> Finding:
    """Try strangers' faces on a row, one face of each subject, and count those it accepts."""
    began = time.perf_counter()
    ((target, subject),) = unit.rows
    row = _stored(around, target, subject)
    some = secure_generator().permutation(around.unknown)
    each = np.unique(around.faces.labels.subject[some], return_index=True)[1]
    some = some[np.sort(each)[:_STRANGERS]]
    probes = around.faces.vectors[some]
    accepted = int(verify_batch(row.protected, probes, row.key).sum())
    spent = time.perf_counter() - began
    return Finding(unit.kind, unit.label, accepted > 0, spent, trials=len(some), accepted=accepted)


def _issues(around: Surroundings, unit: Unit) -> Finding:
    """Attack all readable issues of one subject, whose settings may differ."""
    rows = [_stored(around, *row) for row in unit.rows]
    structures = {row.params.structure for row in rows}

    def confirm(codes: Codes) -> bool:
        return all(row.confirms([code]) for row, code in zip(rows, codes, strict=True))

    found = recover_from_issues(
        [row.matrix() for row in rows], [row.params.alpha for row in rows], secure_generator(),
        seconds=around.audit.seconds, confirm=confirm, limit=1 << 40,
        structure=structures.pop() if len(structures) == 1 else Structure.REAL,
    )  # fmt: skip
    return _ended(unit, found)


def _made(around: Surroundings, faces: Sequence[int]) -> tuple[F32, Codes]:
    """Helpers of fresh issues of faces, (b, N, n), and codewords; settings of the first target."""
    target = around.audit.targets[0]
    made = fresh_issues(
        unit_rows(around.faces.vectors[list(faces)], target.params.n), target.params,
        secure_generator(), filling=around.fillings[0], encoding=target.encoding,
    )  # fmt: skip
    return np.stack([p for p, _ in made]), [code for _, code in made]


def _renewal(around: Surroundings, unit: Unit) -> Finding:
    params = around.audit.params
    helpers, known = _made(around, unit.faces)

    def confirm(codes: Codes) -> bool:
        """As the digests of stored rows do."""
        return all(map(np.array_equal, codes, known))

    found = recover_from_issues(
        helpers, params.alpha, secure_generator(), seconds=around.audit.seconds,
        confirm=confirm, limit=1 << 40, structure=params.structure,
    )  # fmt: skip
    return _ended(unit, found)


def _link(around: Surroundings, unit: Unit) -> Finding:
    """Scores of pairs of issues: of one pair, or of many neighbours for the obvious function."""
    began = time.perf_counter()
    name, _, side = unit.label.partition("|")
    if name == LINKED[0]:
        others = unit.faces if side == "mated" else (*unit.faces[1:], unit.faces[0])
        pairs = zip(unit.faces, others, strict=True)
        scores = tuple(largest_entry(_made(around, pair)[0]) for pair in pairs)
    else:
        alpha, rng = around.audit.params.alpha, secure_generator()
        (helpers, _), seconds = _made(around, unit.faces), around.audit.seconds
        score = nearest_codewords(helpers, alpha, rng, _LINK_STARTS, seconds)
        scores = () if score is None else (score,)
    spent = time.perf_counter() - began
    return Finding(
        unit.kind, unit.label, True, spent, scores=scores, out_of_time=not scores
    )  # fmt: skip


_KINDS: Final = {
    Kind.LYING: _lying,
    Kind.LYING_WIDTH: _lying_width,
    Kind.ROW: _row,
    Kind.WIDTH: _width,
    Kind.SEEDS: _seeds,
    Kind.FACES: _faces,
    Kind.ISSUES: _issues,
    Kind.LINK: _link,
    Kind.RENEWAL: _renewal,
    Kind.PHOTOS: _renewal,
}
