"""An evaluation of inverters from request to results: unit by unit, resumed where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from pipelines.inversion import units, work
from pipelines.inversion.fitting import embed
from pipelines.inversion.frozen import EVALUATION_FILE
from pipelines.inversion.request import Checked, InvertEvaluateRequest
from pipelines.inversion.results import InversionResults, results
from pipelines.run.course import Counting, uncounted
from pipelines.run.work import Engine
from pipelines.setup import workplace
from pipelines.table import layout


def begin(checked: Checked) -> None:
    """Freeze the evaluation, and make the key of what is kept while it lasts."""
    address = layout.join(checked.spec.out, EVALUATION_FILE)
    if not checked.store.exists(address):
        checked.store.write(address, checked.spec.what.to_json())
    work.kept(checked.spec).begin()


def run(checked: Checked, engine: Engine, progress: Counting = uncounted) -> InversionResults:
    """Embed the photos, run the units that are left, and add everything up.

    progress: batches of photos done and all, then units.
    """
    embed(checked, engine, progress)
    around = units.surroundings(checked.spec)
    every = range(len(units.units(len(around.drawn.tested))))
    done = units.done(checked.spec.out, checked.store)
    progress(len(done), len(every))
    left = [number for number in every if number not in done]
    for number in engine.run(units.unit_work(checked.spec), left):
        done.add(number)
        progress(len(done), len(every))
    return results(around)


def end(checked: Checked) -> None:
    """Remove what was kept meanwhile, and its key."""
    work.kept(checked.spec).end()


@contextmanager
def opened(request: InvertEvaluateRequest, checked: Checked) -> Iterator[Engine]:
    """What does the work: this process, or Ray."""
    with workplace.engine(replace(request.workplace, embedders=0), checked.settings) as engine:
        yield engine
