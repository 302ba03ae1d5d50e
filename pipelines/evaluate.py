"""An evaluation from request to results: prepared, run block by block, resumed where it stopped."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Protocol

from infra.ray_cluster import cluster, cluster_size
from infra.settings import Settings, StorageSettings
from infra.settings import load as load_settings
from infra.storage import is_inside, normalise
from ironmask.centring import Centring
from ironmask.errors import MismatchError, ParameterError, SourceError
from ironmask.helper import DEFAULT_ENCODING, encoding
from ironmask.params import Params
from pipelines import layout, wiring
from pipelines.evaluation import blocks, faces, job
from pipelines.evaluation.job import Evaluation
from pipelines.evaluation.protocol import comparisons
from pipelines.evaluation.results import Results, results
from pipelines.ports import Store
from pipelines.run_local import LocalBlocks

Progress = Callable[[int, int], None]
_FILE = "evaluation.json"
# Drawn or measured when an evaluation begins; a resume takes what it finds.
_SETTLED = ("seed", "floor", "block")


@dataclass(frozen=True)
class Request:
    """An evaluation as a user asks for it. exclude: a file with a name a line. seed: hex."""

    source: str
    out: str
    protocol: str = "all"
    alphas: tuple[int, ...] = (12, 16, 20)
    tolerance: int = 4
    encodings: tuple[str, ...] = (DEFAULT_ENCODING,)
    centring: str = Centring.MEAN.value
    exclude: str | None = None
    groups: tuple[str, ...] = ()
    seed: str | None = None
    executor: str = "ray"
    workers: int | None = None
    ray_address: str | None = None


def quiet(_done: int, _all: int) -> None:
    """No display."""


class Blocks(Protocol):
    """What runs blocks."""

    def run(self, evaluation: Evaluation, blocks: Iterable[int]) -> Iterator[int]: ...


@dataclass(frozen=True)
class Prepared:
    """An evaluation that is written down, and what it needs."""

    evaluation: Evaluation
    settings: Settings
    storage: StorageSettings
    store: Store


def prepare(request: Request) -> Prepared:
    """Check the request, and freeze the evaluation or find the one that it continues.

    Raises `ParameterError`, `SourceError` and `ProtocolError` for what cannot be evaluated,
    `MismatchError` where the output folder holds another evaluation.
    """
    settings, storage = load_settings()
    storage.export()
    # The store that blocks use here too, so that a plan is made once.
    store = wiring.shared_store(storage.public())
    source, out = normalise(request.source), normalise(request.out)
    if is_inside(source, out) or is_inside(out, source):
        raise ParameterError(f"SRC {source} and OUT {out} lie in one another: keep them apart")
    if request.executor not in ("ray", "local"):
        raise ParameterError(f"unknown executor {request.executor!r}; it is ray or local")
    asked = _asked(request, source, out, store)
    address = layout.join(out, _FILE)
    if store.exists(address):
        evaluation = _continued(asked, Evaluation.from_json(store.read(address)), request, out)
    else:
        evaluation = asked
        store.write(address, evaluation.to_json())
    return Prepared(evaluation, settings, storage, store)


def run(prepared: Prepared, executor: Blocks, progress: Progress) -> Results:
    """Run what is left, and add everything up. progress: blocks done and all."""
    evaluation, store = prepared.evaluation, prepared.store
    every = blocks.plan(evaluation, store).blocks(evaluation.block)
    done = blocks.done(evaluation, store)
    progress(len(done), len(every))
    for number in executor.run(evaluation, [b for b in every if b not in done]):
        done.add(number)
        progress(len(done), len(every))
    return results(evaluation, store)


@contextmanager
def opened(request: Request, prepared: Prepared) -> Iterator[Blocks]:
    """What runs the blocks: this process, or Ray."""
    public = prepared.storage.public()
    if request.executor == "local":
        yield LocalBlocks(public)
        return
    address = request.ray_address or prepared.settings.ray_address
    with cluster(address, request.workers or os.cpu_count() or 1) as check:
        from pipelines.run_ray import RayBlocks

        workers = request.workers or max(1, cluster_size().cpus)
        yield RayBlocks(public, workers=workers, check=check)


def _asked(request: Request, source: str, out: str, store: Store) -> Evaluation:
    for name in request.encodings:
        encoding(name)
    excluded = _lines(request.exclude, store)
    loaded = faces.load(source, store, excluded, request.groups)
    n, seed = loaded.vectors.shape[1], request.seed or secrets.token_hex(32)
    for alpha in request.alphas:
        Params(n, alpha, 0)
    protocol, listed = _protocol(request.protocol, store)
    comparisons(protocol, loaded.labels, listed)
    try:
        usable = len(bytes.fromhex(seed)) == 32
    except ValueError:
        usable = False
    if not usable:
        raise ParameterError("a seed has 64 hexadecimal digits")
    return Evaluation(
        source=source,
        version=store.version(source),
        out=out,
        protocol=protocol,
        listed=listed,
        alphas=tuple(sorted(set(request.alphas))),
        tolerance=request.tolerance,
        encodings=tuple(dict.fromkeys(request.encodings)),
        centring=Centring.named(request.centring),
        excluded=tuple(excluded),
        groups=request.groups,
        seed=seed,
        n=n,
        floor=job.floor(loaded, seed),
        block=job.block_size(len(loaded.vectors)),
    )


def _protocol(name: str, store: Store) -> tuple[str, str | None]:
    if name == "all" or name.startswith("first:"):
        return name, None
    address = normalise(name)
    if not store.exists(address):
        raise ParameterError(
            f"unknown protocol {name!r}: it is `all`, `first:K`, or a file of pairs, and there is "
            "no such file"
        )
    return address, _text(address, store)


def _lines(address: str | None, store: Store) -> list[str]:
    """Names in a file, a line each, less comments."""
    if address is None:
        return []
    lines = _text(normalise(address), store).splitlines()
    return sorted({text for line in lines if (text := line.partition("#")[0].strip())})


def _text(address: str, store: Store) -> str:
    try:
        return store.read(address).decode()
    except UnicodeDecodeError:
        raise SourceError(f"{address} is no UTF-8 text") from None


def _continued(asked: Evaluation, found: Evaluation, request: Request, out: str) -> Evaluation:
    """The evaluation that is there already, where it is the one that was asked for."""
    new, old = asdict(asked), asdict(found)
    settled = {name for name in _SETTLED if name != "seed" or request.seed is None}
    differing = [name for name in new if name not in settled and new[name] != old[name]]
    if differing:
        raise MismatchError(
            f"{out} holds another evaluation: {', '.join(differing)} differ; name another OUT, or "
            "remove it"
        )
    return found
