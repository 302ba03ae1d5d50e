"""An evaluation from request to results: prepared, run block by block, resumed where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.keys.key_file import KeyFile
from infra.machine import machine
from infra.settings import Settings, StorageSettings
from infra.settings import load as load_settings
from infra.store.addresses import is_inside, normalise
from ironmask.errors import MismatchError, ParameterError
from pipelines.evaluation import blocks, cost
from pipelines.evaluation.blocks import Sources
from pipelines.evaluation.cost import Spent
from pipelines.evaluation.frozen import READING, Evaluation
from pipelines.evaluation.rates import metrics, run_id
from pipelines.evaluation.request import EvaluateRequest, asked, traits_of
from pipelines.evaluation.results import Results, results
from pipelines.evaluation.work import block_work
from pipelines.evaluation.work import sources as sources_of
from pipelines.run.course import Counting, finish, uncounted
from pipelines.run.work import Engine
from pipelines.setup import ports, workplace
from pipelines.setup.metrics import add_metrics
from pipelines.table import layout

_FILE = "evaluation.json"
# Drawn or measured when an evaluation begins; a resume takes what it finds.
_SETTLED = ("seed", "floor", "block", "structure")


@dataclass(frozen=True)
class CheckedEvaluation:
    """An evaluation that has been checked, and what it needs; nothing is written yet."""

    evaluation: Evaluation
    settings: Settings
    storage: StorageSettings
    sources: Sources


def prepare(request: EvaluateRequest) -> CheckedEvaluation:
    """Check the request, and find the evaluation that it continues, if there is one.

    Raises `ParameterError`, `SourceError` and `ProtocolError` for what cannot be evaluated,
    `MismatchError` where the output folder holds another evaluation.
    """
    settings, storage = load_settings()
    storage.export()
    source, out = normalise(request.source), normalise(request.out)
    if is_inside(source, out) or is_inside(out, source):
        raise ParameterError(f"SRC {source} and OUT {out} lie in one another: keep them apart")
    # The sources that blocks use here too, so that a plan is made once.
    public = storage.public()
    traits = traits_of(request, settings, storage) if request.table else None
    if traits and is_inside(out, traits.issued.dest):
        raise ParameterError(
            f"OUT {out} lies inside the table {traits.issued.dest}: keep them apart"
        )
    sources = sources_of(public, traits.issued if traits else None)
    wanted = asked(request, source, out, sources.store, settings, traits)
    address = layout.join(out, _FILE)
    if sources.store.exists(address):
        found = Evaluation.from_json(sources.store.read(address))
        evaluation = _continued(wanted, found, request, sources)
    else:
        evaluation = wanted
    blocks.plan(evaluation, sources)
    return CheckedEvaluation(evaluation, settings, storage, sources)


def measure(prepared: CheckedEvaluation) -> Spent:
    """What protection costs on this machine."""
    access = prepared.sources.access
    tables = access.tables if access else None
    return cost.measure(prepared.evaluation, tables, machine())


def write_rates(prepared: CheckedEvaluation, found: Results) -> None:
    """Write the rates into the `metrics` of the table that was evaluated, if one was; once."""
    access = prepared.sources.access
    if access:
        issued, store = access.issued, prepared.sources.store
        rows, tables = list(metrics(found)), ports.open_tables(issued.dest, prepared.storage)
        file = KeyFile.open(Path(issued.keys), issued.table_id)
        add_metrics(tables, store, file, issued.generation, rows, run_id(found))


def finished(
    out: str, settings: Settings, storage: StorageSettings
) -> tuple[Results, Spent] | None:
    """The evaluation that lies in a folder, where all of it is there, and its costs."""
    public = storage.public()
    store, address = ports.shared_store(public), layout.join(out, _FILE)
    if not store.exists(address):
        return None
    evaluation = Evaluation.from_json(store.read(address))
    sources = sources_of(public, evaluation.issued)
    if not _is_current(evaluation, sources):
        return None
    if blocks.done(evaluation, store) != set(blocks.plan(evaluation, sources).blocks):
        return None
    spent = measure(CheckedEvaluation(evaluation, settings, storage, sources))
    return results(evaluation, sources), spent


def run(prepared: CheckedEvaluation, engine: Engine, progress: Counting = uncounted) -> Results:
    """Freeze the evaluation, run what is left of it, and add everything up.

    progress: blocks done and all.
    """
    evaluation, sources = prepared.evaluation, prepared.sources
    address = layout.join(evaluation.out, _FILE)
    if not sources.store.exists(address):
        sources.store.write(address, evaluation.to_json())
    every = blocks.plan(evaluation, sources).blocks
    done = blocks.done(evaluation, sources.store)
    finish(engine, block_work(prepared.storage.public(), evaluation), every, done, progress)
    return results(evaluation, sources)


@contextmanager
def opened(request: EvaluateRequest, prepared: CheckedEvaluation) -> Iterator[Engine]:
    """What runs the blocks: this process, or Ray."""
    with workplace.engine(request.workplace, prepared.settings) as engine:
        yield engine


def _continued(
    asked: Evaluation, found: Evaluation, request: EvaluateRequest, sources: Sources
) -> Evaluation:
    """The evaluation that is there already, where it is the one that was asked for."""
    new, old, out = asdict(asked), asdict(found), asked.out
    settled = {name for name in _SETTLED if name != "seed" or request.seed is None}
    if _is_current(found, sources):
        settled.add("reading")
    differing = [name for name in new if name not in settled and new[name] != old[name]]
    if differing:
        raise MismatchError(
            f"{out} holds another evaluation: {', '.join(differing)} differ; name another OUT, or "
            "remove it"
        )
    return found


def _is_current(found: Evaluation, sources: Sources) -> bool:
    """Whether its blocks count what would be compared today.

    Releases of before read lists otherwise, and faces without a subject or one without a name.
    """
    if found.reading == READING:
        return True
    labels = blocks.plan(found, sources).faces.labels
    named = {labels.is_named(place) for place in range(len(labels.images))}
    return not (found.listed or found.excluded or labels.unlabelled or len(named) > 1)
