"""Count the contents of a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from infra.settings import load as load_settings
from ironmask.helper import encoding
from ironmask.params import Params
from ironmask.template import row_bytes
from pipelines.ports import Tables
from pipelines.setup import places
from pipelines.spec.outcomes import DISAGREEMENT
from pipelines.table import contents, generations, run_records
from pipelines.table.data_files import together
from pipelines.table.log_seal_file import NOT_CHECKED
from pipelines.table.read import templates_by
from pipelines.table.schemas import INPUTS, PARAMS

_DISAGREES: Final = pa.array([reason.value for reason in DISAGREEMENT])
_NAMED: Final = pa.schema([INPUTS.field(name) for name in ("subject_id", "outcome", "reason")])


@dataclass(frozen=True)
class GenerationSize:
    """The contents of one generation. state: preparing, live, retired or destroyed.

    scheme_version, code_width, structure: as in `ironmask.Params`.
    """

    generation: int
    state: str
    templates: int
    settings: str
    bits: float
    sealed: bool
    model: str
    key_id: str
    row_bytes: int
    scheme_version: int
    code_width: int
    structure: str


@dataclass(frozen=True)
class Inventory:
    """The contents of a destination. destroyed: UTC time for each generation that is gone.

    outcomes, reasons: of the inputs of all runs, re-protections included. disagreement: subjects
    with faces of other people, by reason. lost: subjects whose template was lost, without another
    one. two_issues: subjects who were enrolled again since. seal: the seal's state, as far as it
    can be seen without keys.
    """

    dest: str
    table_id: str
    generations: list[GenerationSize]
    destroyed: dict[int, str]
    data_bytes: dict[str, int]
    outcomes: dict[str, int]
    reasons: dict[str, int]
    disagreement: dict[str, int]
    runs: list[dict[str, Any]]
    lost: int = 0
    two_issues: int = 0
    seal: str = NOT_CHECKED


def inspect(dest: str) -> Inventory:
    """Count the contents of a destination."""
    _, storage = load_settings()
    return inventory(places.existing(dest, storage))


def inventory(tables: Tables) -> Inventory:
    """Count a destination's templates, inputs and bytes."""
    counted = _Counts()
    for rows in together(tables.table("inputs").batches(_NAMED.names)):
        counted.add(rows)
    known = generations.read(tables)
    lost = contents.lost_people(tables, generations.live_of(known))
    return Inventory(
        dest=tables.dest,
        table_id=tables.table_id,
        generations=_generations(tables, known),
        destroyed={
            one.number: one.at.isoformat(timespec="seconds")
            for one in generations.in_state(known, generations.State.DESTROYED)
        },
        data_bytes={
            name: sum(tables.table(name).files().values())
            for name in ("templates", "inputs", "vault")
        },
        outcomes=dict(counted.outcomes.most_common()),
        reasons={k: v for k, v in counted.reasons.most_common() if k},
        disagreement=contents.people_by_disagreement(counted.disagreeing()),
        runs=[
            {
                "run_id": r.run_id,
                "kind": r.kind,
                "state": r.state,
                "counts": r.counts,
                "seconds": r.timings.get("seconds"),
            }
            for r in run_records.records(tables)
        ],
        lost=len(lost.gone),
        two_issues=lost.again,
    )


@dataclass
class _Counts:
    """Counts over all outcomes. Only those of subjects with faces of others are kept."""

    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    _disagreeing: list[pa.Table] = field(default_factory=list)

    def add(self, rows: pa.Table) -> None:
        for name, counts in (("outcome", self.outcomes), ("reason", self.reasons)):
            for item in pc.value_counts(rows[name]).to_pylist():
                counts[item["values"]] += item["counts"]
        found = rows.filter(pc.is_in(rows["reason"], _DISAGREES))
        if len(found):
            self._disagreeing.append(found)

    def disagreeing(self) -> pa.Table:
        """The outcomes that say that a subject has faces of others."""
        return pa.concat_tables([_NAMED.empty_table(), *self._disagreeing])


_TRAITS = ["generation", *PARAMS, "encoding", "sealed", "model", "key_id"]


def _generations(tables: Tables, known: dict[int, generations.Generation]) -> list[GenerationSize]:
    found = templates_by(tables, _TRAITS)
    states = {number: str(one.state) for number, one in known.items()}
    return [_generation(row, count, states.get(row["generation"], "begun")) for row, count in found]


def _generation(row: dict[str, Any], templates: int, state: str) -> GenerationSize:
    params = Params.recorded(row)
    return GenerationSize(
        generation=row["generation"],
        state=state,
        templates=templates,
        settings=f"{params.describe()}, {encoding(row['encoding']).name}",
        bits=params.bits,
        sealed=row["sealed"],
        model=row["model"],
        key_id=row["key_id"],
        row_bytes=row_bytes(params, row["encoding"]),
        scheme_version=params.version,
        code_width=params.code_width,
        structure=str(params.structure),
    )
