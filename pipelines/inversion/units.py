"""One unit of an evaluation: some people's templates of one kind, inverted, shown to recognisers.

Its file holds cosines and numbers of people. Faces, templates and names leave no process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from ironmask.arrays import unit_rows
from ironmask.attacks.inversion import inverted
from ironmask.errors import ImageError, StorageError
from ironmask.spectrum import Spectrum
from pipelines.inversion import inputs, work
from pipelines.inversion.frozen import INVERTER_FILE, Fitted, Inversion
from pipelines.inversion.inputs import Input, Templates
from pipelines.inversion.inverters import Ready, ready, unpacked
from pipelines.inversion.people import Drawn, Tested
from pipelines.inversion.work import Spec, Surroundings
from pipelines.ports import F32, U8, Store
from pipelines.run.work import Work
from pipelines.table import layout
from pipelines.table.schemas import as_parquet, of_parquet

_PEOPLE: Final = 16
# Faces of so many strangers are as good as all for their mean.
_AVERAGED: Final = 500
_FOLDER: Final = "blocks"
_ENDING: Final = ".parquet"

SCHEMA: Final = pa.schema(
    [
        ("input", pa.string()),
        ("inverter", pa.string()),
        ("model", pa.int8()),
        ("type", pa.int8()),
        ("person", pa.int32()),
        ("cosine", pa.float32()),
    ]
)
"""inverter: its label; empty where the input is shown as it is. model: 0 is the attacked one. type:
1, the photo that the template is of; 2, another photo; 0, the template itself, with which the
inverted one is compared; its cosine is null where nothing could be inverted."""


@dataclass(frozen=True)
class Unit:
    """kind: what is inverted. people: places of tested people."""

    kind: Input
    people: range


def units(people: int) -> list[Unit]:
    """All units: some people each; what needs no inverter goes at once."""
    blocks = [range(at, min(at + _PEOPLE, people)) for at in range(0, people, _PEOPLE)]
    made = [Unit(kind, block) for kind in Input if kind.is_inverted for block in blocks]
    return made + [Unit(kind, range(people)) for kind in Input if not kind.is_inverted]


def unit_work(spec: Spec) -> Work:
    """An evaluation's units as units of work."""
    return Work(whole_unit, (spec,))


def done(out: str, store: Store) -> set[int]:
    """Numbers of the units that are there."""
    names = (entry.uri.rpartition("/")[2] for entry in store.entries(layout.join(out, _FOLDER)))
    return {int(name.removesuffix(_ENDING)) for name in names if name.endswith(_ENDING)}


def cosines(out: str, store: Store, numbers: Sequence[int]) -> pa.Table:
    """The cosines of some units, unit by unit: rows of `SCHEMA`."""
    return pa.concat_tables(of_parquet(_address(out, number), store) for number in numbers)


def whole_unit(spec: Spec, number: int) -> int:
    """Do one unit, on one thread, and write its cosines. Returns its number."""
    around = surroundings(spec)
    with threadpool_limits(1):
        rows = list(around.rows(units(len(around.drawn.tested))[number]))
    table = pa.Table.from_pylist(rows, SCHEMA)
    around.store.write(_address(spec.out, number), as_parquet(table))
    return number


