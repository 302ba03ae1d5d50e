"""An evaluation of inverters from request to results: unit by unit, resumed where it stopped."""

from __future__ import annotations

from pipelines.inversion import units, work
from pipelines.inversion.fitting import begin, embed
from pipelines.inversion.request import Checked
from pipelines.inversion.results import InversionResults, results
from pipelines.run.course import Counting, finish, uncounted
from pipelines.run.work import Engine


def run(checked: Checked, engine: Engine, progress: Counting = uncounted) -> InversionResults:
    """Freeze the evaluation, embed the photos, run the units that are left, and add everything up.

    progress: batches of photos done and all, then units.
    """
    begin(checked)
    embed(checked, engine, progress)
    around = units.surroundings(checked.spec)
    every = range(len(units.units(len(around.drawn.tested))))
    done = units.done(checked.spec.out, checked.store)
    finish(engine, units.unit_work(checked.spec), every, done, progress)
    return results(around)


def end(checked: Checked) -> None:
    """Remove what was kept meanwhile, and its key."""
    work.kept(checked.spec).end()
