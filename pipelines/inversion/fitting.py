"""A fit from photos to inverter: embedded batch by batch, learnt in one process, resumed."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from threadpoolctl import threadpool_limits

from ironmask.attacks.inversion import State
from ironmask.errors import SourceError
from pipelines.inversion import work
from pipelines.inversion.frozen import INVERTER_FILE, Fit, Kind
from pipelines.inversion.inverters import Crops, Point, learnt, packed, unpacked
from pipelines.inversion.people import LEAST_TRAINED
from pipelines.inversion.request import Checked
from pipelines.inversion.work import Spec, Surroundings
from pipelines.ports import Store
from pipelines.run.course import Counting, finish, uncounted
from pipelines.run.local import LocalEngine
from pipelines.run.work import Engine, Work
from pipelines.setup import ports, workplace
from pipelines.spec.workplace import Workplace
from pipelines.table import layout

_CHECKPOINT: Final = "checkpoint.npz"
_FACTS: Final = "fitted.json"
_CPU: Final = "cpu"
# A machine may be busy, and photos are read besides.
_PATIENCE: Final = 4.0


@dataclass(frozen=True)
class FitResult:
    """A fit that is done. folder: where its inverter lies. people, photos: that it learnt from.

    failures: photos that could not be used: name, reason's code and text. curve: of a training.
    """

    folder: str
    inverter: str
    model: str
    people: int
    photos: int
    failures: tuple[tuple[str, str, str], ...]
    curve: tuple[Point, ...]

    @property
    def headline(self) -> str:
        """What was learnt, in one sentence."""
        failed = f" {len(self.failures):,} photos could not be used." if self.failures else ""
        return (
            f"The {self.inverter} inverter learnt from {self.photos:,} photos of {self.people:,} "
            f"people what embeddings of {self.model} look like.{failed}"
        )


def begin(checked: Checked) -> None:
    """Freeze a definition, and make the key of what is kept meanwhile."""
    what = checked.spec.what
    address = layout.join(checked.spec.out, what.FILE)
    if not checked.store.exists(address):
        checked.store.write(address, what.to_json())
    work.kept(checked.spec).begin()


def embed(checked: Checked, engine: Engine, progress: Counting = uncounted) -> None:
    """Embed the photos that are left. progress: batches done and all."""
    spec = checked.spec
    every, done = work.surroundings(spec).units, work.kept(spec).done()
    finish(engine, work.embedding_work(spec), every, done, progress)


def run(checked: Checked, engine: Engine, progress: Counting = uncounted) -> FitResult:
    """Freeze the fit, embed what is left, let one process learn, and remove what was kept for it.

    A fit that is done is only looked up. progress: see `embed`.
    """
    spec, store = checked.spec, checked.store
    if not store.exists(layout.join(spec.out, _FACTS)):
        begin(checked)
        embed(checked, engine, progress)
        deque(_learning(checked, engine).run(fit_work(spec), [0]), maxlen=0)
    found = _result(spec, store)
    work.kept(spec).end()
    return found


def _learning(checked: Checked, engine: Engine) -> Engine:
    """Who learns: a GPU of this machine is this process's own."""
    fit = _fit(checked.spec)
    return engine if fit.device == _CPU or fit.inverter == Kind.LINEAR else LocalEngine()


def fit_work(spec: Spec) -> Work:
    """The learning as a unit of work."""
    fit = _fit(spec)
    return Work(whole_fit, (spec,), seconds=_PATIENCE * (fit.cpu_seconds + fit.most))


def _fit(spec: Spec) -> Fit:
    assert isinstance(spec.what, Fit)  # noqa: S101
    return spec.what


def whole_fit(spec: Spec, _unit: int) -> int:
    """Learn from the kept embeddings and their photos, from the last checkpoint on."""
    around, store = work.surroundings(spec), ports.shared_store(spec.storage)
    fit = _fit(spec)
    rows = around.embedded()
    usable = np.flatnonzero(np.isfinite(rows).all(axis=1))
    owners = np.array([around.photos[place].person for place in usable])
    people = len(np.unique(owners))
    _refuse_few(people)
    crops = Crops(around, usable, held=Kind(fit.inverter).needs_torch)
    address = layout.join(spec.out, _CHECKPOINT)
    before = unpacked(address, store.read(address)) if store.exists(address) else None

    def keep(state: State) -> None:
        store.write(address, packed(state))

    with threadpool_limits(1):
        state, curve = learnt(fit, spec.packs[0], crops, rows[usable], owners, before, keep)
    store.write(layout.join(spec.out, INVERTER_FILE), packed(state))
    facts = _facts(around, people, len(usable), curve)
    store.write(layout.join(spec.out, _FACTS), json.dumps(facts, indent=1).encode())
    store.delete([address])
    return 0


def _refuse_few(people: int) -> None:
    if people < LEAST_TRAINED:
        raise SourceError(
            f"photos of {people:,} people can be used: an inverter needs {LEAST_TRAINED} or more; "
            "the others show no face that is found"
        )


def _facts(around: Surroundings, people: int, usable: int, curve: list[Point]) -> dict[str, Any]:
    failed = [(around.photos[at].name, reason, text) for at, reason, text in around.failures()]
    return {"people": people, "photos": usable, "failures": failed, "curve": curve}


def _result(spec: Spec, store: Store) -> FitResult:
    told: dict[str, Any] = json.loads(store.read(layout.join(spec.out, _FACTS)))
    told |= {name: tuple(map(tuple, told[name])) for name in ("failures", "curve")}
    fit = _fit(spec)
    return FitResult(spec.out, fit.inverter, fit.model, **told)


@contextmanager
def opened(place: Workplace, checked: Checked) -> Iterator[Engine]:
    """What does the work: this process, or Ray."""
    with workplace.engine(replace(place, embedders=0), checked.settings) as engine:
        yield engine
