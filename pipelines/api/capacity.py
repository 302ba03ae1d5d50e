"""What a job would take, as a verb."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Unpack

from infra.store.addresses import normalise
from ironmask.errors import ParameterError
from pipelines.api.options import EnrolOptions, refuse_others
from pipelines.capacity import brief as briefly
from pipelines.capacity import figures as figures_files
from pipelines.capacity import measure, rehearsal
from pipelines.capacity import prices as prices_files
from pipelines.capacity.brief import Brief
from pipelines.capacity.estimate import Capacity, Load, estimate
from pipelines.capacity.figures import Figures
from pipelines.capacity.prices import Node, Prices
from pipelines.capacity.rehearsal import Clock, Script
from pipelines.capacity.sample import Sample
from pipelines.enrolment import hold
from pipelines.enrolment import request as enrolment_request
from pipelines.enrolment.request import CheckedEnrolment, EnrolRequest
from pipelines.run.begin import Forecast
from pipelines.run.course import follow
from pipelines.run.template_run import STEPS
from pipelines.setup.worker import WorkerSpec
from pipelines.setup.workplace import tried_engine
from pipelines.shard.context import is_stored
from pipelines.spec.options import assembled
from pipelines.spec.template_job import TemplateJob
from pipelines.spec.workplace import Workplace

_NO_MODEL: Final = "rehearsal"
_MOST_PHOTOS: Final = 512
_LEAST_UNITS: Final = 12


@dataclass(frozen=True)
class Planned:
    """A job that was looked at and not done. forecast: its counts. load: the same, with what
    planning took. sample: addresses of some of its inputs.
    """

    forecast: Forecast
    load: Load
    sample: tuple[str, ...]


def plan_capacity(
    source: str,
    dest: str,
    *,
    figures: str | None = None,
    save: str | None = None,
    prices: str | None = None,
    nodes: int | None = None,
    hours: float | None = None,
    **options: Unpack[EnrolOptions],
) -> Capacity:
    """Say what an enrolment would take: hours, nodes, storage, requests, cost. Nothing is written.

    figures: a file of what work costs; without one it is measured here, with random vectors in the
    place of people. save: where such a file goes. prices: a TOML or JSON file of kinds of nodes and
    what they and a store cost; without one nodes are like this machine. nodes: of each kind; hours:
    instead, how many end within. options: those of `enroll`.

    Raises `ParameterError` for nodes and hours together, or hours that no number of nodes keeps to,
    `SourceError` for a file that holds no figures or prices, and what `enroll` raises.

    >>> plan_capacity("photos/", "table/", model="buffalo_sc").stored  # doctest: +SKIP
    """
    refuse_others(options, EnrolOptions)
    if nodes is not None and hours is not None:
        raise ParameterError("nodes and hours: give one of them, and the other is the answer")
    request = assembled(EnrolRequest, {"source": source, "dest": dest, **options})
    prepared = enrolment_request.prepare(request)
    store = prepared.store
    known = prices_files.read(normalise(prices), store) if prices else _this_machine(request)
    found = figures_files.read(normalise(figures), store) if figures else None
    planned = plan(request, prepared)
    if found is None:
        found = measured(request, prepared, planned)
    if save:
        store.write(normalise(save), found.as_json().encode())
    counts = (nodes,) if nodes is not None else (1, 10, 100)
    return estimate(planned.load, found, known, counts=counts, hours=hours)


def plan(request: EnrolRequest, prepared: CheckedEnrolment) -> Planned:
    """Plan a job without writing anything, and keep what that took."""
    sample = Sample(_MOST_PHOTOS)
    wall, cpu = time.monotonic(), time.process_time()
    forecast = hold.foresee(request, prepared, sample.look)
    load = Load(
        forecast.inputs,
        forecast.todo,
        forecast.subjects,
        forecast.shards,
        photos=not is_stored(prepared.job),
        planning=time.monotonic() - wall,
        planning_cpu=time.process_time() - cpu,
    )
    return Planned(forecast, load, sample.addresses)


def brief(request: EnrolRequest, prepared: CheckedEnrolment, planned: Planned) -> Brief:
    """The short form of what a job would take, measured in a second or two."""
    job, load = prepared.job, planned.load
    photo = None
    if load.photos and load.todo:
        photo = briefly.photo_seconds(job, prepared.pack, prepared.storage, planned.sample)
    workers = workers_of(request.workplace)
    return briefly.brief(job, load, planned.forecast.template_bytes, workers, photo)


def measured(request: EnrolRequest, prepared: CheckedEnrolment, planned: Planned) -> Figures:
    """What the work of a job costs here: a rehearsal, and photos of the source where it has some.

    Raises `ParameterError` where there is nothing to do.
    """
    job = prepared.job
    if not planned.load.todo:
        raise ParameterError("nothing is left to do: every input is settled already")
    place = replace(request.workplace, ray_address=None, embedders=0)
    script = Script.of(job, planned.load, workers_of(place))
    with tempfile.TemporaryDirectory(prefix="ironmask-rehearsal-") as folder:
        done = rehearsal.rehearse(
            script, Path(folder) / "table", _enrolling(job, script, place, Path(folder))
        )
    photographed = None
    if planned.load.photos and planned.sample:
        photographed = _photographed(prepared, place, planned.sample)
    return rehearsal.figures(job, done, photographed, measure.PHOTOS_A_UNIT)


def workers_of(place: Workplace) -> int:
    """How many shards are worked on at a time here."""
    return 1 if place.executor == "local" else place.workers or os.cpu_count() or 1


def _enrolling(
    job: TemplateJob, script: Script, place: Workplace, folder: Path
) -> Callable[[Clock, Callable[[Any], Any]], None]:
    """Enrols the people of a script, who do not exist, with the settings of a job."""
    params = job.params
    flat = {
        "source": str(folder / "random.parquet"),
        "dest": str(folder / "table"),
        "keys": str(folder / "keys.json"),
        "model": _NO_MODEL,
        "alpha": params.alpha,
        "tolerance": params.tolerance,
        "code_width": params.code_width,
        "structure": str(params.structure),
        "encoding": job.encoding,
        "centring": str(job.centring),
        "shard_size": script.shard_size,
        "agreement": 0.0,
        "vault": job.vault,
        "plaintext_helpers": not job.sealed,
        "workplace": place,
    }

    def enrol(clock: Clock, changed: Callable[[Any], Any]) -> None:
        script.write(folder / "random.parquet", params.n)
        asked = assembled(EnrolRequest, flat)
        clock.begun = time.monotonic()
        prepared = enrolment_request.prepare(asked)
        # The folder is this machine's alone, and the port is for the job.
        own = prepared.settings.model_copy(update={"ray_address": None, "metrics_port": None})
        with hold.opened(asked, replace(prepared, settings=own)) as run:
            follow(STEPS, replace(run, executor=changed(run.executor)), clock.take)

    return enrol


def _photographed(
    prepared: CheckedEnrolment, place: Workplace, sample: tuple[str, ...]
) -> measure.Steady:
    """What photos of the source take on this machine's processors."""
    job = replace(prepared.job, faces=replace(prepared.job.faces, provider="cpu"))
    spec = WorkerSpec(prepared.storage.public(), Path(), "", prepared.pack)
    own = prepared.settings.model_copy(update={"ray_address": None})
    prepared.storage.export()
    units = max(_LEAST_UNITS, rehearsal.ROUNDS * workers_of(place))
    begun = time.monotonic()
    with tried_engine(place, own, prepared.pack, job.faces) as engine:
        return measure.steady(measure.photos(engine, spec, job, sample, units), begun)


def _this_machine(request: EnrolRequest) -> Prices:
    """Nodes like this machine, whose price is not known."""
    return Prices((Node("like this machine", workers_of(request.workplace)),))
