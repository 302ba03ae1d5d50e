"""Compare templates with probes, by the recogniser alone and protected, in numbers that add up.

Every template is protected afresh for each setting, or opened again by an evaluator who holds its
embeddings. Each helper is compared as its encoding leaves it. Genuine comparisons are decoded one
by one. Impostor comparisons go through `ironmask.tiles`, which finds exactly those that agree in
enough places. The agreement of the others is counted on one template of each block. Blocks are
independent, and a block gives the same numbers wherever and whenever it is computed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from ironmask import codeword, helper, tiles
from ironmask.arrays import F32, F64, I32
from ironmask.errors import ParameterError
from ironmask.params import Params, Structure, structure_for
from ironmask.rotation import Sampler

Index = NDArray[np.intp]
# The width of the bins in which cosines are counted; float32 steps near 1 are 6e-8.
BIN: Final = 2.0**-14
BINS: Final = 2 * 2**14 + 1
_TEMPLATES: Final = 32
_NAMED: Final = re.compile(r"(?:N(\d+) (?:(real|quaternionic) )?)?alpha(\d+) (\S+) tolerance (\d+)")


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to protect. params.tolerance: the largest tolerance that is evaluated. only: those
    that are asked for; empty for all up to the largest.
    """

    params: Params
    encoding: str = helper.DEFAULT_ENCODING
    only: tuple[int, ...] = ()

    @property
    def tolerances(self) -> tuple[int, ...]:
        """The tolerances that are evaluated, increasing."""
        return self.only or tuple(range(self.params.tolerance + 1))

    @property
    def name(self) -> str:
        """For example `N1024 alpha16 int8`, or `N1024 real alpha16 int8`."""
        params = self.params
        usual = structure_for(params.n, params.code_width)
        structure = "" if params.structure is usual else f" {params.structure}"
        return f"N{params.code_width}{structure} alpha{params.alpha} {self.encoding}"

    @classmethod
    def named(cls, text: str, n: int) -> Self | None:
        """The setting of a name and its tolerance, as `N1024 alpha16 int8 tolerance 2`, for
        embeddings of width n; None where it is none.

        Without a width it is square and real: a release that knew no other ones named it so.
        """
        found = _NAMED.fullmatch(text)
        if found is None:
            return None
        width, structure, alpha, encoding, tolerance = found.groups()
        code_width = int(width) if width else n
        usual = structure_for(n, code_width) if width else Structure.REAL
        with suppress(ParameterError):
            named = Structure(structure) if structure else usual
            params = Params(n, int(alpha), int(tolerance), code_width, named)
            return cls(params, helper.encoding(encoding).name)
        return None


@dataclass(frozen=True, slots=True)
class Block:
    """Some templates, and what each is compared with.

    templates: (t, n) float64 unit vectors, as the recogniser alone compares them. probes: (m, n)
    float32 unit vectors. genuine: for each template the probes of its own subject. impostor: (t, m)
    bool, what counts as an impostor comparison.
    """

    templates: F64 = field(repr=False)
    probes: F32 = field(repr=False)
    genuine: Sequence[Index] = field(repr=False)
    impostor: NDArray[np.bool_] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Matches:
    """Comparisons by template and probe, (k,) each, with all that is known of them.

    cosine: (k,) float32. agreement: (settings, k) int16, places that agree; -1 where no tolerance
    of the setting accepts an impostor. tolerances: (settings, k) int32, bit e where e accepts.
    """

    template: Index
    probe: Index
    cosine: F32
    agreement: NDArray[np.int16]
    tolerances: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Compared:
    """The result of one block.

    genuine: every genuine comparison. impostor: those accepted at the largest tolerance of a
    setting, and those with a cosine from `floor` on. cosines: (BINS,) impostors by cosine.
    agreements: (settings, largest alpha + 1) impostors of the first template by agreement.
    """

    genuine: Matches
    impostor: Matches
    cosines: NDArray[np.int64]
    agreements: NDArray[np.int64]


Issue = Callable[[int, int], tuple[bytes, I32]]
"""Gives the encoded helper and codeword, (alpha,) int32, of a setting and template, by index."""


@contextmanager
def fresh(templates: F64, settings: Sequence[Setting], rng: np.random.Generator) -> Iterator[Issue]:
    """Issues of templates, (t, n), made when they are asked for, in memory that is wiped."""
    samplers: dict[tuple[int, Structure], Sampler] = {}

    def issue(number: int, place: int) -> tuple[bytes, I32]:
        params, name = settings[number].params, settings[number].encoding
        kind = (params.code_width, params.structure)
        sampler = samplers.get(kind) or samplers.setdefault(kind, Sampler.of(params))
        code = codeword.sample(rng, params.code_width, params.alpha)
        (target,) = codeword.dense(code, params.code_width)
        drawn = sampler.carrying(rng, templates[place], target)
        return helper.encode(drawn[None], params, name, overwrite=True)[0], code[0]

    try:
        yield issue
    finally:
        for sampler in samplers.values():
            sampler.wipe()


