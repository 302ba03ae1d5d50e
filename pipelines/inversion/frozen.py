"""The definitions of a fit and of an evaluation of inverters, frozen before the first unit."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar, Final, TypeVar

from ironmask.errors import StorageError
from pipelines.inversion.people import Drawn, to_test_on, to_train_on
from pipelines.inversion.photos import Listing, Photo
from pipelines.ports import Store
from pipelines.table import layout

T = TypeVar("T")

INVERTER_FILE: Final = "inverter.npz"


class Kind(StrEnum):
    """How an inverter learns."""

    LINEAR = "linear"
    NBNET = "nbnet"
    HYBRID = "hybrid"
    ASCENT = "ascent"

    @property
    def needs_torch(self) -> bool:
        """Whether it needs PyTorch."""
        return self is not Kind.LINEAR


# Flat, since its file is compared field by field with what is asked for.
@dataclass(frozen=True)
class Fit:
    """faces: address of a set of photos. listing: digest of its names and sizes. excluded: names
    left out. name: a UUID: names the key of what is kept meanwhile, and salts digests.

    model, fingerprint: of the recogniser's pack. inverter: of `Kind`. most: photos, at most. images
    and cpu_seconds: the budget of a training. seed: of the people and of the training. device: of
    PyTorch. people: digests of those it learns from.
    """

    FILE: ClassVar = "fit.json"

    faces: str
    listing: str
    excluded: tuple[str, ...]
    name: str
    model: str
    fingerprint: str
    inverter: str
    most: int
    images: int
    cpu_seconds: float
    seed: int
    device: str
    people: tuple[str, ...]

    def photos(self, listing: Listing) -> tuple[Photo, ...]:
        """The photos to learn from."""
        return tuple(to_train_on(listing.without(self.excluded), self.seed, self.most))

    @property
    def learnt(self) -> tuple[str, frozenset[str]]:
        """Whom it learns from: the salt of their digests, and these."""
        return self.name, frozenset(self.people)

    def to_json(self) -> bytes:
        """The stored form, beside the inverter."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def read(cls, folder: str, store: Store) -> Fit:
        """The fit in a folder. Raises `StorageError` for another kind of file."""
        address = layout.join(folder, cls.FILE)
        return _read(lambda given: cls(**_tuples(given)), address, store)


@dataclass(frozen=True)
class Fitted:
    """A fitted inverter. folder: of its fit. version: the store's, of its state. label: in
    reports.
    """

    folder: str
    version: str
    label: str
    fit: Fit


@dataclass(frozen=True)
class Rows:
    """Rows of a table that are inverted. keys: path of the keyset file. sealed: helpers are
    encrypted.
    """

    dest: str
    table_id: str
    generation: int
    keys: str
    sealed: bool


# Flat, since its file is compared field by field with what is asked for.
@dataclass(frozen=True)
class Inversion:
    """faces, listing, excluded, name: as of a `Fit`. out: for results. inverters: in the order in
    which they were named. model, fingerprint: of the recogniser that templates are of; other_model
    and other_fingerprint: of a second one that accepts or not; empty for none.

    people: tested, at most. each: photos of a centred template, at most. seed: of the people. rows:
    None where rows are made for the evaluation.
    """

    FILE: ClassVar = "inversion.json"

    faces: str
    listing: str
    excluded: tuple[str, ...]
    name: str
    out: str
    inverters: tuple[Fitted, ...]
    model: str
    fingerprint: str
    other_model: str
    other_fingerprint: str
    people: int
    each: int
    seed: int
    rows: Rows | None

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the recognisers, the attacked one first."""
        return (self.model, self.other_model) if self.other_model else (self.model,)

    def drawn(self, listing: Listing) -> Drawn:
        """Who is tested, and who sets thresholds."""
        learnt = [one.fit.learnt for one in self.inverters]
        kept = listing.without(self.excluded)
        return to_test_on(kept, learnt, self.seed, self.people, self.each)

    def photos(self, listing: Listing) -> tuple[Photo, ...]:
        """The photos that are embedded."""
        return self.drawn(listing).photos

    def to_json(self) -> bytes:
        """The stored form, beside its results."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def read(cls, folder: str, store: Store) -> Inversion:
        """The evaluation in a folder. Raises `StorageError` for another kind of file."""
        return _read(cls._made, layout.join(folder, cls.FILE), store)

    @classmethod
    def _made(cls, given: dict[str, Any]) -> Inversion:
        inverters = tuple(
            Fitted(**{**one, "fit": Fit(**_tuples(one["fit"]))}) for one in given.pop("inverters")
        )
        rows = given.pop("rows")
        return cls(inverters=inverters, rows=rows and Rows(**rows), **_tuples(given))


def differing(asked: Any, found: Any, settled: Collection[str]) -> list[str]:
    """Names of the fields in which two definitions differ, but for those that are drawn once."""
    names = [own.name for own in fields(asked) if own.name not in settled]
    return [name for name in names if getattr(asked, name) != getattr(found, name)]


def _read(made: Callable[[dict[str, Any]], T], address: str, store: Store) -> T:
    try:
        return made(json.loads(store.read(address)))
    except (TypeError, ValueError, KeyError, AttributeError):
        raise StorageError(
            f"{address} is damaged, or of another release: remove its folder, and begin anew"
        ) from None


def _tuples(given: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
