"""The definition of an audit: attacked rows and units of work, frozen before the first unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ironmask.arrays import F32
from ironmask.centring import Centring
from ironmask.params import Params, Structure

LINKED: Final = "largest entry of P2 P1'", "nearest codewords (the attack's)"
"""Linkage functions, by name."""

_COUNTS: Final = (2, 3, 5, 10)
_REPEATED: Final = 3
_ANGLES: Final = (0, 20, 30, 40, 50, 60, 90)
_PAIRS_A_BIN: Final = 2
_OBVIOUS: Final = 200
_SEEDED: Final = 2


class Kind(StrEnum):
    """The kinds of units."""

    LYING = "files as they lie"
    LYING_WIDTH = "files as they lie, by the code's width"
    ROW = "one row"
    WIDTH = "one row, by the code's width"
    SEEDS = "seeds"
    FACES = "faces of strangers"
    ISSUES = "issues of one person"
    LINK = "linkage"
    RENEWAL = "renewal"
    PHOTOS = "two photos"


# Flat, since each is a fact of the table that was read once.
@dataclass(frozen=True)
class Target:
    """Templates of one generation of a table.

    keys: path of the keyset file. params: of the templates. sealed: whether helpers are encrypted.
    filling: share of noise, by the profile with digest `profile`. centring: how templates were
    made. photos: of how many photos; the median of some templates. two_issues: subjects who were
    enrolled again after a data file with their row was lost.
    """

    dest: str
    table_id: str
    generation: int
    keys: str
    params: Params
    encoding: str
    sealed: bool
    filling: float
    profile: str | None
    templates: int
    centring: Centring = Centring.MEAN
    photos: int = 1
    two_issues: int = 0


@dataclass(frozen=True)
class Unit:
    """One attack. rows: (index of a target, subject). faces: indices. label: its group in the
    results.
    """

    kind: Kind
    label: str = ""
    rows: tuple[tuple[int, str], ...] = ()
    faces: tuple[int, ...] = ()


@dataclass(frozen=True)
class Audit:
    """targets: the audited templates. source: Parquet of embeddings of the same model, with its
    version; a thief would collect these. sampled: subjects whose faces are not used for
    measurements. seconds: of each search.
    """

    targets: tuple[Target, ...]
    source: str
    version: str
    sampled: tuple[str, ...]
    seconds: float
    units: tuple[Unit, ...]

    @property
    def params(self) -> Params:
        """Those of the first target. Fresh issues use them."""
        return self.targets[0].params


@dataclass(frozen=True, slots=True)
class Finding:
    """The end of a unit. label: of the unit. trials: of the attack. scores: of a linkage function.
    accepted: how many trials were, where these are faces. out_of_time: the result proves nothing.
    """

    kind: str
    label: str
    success: bool
    seconds: float
    trials: int = 0
    scores: tuple[float, ...] = ()
    accepted: int = 0
    out_of_time: bool = False


def width_label(params: Params) -> str:
    """The group of the searches by width of rows with these parameters."""
    real = ", real" if params.structure is Structure.REAL else ""
    return f"N = {params.code_width}, alpha = {params.alpha}{real}"


def row_units(target: int, params: Params, subjects: list[str]) -> Iterator[Unit]:
    """The units for the sampled rows of a target, which are those of some subjects.

    Wide rows are searched by their width as well. Seeds make rotations, which are square and real.
    """
    is_rotation = params.structure is Structure.REAL and not params.is_wide
    for number, subject in enumerate(subjects):
        row = ((target, subject),)
        yield Unit(Kind.LYING, rows=row)
        yield Unit(Kind.ROW, rows=row)
        yield Unit(Kind.FACES, rows=row)
        if params.is_wide:
            yield Unit(Kind.LYING_WIDTH, width_label(params), rows=row)
            yield Unit(Kind.WIDTH, width_label(params), rows=row)
        if is_rotation and number < _SEEDED:
            yield Unit(Kind.SEEDS, rows=row)


def linkage_units(subject: NDArray[np.intp], pairs: int, rng: np.random.Generator) -> list[Unit]:
    """Mated and non-mated issues of faces: a unit each, but one for all of an obvious function."""
    some = rng.permutation(len(subject))
    units = [Unit(Kind.LINK, f"{LINKED[0]}|mated", faces=tuple(map(int, some[:_OBVIOUS])))]
    units += [Unit(Kind.LINK, f"{LINKED[0]}|non-mated", faces=tuple(map(int, some[:_OBVIOUS])))]
    for place in some[:pairs]:
        other = rng.choice(np.flatnonzero(subject != subject[place]))
        units.append(Unit(Kind.LINK, f"{LINKED[1]}|mated", faces=(int(place), int(place))))
        units.append(Unit(Kind.LINK, f"{LINKED[1]}|non-mated", faces=(int(place), int(other))))
    return units


def renewal_units(subject: NDArray[np.intp], rng: np.random.Generator) -> Iterator[Unit]:
    """2, 3, 5 and 10 live issues: of one photo, and of as many photos of one subject."""
    sizes = np.bincount(subject)
    for count in _COUNTS:
        for place in rng.permutation(len(subject))[:_REPEATED]:
            yield Unit(Kind.RENEWAL, f"{count}|same photo", faces=(int(place),) * count)
        for owner in rng.permutation(np.flatnonzero(sizes >= count))[:_REPEATED]:
            faces = np.flatnonzero(subject == owner)[:count]
            yield Unit(Kind.RENEWAL, f"{count}|other photos", faces=tuple(map(int, faces)))


def photo_units(subject: NDArray[np.intp], vectors: F32) -> Iterator[Unit]:
    """Pairs of photos of one subject, some pairs for each range of angles between them."""
    found: dict[int, list[tuple[int, int]]] = {}
    for owner in np.flatnonzero(np.bincount(subject) > 1):
        faces = np.flatnonzero(subject == owner)[:10]
        first, second = np.triu_indices(len(faces), 1)
        cosine = (vectors[faces] @ vectors[faces].T)[first, second]
        angles = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        for place, bin_ in enumerate(np.digitize(angles, _ANGLES)):
            pairs = found.setdefault(int(bin_), [])
            # Below one degree, it is the same photo twice.
            if len(pairs) < _PAIRS_A_BIN and 1 < angles[place] < _ANGLES[-1]:
                pairs.append((int(faces[first[place]]), int(faces[second[place]])))
    for bin_, pairs in sorted(found.items()):
        for pair in pairs:
            yield Unit(Kind.PHOTOS, f"{_ANGLES[bin_ - 1]} to {_ANGLES[bin_]} degrees", faces=pair)
