"""What work costs on one machine, as it was measured: figures that estimates are made of."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from ironmask.errors import SourceError
from pipelines.ports import Store
from pipelines.spec.template_job import TemplateJob

FORMAT: Final = "ironmask-figures/1"


@dataclass(frozen=True)
class Cost:
    """Of one thing done by one worker. cpu: seconds of a processor. wall: seconds by the clock."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Gpu:
    """Photos through a GPU. rate: photos a second that one of them embeds. cpu: seconds of a
    processor that a photo takes beside it, to be read, decoded and aligned.
    """

    rate: float
    cpu: float


@dataclass(frozen=True)
class Bytes:
    """What is stored. template: of a subject, its part of the files included. rest: of an input, in
    outcomes, logs and the plan.
    """

    template: float
    rest: float


# Flat, since each field is a figure of its own.
@dataclass(frozen=True)
class Figures:
    """Costs on a machine, for jobs of one kind of settings.

    machine: in words. settings: those that the figures hold for. photo: from its bytes to an
    embedding; None where none was measured. template: of a subject, from its embeddings to a row in
    a file that is written, its part of reading and of what is done once a shard included. shard: of
    the driving process for each, commits included. start: from the command to the first shard, by
    the clock. worker: CPU seconds of a worker before its first shard. end: from the last shard to
    the end, by the clock. gpu: None where there was none.
    """

    machine: str
    settings: dict[str, Any]
    template: Cost
    shard: Cost
    start: float
    worker: float
    end: float
    stored: Bytes
    photo: Cost | None = None
    gpu: Gpu | None = None

    def as_json(self) -> str:
        """The figures as a file that `read` takes."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2)


_PARTS: Final[dict[str, Any]] = {
    "template": Cost, "shard": Cost, "photo": Cost, "stored": Bytes, "gpu": Gpu,
}  # fmt: skip


def settings_of(job: TemplateJob) -> dict[str, Any]:
    """The settings of a job that figures depend on."""
    params = job.params
    found: dict[str, Any] = {
        "n": params.n,
        "code_width": params.code_width,
        "alpha": params.alpha,
        "tolerance": params.tolerance,
        "structure": str(params.structure),
        "encoding": job.encoding,
        "vault": job.vault,
    }
    return found


def read(place: str, store: Store) -> Figures:
    """The figures of a file. Raises `SourceError` for one that is none."""
    try:
        found = json.loads(store.read(place, 1 << 20))
        if found.pop("format", None) != FORMAT:
            raise ValueError("its format is not " + FORMAT)
        parts = {name: _part(name, found.pop(name)) for name in _PARTS if found.get(name)}
        known = {own.name for own in fields(Figures)}
        made = Figures(**{k: v for k, v in found.items() if k in known and v is not None}, **parts)
    except (FileNotFoundError, IsADirectoryError):
        raise SourceError(f"{place}: there is no such file of figures") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise SourceError(
            f"{place} holds no figures ({error}): make them with `plan-capacity --save`"
        ) from None
    return _sane(made, place)


def _part(name: str, value: dict[str, Any]) -> Any:
    return _PARTS[name](**{key: float(one) for key, one in value.items()})


def _sane(made: Figures, place: str) -> Figures:
    numbers = [made.start, made.worker, made.end, *_numbers(made)]
    if not all(isinstance(one, int | float) and 0 <= one < float("inf") for one in numbers):
        raise SourceError(f"{place} holds figures that are no times and no sizes")
    return made


def _numbers(made: Figures) -> list[float]:
    parts = [getattr(made, name) for name in _PARTS]
    return [value for part in parts if part for value in vars(part).values()]
