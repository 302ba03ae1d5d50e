"""The definition of an evaluation: frozen before its first block, the same in every process."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any, Final

import numpy as np

from ironmask.centring import Centring
from ironmask.comparisons import Setting
from ironmask.errors import ParameterError
from ironmask.params import (
    FIRST_VERSION,
    PRESETS,
    SCHEME_VERSION,
    Params,
    Structure,
    preset,
    structure_for,
)
from ironmask.random import ReplayedGenerator
from pipelines.evaluation.protocol import is_single
from pipelines.plan.labelled_faces import Faces

READING: Final = 2
"""Raise this when the same source or list gives other comparisons than before."""

_BLOCK: Final = 256
# The most cosines of a block that are held at once.
_CELLS: Final = 1 << 26
# The share of impostors whose cosine is kept one by one. It is somewhat more than the highest FMR
# with an interval, and enough to see how many errors come together.
_KEPT_SHARE: Final = 2e-3
_LEAST_KEPT: Final = 1000
_SAMPLE: Final = 2000


@dataclass(frozen=True)
class Case:
    """Templates of one kind. protocol: the comparisons. centring: how faces become a template."""

    protocol: str
    centring: Centring | None

    @property
    def name(self) -> str:
        """For example `first:5, mean`."""
        return f"{self.protocol}, {self.centring}" if self.centring else self.protocol


@dataclass(frozen=True)
class Issued:
    """Templates of a table, as they were when the evaluation began.

    dest, table_id, generation: their place. keys: path of the keyset file. params: of the
    templates. templates: their number. digest: SHA-256 in hex over their identities and inputs.
    """

    dest: str
    table_id: str
    generation: int
    keys: str
    params: Params
    templates: int
    digest: str


# Flat, since its file is compared field by field with what is asked for.
@dataclass(frozen=True)
class Evaluation:
    """source: Parquet of embeddings. version: the store's description of it. out: for results.

    protocols: `all`, `first:K`, `first:K/M`, or the address of a file, whose text is `listed`.
    centrings, encodings, and alphas or named: every combination is compared. issued: set where the
    templates are those of a table. excluded: names left out. groups: columns of demographic labels.
    model: of the embeddings, as far as it is known. seed: hex; every block's randomness comes from
    it, so the same evaluation gives the same numbers. No template made from it leaves the process.
    floor: impostors are kept from this cosine on. block: templates in one unit of work. reading:
    how sources and lists are read, `READING`; blocks of another one count other comparisons.
    structure: of the helpers of `alphas`. named: settings by `setting_name`.
    """

    source: str
    version: str
    out: str
    protocols: tuple[str, ...]
    listed: str | None
    issued: Issued | None
    alphas: tuple[int, ...]
    tolerance: int
    encodings: tuple[str, ...]
    centrings: tuple[Centring, ...]
    excluded: tuple[str, ...]
    groups: tuple[str, ...]
    model: str
    seed: str = field(repr=False)
    n: int
    floor: float
    block: int
    reading: int = 1
    structure: str = Structure.REAL.value
    named: tuple[str, ...] = ()

    @property
    def settings(self) -> list[Setting]:
        """All settings, in the order in which a block uses them."""
        if self.issued:
            params = self.issued.params
            return [Setting(params, self.encodings[0], (params.tolerance,))]
        every = [(self._up_to(alpha), ()) for alpha in self.alphas] or _together(
            named_setting(name, self.n) for name in self.named
        )
        return [Setting(params, name, only) for params, only in every for name in self.encodings]

    def _up_to(self, alpha: int) -> Params:
        largest = largest_tolerance(self.n, alpha, self.tolerance)
        return Params(self.n, alpha, largest, structure=Structure(self.structure))

    @property
    def cases(self) -> list[Case]:
        """All cases, in the order of their blocks."""
        return [
            Case(protocol, centring)
            for protocol in self.protocols
            for centring in ((None,) if is_single(protocol, self.listed) else self.centrings)
        ]

    def to_json(self) -> bytes:
        """The stored form, beside its results."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Evaluation:
        """Undo `to_json`."""
        given: dict[str, Any] = json.loads(data)
        lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
        issued = given["issued"]
        if issued:
            issued = Issued(**{**issued, "params": Params.recorded(issued["params"])})
        centrings = tuple(map(Centring, given["centrings"]))
        return cls(**{**given, **lists, "issued": issued, "centrings": centrings})

    def generator(self, purpose: str) -> ReplayedGenerator:
        """The generator for one purpose. It is always the same."""
        return generator(self.seed, purpose)


