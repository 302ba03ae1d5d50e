"""From what there is to do and what it costs: hours, nodes, bytes, requests, money."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from ironmask.errors import ParameterError
from pipelines.capacity.figures import Figures
from pipelines.capacity.prices import Node, Prices
from pipelines.run.commit import MOST_BYTES, MOST_SHARDS
from pipelines.run.steps import full_wave

_GIB: Final = 1 << 30
_MOST_NODES: Final = 1 << 20
_LISTED: Final = 1000
# Of a worker for each shard, and of the driving process for each wave: see `requests`.
_READS_A_SHARD: Final = 2
_WRITES_A_SHARD: Final = 1
_READS_A_WAVE: Final = 16
_WRITES_A_WAVE: Final = 8
# Of an outcome on its way into a file, in memory.
_OUTCOME_BYTES: Final = 280


@dataclass(frozen=True)
class Load:
    """What there is to do. inputs: of the source. todo: those of them that need work. subjects: who
    would get a template. photos: whether inputs are images. planning: seconds by the clock that
    planning takes, as it has taken here; planning_cpu: of a processor.
    """

    inputs: int
    todo: int
    subjects: int
    shards: int
    photos: bool
    planning: float = 0.0
    planning_cpu: float = 0.0


@dataclass(frozen=True)
class Requests:
    """Of a store that counts them. writes: listings too."""

    reads: int
    writes: int


@dataclass(frozen=True)
class Outlook:
    """A job on some nodes of one kind. workers: on all of them. bound: what its time follows from:
    workers, GPUs or the driving process. price: of the nodes; None where it is not known.
    """

    node: Node
    count: int
    workers: int
    hours: float
    bound: str
    price: float | None


@dataclass(frozen=True)
class Capacity:
    """What a job takes. cpu_seconds: of all processes' processors, on one worker and one driver.
    stored: bytes. month, requests_price: of the store, where prices are known. left_out: kinds of
    nodes that there are no figures for.
    """

    load: Load
    cpu_seconds: float
    stored: int
    requests: Requests
    outlooks: tuple[Outlook, ...]
    currency: str = ""
    month: float | None = None
    requests_price: float | None = None
    left_out: tuple[str, ...] = ()


def estimate(
    load: Load,
    figures: Figures,
    prices: Prices,
    *,
    counts: Sequence[int] = (1, 10, 100),
    hours: float | None = None,
) -> Capacity:
    """Say what a job takes on nodes of each kind.

    counts: of nodes. hours: instead, how many nodes end within. Raises `ParameterError` where
    photos are to be estimated and no photo was measured, or where no number of nodes is enough.
    """
    if load.photos and load.todo and figures.photo is None:
        raise ParameterError(
            "the figures hold none of photos: measure some of these with the same model"
        )
    known = [node for node in prices.nodes if not node.gpus or figures.gpu or not load.photos]
    found: list[Outlook] = []
    for node in known:
        wanted = counts if hours is None else (_enough(load, figures, node, hours),)
        found += [_on(load, figures, node, count) for count in wanted]
    stored = int(load.subjects * figures.stored.template + load.inputs * figures.stored.rest)
    asked = requests(load)
    costs = (asked.reads, prices.reads), (asked.writes, prices.writes)
    priced = [count / 1000 * each for count, each in costs if each is not None]
    return Capacity(
        load,
        cpu_seconds(load, figures, 1),
        stored,
        asked,
        tuple(found),
        prices.currency,
        stored / _GIB * prices.gib_month if prices.gib_month is not None else None,
        sum(priced) if priced else None,
        tuple(node.name for node in prices.nodes if node not in known),
    )


def cpu_seconds(load: Load, figures: Figures, workers: int) -> float:
    """Seconds of processors of all workers and of the driving process, their starts included."""
    photo = figures.photo.cpu if figures.photo and load.photos else 0.0
    work = load.todo * photo + load.subjects * figures.template.cpu
    driver = load.planning_cpu + load.shards * figures.shard.cpu
    return work + driver + workers * figures.worker


def seconds(load: Load, figures: Figures, node: Node, count: int) -> tuple[float, str]:
    """Seconds by the clock on some nodes of one kind, and what they follow from.

    Workers end in rounds, a shard each; the driving process commits meanwhile.
    """
    bounds = {
        "workers": _rounds(load.shards, count * node.cpus) * _of_shard(load, figures, node),
        "the driving process": load.shards * figures.shard.wall,
    }
    if node.gpus and load.photos and figures.gpu:
        bounds["GPUs"] = load.todo / (figures.gpu.rate * node.gpus * count)
    bound = max(bounds, key=lambda name: bounds[name])
    rest = figures.start + load.planning + figures.end
    return rest + bounds[bound], bound


def _rounds(shards: int, workers: int) -> float:
    """How often all workers take a shard; the last round may be one of few."""
    return float(ceil(shards / workers)) if shards else 0.0


def _of_shard(load: Load, figures: Figures, node: Node) -> float:
    """Seconds by the clock that a worker takes for a shard of the usual size."""
    photo = figures.photo.wall if figures.photo and load.photos else 0.0
    if node.gpus and load.photos and figures.gpu:
        photo = figures.gpu.cpu
    work = load.todo * photo + load.subjects * figures.template.wall
    return work / max(load.shards, 1) / node.speed


def _on(load: Load, figures: Figures, node: Node, count: int) -> Outlook:
    taken, bound = seconds(load, figures, node, count)
    price = count * node.hour * taken / 3600 if node.hour is not None else None
    return Outlook(node, count, count * node.cpus, taken / 3600, bound, price)


def _enough(load: Load, figures: Figures, node: Node, hours: float) -> int:
    """The fewest nodes that end within some hours."""
    low, high = 0, 1
    while seconds(load, figures, node, high)[0] > 3600 * hours:
        low, high = high, 2 * high
        if high > _MOST_NODES:
            raise ParameterError(
                f"no number of {node.name} nodes ends within {hours:g} hours: to plan and to begin "
                "alone takes longer, or the driving process does"
            )
    while high - low > 1:
        middle = (low + high) // 2
        if seconds(load, figures, node, middle)[0] > 3600 * hours:
            low = middle
        else:
            high = middle
    return high


def _waves(shards: int) -> int:
    """How many full waves commit so many shards to a new table."""
    done = count = 0
    while done < shards:
        done, count = done + full_wave(done), count + 1
    return count


def requests(load: Load) -> Requests:
    """About how many requests a store gets: planning and working read each photo once."""
    photos = load.inputs + load.todo if load.photos else 0
    listings = ceil(load.inputs / _LISTED) if load.photos else 0
    waves = _waves(load.shards)
    reads = photos + load.shards * _READS_A_SHARD + waves * _READS_A_WAVE
    writes = listings + load.shards * _WRITES_A_SHARD + waves * _WRITES_A_WAVE
    return Requests(reads, writes + waves + _full_files(load))


def _full_files(load: Load) -> int:
    """How many files of outcomes end before their wave does."""
    return max(load.shards // MOST_SHARDS, load.inputs * _OUTCOME_BYTES // MOST_BYTES)
