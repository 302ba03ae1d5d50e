"""Who is trained on, who is tested, and who sets thresholds: people, never photos, are drawn.

The order comes from a seed and the people's own names, so that the same seed and faces give the
same people anywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from ironmask.errors import SourceError
from pipelines.inversion.photos import Photo

TRAINED: Final = 0.8
"""The share of people that an inverter may learn from. The others are left for its evaluation."""

LEAST_TRAINED: Final = 20
LEAST_TESTED: Final = 10
_MOST_STRANGERS: Final = 10_000
_DIGITS: Final = 16


def digest(person: str, salt: str) -> str:
    """A person as a fit remembers whom it learnt from."""
    return sha256(f"ironmask inversion person\0{salt}\0{person}".encode()).hexdigest()[:_DIGITS]


def shuffled(people: Iterable[str], seed: int) -> list[str]:
    """People in the order of a seed."""
    return sorted(
        people, key=lambda one: sha256(f"ironmask inversion\0{seed}\0{one}".encode()).digest()
    )


def to_train_on(kept: Mapping[str, Sequence[Photo]], seed: int, most: int) -> list[Photo]:
    """At most so many photos, of four fifths of the people; a person's photos lie together.

    Raises `SourceError` for fewer people than can be told apart.
    """
    order = shuffled(kept, seed)[: int(TRAINED * len(kept))]
    if len(order) < LEAST_TRAINED:
        needed = -(-LEAST_TRAINED * 5 // 4)
        raise SourceError(
            f"the faces are of {len(kept):,} people: an inverter needs {needed} or more, for a "
            "fifth of them is left for its evaluation"
        )
    return [photo for person in order for photo in kept[person]][:most]


@dataclass(frozen=True, slots=True)
class Tested:
    """A person whose templates are inverted. Places are those of `Drawn.photos`.

    own: of the photos that templates are made of; the first is what reconstructions are compared
    with (type I). other: of another photo (type II); None where there is none.
    """

    own: range
    other: int | None


@dataclass(frozen=True)
class Drawn:
    """tested: people in no training set. strangers: places of photos of other such people, one of
    each, by which thresholds are set. left_out: people whom an inverter has learnt from.
    """

    photos: tuple[Photo, ...]
    tested: tuple[Tested, ...]
    strangers: range
    left_out: int


def to_test_on(
    kept: Mapping[str, Sequence[Photo]],
    learnt: Collection[tuple[str, frozenset[str]]],
    seed: int,
    most: int,
    each: int,
) -> Drawn:
    """Draw people whom no inverter has learnt from: at most half of them, and `most`, to test.

    learnt: of each inverter, the salt and the digests of its people. each: photos of a centred
    template. People with a second photo come first. Raises `SourceError` where too few are left.
    """
    unseen = [
        person
        for person in shuffled(kept, seed)
        if not any(digest(person, salt) in people for salt, people in learnt)
    ]
    if len(unseen) < 2 * LEAST_TESTED:
        raise SourceError(
            f"of {len(kept):,} people in the faces {len(kept) - len(unseen):,} were trained on, "
            f"and {len(unseen):,} are left: an evaluation needs {2 * LEAST_TESTED} or more whom "
            "no inverter has learnt from; give other faces"
        )
    # Sorting is stable: the seed's order stays among equals.
    order = sorted(unseen, key=lambda person: len(kept[person]) < 2)
    count = min(most, len(unseen) // 2)
    photos: list[Photo] = []
    tested = [_tested(kept[person], each, photos) for person in order[:count]]
    first = len(photos)
    photos += [kept[person][0] for person in order[count:][:_MOST_STRANGERS]]
    strangers = range(first, len(photos))
    return Drawn(tuple(photos), tuple(tested), strangers, len(kept) - len(unseen))


def _tested(own: Sequence[Photo], each: int, photos: list[Photo]) -> Tested:
    """Add a person's photos to those that are needed: the last one of several is kept apart."""
    first, count = len(photos), min(max(len(own) - 1, 1), each)
    photos += own[:count]
    if len(own) < 2:
        return Tested(range(first, first + count), None)
    photos.append(own[count])
    return Tested(range(first, first + count), first + count)