def plain(evaluation: Evaluation) -> dict[str, Any]:
    """The fields of an evaluation as plain values, of one that releases of before knew as then.

    Fields that came later are left out where they say what was always so.
    """
    found = asdict(evaluation)
    later = {"structure": Structure.REAL.value, "named": ()}
    if evaluation.issued and evaluation.issued.params.version == FIRST_VERSION:
        for name in ("code_width", "structure", "version"):
            del found["issued"]["params"][name]
    return {name: v for name, v in found.items() if name not in later or later[name] != v}


def named_setting(text: str, n: int) -> Params:
    """The parameters of a preset, or of `N,ALPHA,TOLERANCE` or `N,ALPHA,TOLERANCE,STRUCTURE`.

    Raises `ParameterError` for anything else.
    """
    if text in PRESETS:
        return preset(text, n)
    numbers, structure = text.split(",")[:3], text.split(",")[3:]
    if len(numbers) < 3 or len(structure) > 1 or not all(map(str.isdecimal, numbers)):
        raise ParameterError(
            f"{text!r} names no setting: say N,ALPHA,TOLERANCE like 1024,16,3, with a structure "
            f"behind it if need be, or a preset: {', '.join(PRESETS)}"
        )
    code_width, alpha, tolerance = map(int, numbers)
    if not code_width:
        raise ParameterError(f"setting {text!r} has a code of width 0; the embedding's is {n}")
    fields = {"n": n, "alpha": alpha, "tolerance": tolerance, "code_width": code_width}
    usual = structure_for(n, code_width or n)
    return Params.recorded(
        {**fields, "structure": next(iter(structure), usual), "version": SCHEME_VERSION}
    )


def setting_name(params: Params) -> str:
    """The name that `named_setting` reads."""
    return f"{params.code_width},{params.alpha},{params.tolerance},{params.structure}"


def _together(wanted: Iterable[Params]) -> list[tuple[Params, tuple[int, ...]]]:
    """Parameters that differ in their tolerance alone as one, with all the tolerances."""
    found: dict[Params, set[int]] = {}
    for params in wanted:
        found.setdefault(replace(params, tolerance=0), set()).add(params.tolerance)
    return [
        (replace(params, tolerance=max(some)), tuple(sorted(some)))
        for params, some in found.items()
    ]


def largest_tolerance(n: int, alpha: int, wanted: int) -> int:
    """The largest tolerance, up to the wanted one, whose digests a row may hold.

    Half of the places agree by chance anyway, so more than half must agree.
    """
    if wanted < 0:
        raise ParameterError(f"tolerance {wanted} must be at least 0")
    for tolerance in range(min(wanted, (alpha - 1) // 2), 0, -1):
        try:
            return Params(n, alpha, tolerance).tolerance
        except ParameterError:
            continue
    return 0


def block_size(probes: int) -> int:
    """Templates in one unit of work."""
    return int(np.clip(_CELLS // max(probes, 1), 16, _BLOCK))


def generator(seed: str, purpose: str) -> ReplayedGenerator:
    """The generator of a seed for one purpose."""
    return ReplayedGenerator(sha256(f"ironmask evaluation\0{purpose}\0{seed}".encode()).digest())


def floor(faces: Faces, seed: str) -> float:
    """The cosine that about two in a thousand impostors exceed, from a sample of the faces.

    With few faces it is the cosine that a thousand impostors exceed, all against all. It is rounded
    down, so that it is the same on every machine.
    """
    count = len(faces.vectors)
    share = min(max(_KEPT_SHARE, 2 * _LEAST_KEPT / count**2), 1.0)
    some = generator(seed, "floor").permutation(count)[:_SAMPLE]
    cosine = faces.vectors[some] @ faces.vectors[some].T
    other = faces.labels.subject[some][:, None] != faces.labels.subject[some]
    if not other.any():
        return 1.0
    return float(np.floor(100 * np.quantile(cosine[other], 1 - share)) / 100)
