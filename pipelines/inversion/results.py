"""The results of an evaluation of inverters: how many reconstructions a recogniser accepts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final

import numpy as np
import pyarrow as pa

from ironmask.attacks.inversion import Hits, Scores, Threshold, thresholds
from pipelines.inversion import units
from pipelines.inversion.frozen import Inversion
from pipelines.inversion.inputs import Input
from pipelines.inversion.units import Around

FARS: Final = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""False accept rates that are reported."""

TOLD: Final = 1e-3
"""The rate of the headline, and of the supplement's middle column."""

_CURVE: Final = tuple(10.0 ** (power / 4) for power in range(-24, -3))


@dataclass(frozen=True)
class Line:
    """Reconstructions of one kind. inverter: its label; empty where the input is shown as it is.
    model: name of the recogniser that accepts or not. attacked: it is the one that templates are
    of. type: 1 or 2. hits: at each of `FARS`; curve: at finer steps. cosine: the mean.
    """

    input: Input
    inverter: str
    model: str
    attacked: bool
    type: int
    cosine: float
    hits: tuple[Hits, ...] = field(repr=False)
    curve: tuple[Hits, ...] = field(repr=False)

    def at(self, far: float) -> Hits:
        """The hits at one of `FARS`."""
        return self.hits[FARS.index(far)]


@dataclass(frozen=True)
class Likeness:
    """Templates that are inverted, beside people's own embeddings. asked: people; found: those
    whose template there was. cosine: the mean, 0 where none was found.
    """

    input: Input
    asked: int
    found: int
    cosine: float


@dataclass(frozen=True)
class InversionResults:
    """thresholds: of each recogniser by name, at `FARS`. tested, second: people, and those with a
    second photo. strangers: people who set thresholds. left_out: people whom an inverter has learnt
    from. failures: name of a photo, reason's code, text.
    """

    inversion: Inversion
    lines: tuple[Line, ...]
    likeness: tuple[Likeness, ...]
    thresholds: dict[str, tuple[Threshold, ...]]
    tested: int
    second: int
    strangers: int
    left_out: int
    failures: tuple[tuple[str, str, str], ...]

    def of(self, kind: Input, *, attacked: bool = True, which: int = 1) -> list[Line]:
        """The lines of a kind of input and a type."""
        return [
            line
            for line in self.lines
            if (line.input, line.attacked, line.type) == (kind, attacked, which)
        ]

    def best(self, kind: Input, far: float = TOLD) -> Line | None:
        """The inverter with the most hits of type I, for the attacked recogniser."""
        lines = self.of(kind)
        return max(lines, key=lambda line: line.at(far).share) if lines else None

    @property
    def headline(self) -> str:
        """What a thief gets from stored embeddings, from a row as it lies, and with its keys."""
        stored, searched = self.best(Input.STORED), self.best(Input.SEARCHED)
        rows = self.inversion.rows
        lying = "encrypted: nothing that could be inverted; from a helper alone, without a search"
        if rows and not rows.sealed:
            lying = "with helpers in the clear, without a search"
        return (
            f"From stored embeddings: {_taken(stored)}. From protected rows as they lie, {lying}: "
            f"{_taken(self.best(Input.HELPER))}. With the keys, by a search of each row: "
            f"{_taken(searched)}."
        )


def _taken(line: Line | None) -> str:
    if line is None:
        return "no face"
    hits = line.at(TOLD)
    known = "" if hits.threshold.supported else ", of too few strangers to be sure"
    return (
        f"faces of {hits.hits:,} of {hits.trials:,} people that pass for them at FAR {TOLD:.1%} "
        f"({line.inverter}{known})"
    )


def results(around: Around) -> InversionResults:
    """Add all units up."""
    what, drawn = around.what, around.drawn
    every = range(len(units.units(len(drawn.tested))))
    found = units.cosines(what.out, around.store, every)
    steps = [_thresholds(around, model) for model in range(len(what.models))]
    failures = [
        (around.base.photos[place].name, reason, text)
        for place, reason, text in around.base.failures()
    ]
    return InversionResults(
        inversion=what,
        lines=tuple(_lines(found, what, steps)),
        likeness=tuple(_likeness(found)),
        thresholds={
            name: tuple(own[: len(FARS)]) for name, own in zip(what.models, steps, strict=True)
        },
        tested=len(drawn.tested),
        second=sum(one.other is not None for one in drawn.tested),
        strangers=len(drawn.strangers),
        left_out=drawn.left_out,
        failures=tuple(failures),
    )


def _thresholds(around: Around, model: int) -> list[Threshold]:
    """Those of `FARS`, then those of the curve."""
    places = np.array(around.drawn.strangers)
    rows = around.embedded[model][places]
    usable = np.isfinite(rows).all(axis=1)
    return thresholds(rows[usable], places[usable], [*FARS, *_CURVE])


def _lines(
    found: pa.Table, what: Inversion, steps: Sequence[Sequence[Threshold]]
) -> Iterator[Line]:
    """In the order of inputs, inverters, recognisers and types."""
    scored: dict[tuple[Any, ...], tuple[list[float], list[int]]] = {}
    for row in found.to_pylist():
        if row["type"]:
            key = tuple(row[name] for name in ("input", "inverter", "model", "type"))
            cosines, people = scored.setdefault(key, ([], []))
            cosines.append(row["cosine"])
            people.append(row["person"])
    labels = ["", *(one.label for one in what.inverters)]
    for key in product(map(str, Input), labels, range(len(what.models)), (1, 2)):
        if key in scored:
            cosines, people = scored[key]
            scores = Scores(np.array(cosines), np.array(people, dtype=np.intp))
            hits = tuple(scores.hits(step) for step in steps[key[2]])
            yield Line(
                input=Input(key[0]), inverter=key[1], model=what.models[key[2]],
                attacked=key[2] == 0, type=key[3], cosine=float(np.mean(cosines)),
                hits=hits[: len(FARS)], curve=hits[len(FARS) :],
            )  # fmt: skip


def _likeness(found: pa.Table) -> Iterator[Likeness]:
    told = [row for row in found.to_pylist() if row["type"] == 0]
    for kind in Input:
        some = [row["cosine"] for row in told if row["input"] == kind]
        known = [cosine for cosine in some if cosine is not None]
        if some:
            yield Likeness(kind, len(some), len(known), float(np.mean(known)) if known else 0.0)
