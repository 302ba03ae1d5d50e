"""One unit of an audit: an attack on stored rows, or on issues that are made for it."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import pyarrow.dataset as pads
from scipy.stats import ortho_group

from ironmask import algebra, digest, helper
from ironmask.arrays import F32, F64, unit_rows
from ironmask.attacks import (
    fresh_issues,
    largest_entry,
    nearest_codewords,
    recover_from_issues,
    recover_from_row,
    recover_from_width,
    scan_seeds,
)
from ironmask.attacks.result import Budget, Codes, Recovered
from ironmask.errors import TableError
from ironmask.filling import Filling
from ironmask.random import secure_generator
from ironmask.spectrum import Spectrum
from ironmask.template import ProtectedTemplate, verify_batch
from pipelines.auditing.frozen import LINKED, Audit, Finding, Kind, Unit
from pipelines.plan.labelled_faces import Faces, Index
from pipelines.ports import GenerationKeys, Tables
from pipelines.table.row_cipher import open_row, row_key

_STRANGERS: Final = 100
_SEEDS: Final = 50
_LINK_STARTS: Final = 24_576
# A search in an encrypted helper need not be long: the helper is noise.
_LYING_S: Final = 5.0


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
        own = digest.digests(codes[0], self.protected.params, self.key)
        return hmac.compare_digest(own, self.protected.digests)

    def matrix(self) -> F32:
        own = self.protected
        p: F32 = helper.decode([own.helper], own.params, own.encoding)[0]
        return p

    def lying_matrix(self, *, sealed: bool) -> F32:
        """The stored bytes read as a helper, (N, n); any bytes give one."""
        params = self.protected.params
        if not sealed:
            p: F32 = helper.decode([self.lying], params, self.protected.encoding)[0]
            return p
        # Rows need no scale.
        rows = np.resize(np.frombuffer(self.lying, np.int8), params.helper_shape).astype(np.float32)
        matrix: F32 = algebra.expanded(rows[None], params.structure)[0]
        matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1)
        return matrix


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
    rows = around.tables[target].table("templates").rows(where=where).to_pylist()
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
    row, params = _stored(around, target, subject), around.audit.targets[target].params
    seconds, sealed = around.audit.seconds, around.audit.targets[target].sealed
    if sealed:
        seconds = min(seconds, _LYING_S)
    found = recover_from_row(
        row.lying_matrix(sealed=sealed), _space(around, target), params.alpha, secure_generator(),
        seconds=seconds, confirm=row.confirms, structure=params.structure,
    )  # fmt: skip
    # More time would not help against encrypted bytes, so the result is no late one.
    return replace(_ended(unit, found), out_of_time=found.out_of_time and not sealed)


def _row(around: Surroundings, unit: Unit) -> Finding:
    ((target, subject),) = unit.rows
    row, params = _stored(around, target, subject), around.audit.targets[target].params
    found = recover_from_row(
        row.matrix(), _space(around, target), params.alpha, secure_generator(),
        seconds=around.audit.seconds, confirm=row.confirms, structure=params.structure,
    )  # fmt: skip
    return _ended(unit, found)


def _lying_wide(around: Surroundings, unit: Unit) -> Finding:
    """Search a wide row by its width, with its stored bytes read as a helper."""
    ((target, subject),) = unit.rows
    sealed = around.audit.targets[target].sealed
    row = _stored(around, target, subject)
    found = _by_width(around, target, row, row.lying_matrix(sealed=sealed), least=sealed)
    return replace(_ended(unit, found), out_of_time=found.out_of_time and not sealed)


def _wide(around: Surroundings, unit: Unit) -> Finding:
    ((target, subject),) = unit.rows
    row = _stored(around, target, subject)
    return _ended(unit, _by_width(around, target, row, row.matrix()))


def _by_width(
    around: Surroundings, target: int, row: _Row, matrix: F32, *, least: bool = False
) -> Recovered:
    """least: for a helper that is noise."""
    params, seconds = around.audit.targets[target].params, around.audit.seconds
    budget = Budget(1 << 40, min(seconds, _LYING_S) if least else seconds)
    return recover_from_width(
        matrix, params.alpha, secure_generator(), structure=params.structure, budget=budget,
        confirm=row.confirms,
    )  # fmt: skip


def _seeds(around: Surroundings, unit: Unit) -> Finding:
    """Try the seeds of careless software: 0, 1, 2, ... in NumPy's generator, with SciPy."""
    ((target, subject),) = unit.rows
    row = _stored(around, target, subject)

    def rotation(seed: int) -> F64:
        made: F64 = ortho_group.rvs(row.protected.params.n, random_state=seed)
        return made

    alpha = row.protected.params.alpha
    return _ended(
        unit, scan_seeds(row.matrix(), alpha, range(_SEEDS), rotation, confirm=row.confirms)
    )


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
    """Attack all readable issues of one subject."""
    rows = [_stored(around, *row) for row in unit.rows]
    helpers = np.stack([row.matrix() for row in rows])

    def confirm(codes: Codes) -> bool:
        return all(row.confirms([code]) for row, code in zip(rows, codes, strict=True))

    params = rows[0].protected.params
    found = recover_from_issues(
        helpers, params.alpha, secure_generator(), seconds=around.audit.seconds, confirm=confirm,
        limit=1 << 40, structure=params.structure,
    )  # fmt: skip
    return _ended(unit, found)


def _made(around: Surroundings, faces: Sequence[int]) -> F32:
    """Helpers of fresh issues of faces, with the first target's settings: (b, N, n)."""
    target = around.audit.targets[0]
    made = fresh_issues(
        unit_rows(around.faces.vectors[list(faces)], target.params.n), target.params,
        secure_generator(), filling=around.fillings[0], encoding=target.encoding,
    )  # fmt: skip
    return np.stack([p for p, _ in made])


def _renewal(around: Surroundings, unit: Unit) -> Finding:
    params = around.audit.params
    found = recover_from_issues(
        _made(around, unit.faces), params.alpha, secure_generator(), seconds=around.audit.seconds,
        limit=1 << 40, structure=params.structure,
    )  # fmt: skip
    return _ended(unit, found)


def _link(around: Surroundings, unit: Unit) -> Finding:
    """Scores of pairs of issues: of one pair, or of many neighbours for the obvious function."""
    began = time.perf_counter()
    name, _, side = unit.label.partition("|")
    if name == LINKED[0]:
        others = unit.faces if side == "mated" else (*unit.faces[1:], unit.faces[0])
        pairs = zip(unit.faces, others, strict=True)
        scores = tuple(largest_entry(_made(around, pair)) for pair in pairs)
    else:
        alpha, rng = around.audit.params.alpha, secure_generator()
        helpers, seconds = _made(around, unit.faces), around.audit.seconds
        score = nearest_codewords(helpers, alpha, rng, _LINK_STARTS, seconds)
        scores = () if score is None else (score,)
    spent = time.perf_counter() - began
    return Finding(
        unit.kind, unit.label, True, spent, scores=scores, out_of_time=not scores
    )  # fmt: skip


_KINDS: Final = {
    Kind.LYING: _lying,
    Kind.ROW: _row,
    Kind.LYING_WIDE: _lying_wide,
    Kind.WIDE: _wide,
    Kind.SEEDS: _seeds,
    Kind.FACES: _faces,
    Kind.ISSUES: _issues,
    Kind.LINK: _link,
    Kind.RENEWAL: _renewal,
    Kind.PHOTOS: _renewal,
}