@dataclass(frozen=True)
class Around:
    """What the units of an evaluation share in a process. embedded: by each recogniser, (k, n)."""

    base: Surroundings
    what: Inversion
    drawn: Drawn
    embedded: list[F32]
    space: Spectrum
    inverters: list[Ready]

    @property
    def store(self) -> Store:
        """The store of all addresses."""
        return self.base.kept.store

    def rows(self, unit: Unit) -> Iterator[dict[str, Any]]:
        """Rows of `SCHEMA`."""
        if not unit.kind.is_inverted:
            images, people = self._faces(unit)
            yield from self._scored(unit.kind, "", images, people)
            return
        made = self.templates(unit.kind, unit.people)
        yield from self._likeness(unit.kind, made)
        for one, inverter in zip(self.what.inverters, self.inverters, strict=True):
            if made.people:
                yield from self._scored(
                    unit.kind, one.label, _bgr(inverted(inverter, made.vectors)), made.people
                )

    def templates(self, kind: Input, people: Sequence[int]) -> Templates:
        """What is inverted of some people."""
        tested, photos = self.drawn.tested, self.base.photos
        some = [(at, photos[tested[at].own.start].person, tested[at]) for at in people]
        stored = (self.what.rows, self.base.spec.storage) if self.what.rows else None
        return inputs.templates(kind, some, self.embedded[0], self.space, stored)

    def _likeness(self, kind: Input, made: Templates) -> Iterator[dict[str, Any]]:
        """How alike inverted templates and people's own embeddings are."""
        found = dict(zip(made.people, made.vectors, strict=True))
        for at in made.asked:
            true = self.embedded[0][self.drawn.tested[at].own.start]
            if np.isfinite(true).all():
                near = float(found[at] @ unit_rows(true, len(true))[0]) if at in found else None
                yield _row(kind, "", 0, 0, at, near)

    def _faces(self, unit: Unit) -> tuple[U8, list[int]]:
        """Real faces of other people, or the mean of strangers' faces: (m, 112, 112, 3) BGR."""
        people = list(unit.people)
        if unit.kind is Input.MEAN:
            some = self.base.crops(self.drawn.strangers[:_AVERAGED])
            crops = [crop for crop in some if not isinstance(crop, ImageError)]
            mean = np.rint(np.mean(crops, axis=0, dtype=np.float64)).astype(np.uint8)
            return mean[None], people
        places = [self.drawn.tested[at].own.start for at in people]
        others = zip(people, self.base.crops([*places[1:], places[0]]), strict=True)
        found = {at: crop for at, crop in others if not isinstance(crop, ImageError)}
        return np.stack(list(found.values())), list(found)

    def _scored(
        self, kind: Input, label: str, images: U8, people: Sequence[int]
    ) -> Iterator[dict[str, Any]]:
        """Cosines between faces and people's own photos; one face for all, or one for each."""
        for model, pack in enumerate(self.base.spec.packs):
            network, known = work.recogniser(pack), self.embedded[model]
            found = unit_rows(network.embed(images), network.n)
            each = np.broadcast_to(found, (len(people), network.n))
            for at, vector in zip(people, each, strict=True):
                for which, place in _targets(self.drawn.tested[at]):
                    if np.isfinite(known[place]).all():
                        photo = unit_rows(known[place], network.n)[0]
                        yield _row(kind, label, model, which, at, float(vector @ photo))


def _targets(one: Tested) -> Iterator[tuple[int, int]]:
    """What a reconstruction is compared with: the type, and the place of a photo."""
    yield 1, one.own.start
    if one.other is not None:
        yield 2, one.other


def _row(
    kind: Input, label: str, model: int, which: int, person: int, cosine: float | None
) -> dict[str, Any]:
    return {
        "input": str(kind), "inverter": label, "model": model, "type": which, "person": person,
        "cosine": cosine,
    }  # fmt: skip


def _bgr(images: U8) -> U8:
    return np.ascontiguousarray(images[..., ::-1])


@lru_cache(maxsize=1)
def surroundings(spec: Spec) -> Around:
    """What units share, once a process: kept embeddings, and inverters as they were at first."""
    base, what = work.surroundings(spec), spec.what
    assert isinstance(what, Inversion)  # noqa: S101
    drawn = what.drawn(base.listing)
    embedded = [base.embedded(model) for model in range(len(spec.packs))]
    strangers = embedded[0][list(drawn.strangers)]
    usable = strangers[np.isfinite(strangers).all(axis=1)]
    return Around(
        base=base,
        what=what,
        drawn=drawn,
        embedded=embedded,
        space=Spectrum.of(usable, usable.shape[1]),
        inverters=[_inverter(one, spec, base.kept.store) for one in what.inverters],
    )


def _inverter(one: Fitted, spec: Spec, store: Store) -> Ready:
    address = layout.join(one.folder, INVERTER_FILE)
    if store.version(address) != one.version:
        raise StorageError(f"{address} was replaced since the evaluation began: begin anew")
    return ready(one.fit, unpacked(address, store.read(address)), spec.packs[0])


def _address(out: str, number: int) -> str:
    return layout.join(out, _FOLDER, f"{number:06d}{_ENDING}")