def compare(block: Block, settings: Sequence[Setting], issue: Issue, floor: float) -> Compared:
    """Compare one block under all settings.

    issue: called once for each setting and template, in this order.
    """
    if not settings:
        raise ParameterError("there is no setting to compare under")
    cosine = block.templates.astype(np.float32) @ block.probes.T
    template, probe = _genuine_pairs(block)
    near = np.nonzero(block.impostor & (cosine >= floor))
    seen = [
        _protected(block, setting, partial(issue, number))
        for number, setting in enumerate(settings)
    ]
    width = 1 + max(setting.params.alpha for setting in settings)
    return Compared(
        genuine=Matches(
            template,
            probe,
            cosine[template, probe],
            np.stack([one.agreement for one in seen]).astype(np.int16),
            np.stack([one.tolerances for one in seen]).astype(np.int32),
        ),
        impostor=_merged(near, [one.impostor for one in seen], cosine),
        cosines=np.bincount(cosine_bin(cosine[block.impostor]), minlength=BINS),
        agreements=np.stack([np.bincount(one.sample, minlength=width) for one in seen]),
    )


def cosine_bin(cosine: F32) -> Index:
    """The bin of each cosine: floor(cosine / BIN), where -1 is in the first bin."""
    place = np.floor(cosine.astype(np.float64) / BIN).astype(np.intp) + (BINS - 1) // 2
    return np.clip(place, 0, BINS - 1)


def thresholds() -> F64:
    """The bins' lower edges: (BINS,)."""
    places = np.arange(BINS, dtype=np.float64) - (BINS - 1) // 2
    return places * BIN


def _genuine_pairs(block: Block) -> tuple[Index, Index]:
    counts = np.array([len(own) for own in block.genuine], dtype=np.intp)
    template = np.repeat(np.arange(len(counts)), counts)
    probe = np.concatenate([np.empty(0, dtype=np.intp), *block.genuine])
    return template, probe


@dataclass(frozen=True, slots=True)
class _Seen:
    """A block under one setting: genuine comparisons, accepted impostors, a sample's agreement."""

    agreement: Index
    tolerances: Index
    impostor: tiles.Accepted
    sample: Index


def _protected(block: Block, setting: Setting, issue: Callable[[int], tuple[bytes, I32]]) -> _Seen:
    params = setting.params
    own, parts, sample = [], [_NONE], np.empty(0, dtype=np.intp)
    for start in range(0, len(block.templates), _TEMPLATES):
        encoded, screens = [], []
        for place in range(start, min(start + _TEMPLATES, len(block.templates))):
            stored, code = issue(place)
            encoded.append(stored)
            p = _decoded(stored, setting)
            screens.append(tiles.screen(p, code))
            own.append(np.stack(tiles.judge(p, code, block.probes[block.genuine[place]], params)))
            if place == 0:
                others = block.probes[block.impostor[0]]
                sample = codeword.agreement(codeword.decode(others @ p.T, params.alpha), code[None])
        parts.append(_impostors(block, start, setting, screens, encoded))
    agreement, tolerances = np.concatenate([_NONE[:2], *own], axis=1)
    return _Seen(agreement, tolerances, tiles.Accepted(*np.concatenate(parts, axis=1)), sample)


_NONE: Final = np.empty((4, 0), dtype=np.intp)


def _impostors(
    block: Block,
    start: int,
    setting: Setting,
    screens: Sequence[tiles.Screen],
    encoded: Sequence[bytes],
) -> Index:
    """Accepted impostors of a few templates from `start` on, as the fields of `Accepted`."""
    # Skip probes that no template of these is compared with.
    some = block.impostor[start : start + len(screens)]
    wanted = np.flatnonzero(some.any(axis=0))
    hits = tiles.accepted(
        screens,
        lambda place: _decoded(encoded[place], setting),
        block.probes[wanted],
        setting.params,
    )
    found = [start + hits.template, wanted[hits.probe], hits.agreement, hits.tolerances]
    return np.stack(found)[:, some[hits.template, wanted[hits.probe]]]


def _decoded(encoded: bytes, setting: Setting) -> F32:
    p: F32 = helper.decode([encoded], setting.params, setting.encoding)[0]
    return p


def _merged(near: tuple[Index, ...], found: Sequence[tiles.Accepted], cosine: F32) -> Matches:
    """One row for each impostor comparison that a setting or the cosine selects."""
    width = cosine.shape[1]
    keys = [near[0] * width + near[1], *(hits.template * width + hits.probe for hits in found)]
    every = np.unique(np.concatenate(keys))
    agreement = np.full((len(found), len(every)), -1, dtype=np.int16)
    tolerances = np.zeros((len(found), len(every)), dtype=np.int32)
    for number, (key, hits) in enumerate(zip(keys[1:], found, strict=True)):
        at = np.searchsorted(every, key)
        agreement[number, at], tolerances[number, at] = hits.agreement, hits.tolerances
    template, probe = np.divmod(every, width)
    return Matches(template, probe, cosine[template, probe], agreement, tolerances)
