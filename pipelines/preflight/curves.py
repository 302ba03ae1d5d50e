"""How well a recogniser tells people apart: from an evaluation, from embeddings, or as shipped."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.resources import files
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ironmask.arrays import F32, F64
from ironmask.centring import by_person
from ironmask.comparisons import BINS, cosine_bin, thresholds
from ironmask.errors import ParameterError, SourceError, TableError
from ironmask.metrics import Crossed, Curve, Kept, Rates, ScoreCounts
from pipelines.ports import Store
from pipelines.preflight.profile import Photos, sample
from pipelines.table import layout

FILE: Final = "curve.parquet"
"""The name of the curves in the folder of an evaluation's results."""

SHIPPED: Final = "recogniser.csv"
"""Made by `tests/pipelines/preflight/make_acceptance.py`."""

SHIPPED_MODEL: Final = "w600k_mbf"
_ENDS: Final = tuple(end.name for end in fields(Rates))
_KEPT_SHARE: Final = 2e-3
_LEAST_KEPT: Final = 1000
_BLOCK: Final = 256


@dataclass(frozen=True)
class Measured:
    """What is known of a recogniser. n: width of its embeddings. photos: enrolled of each person; 0
    where nobody says. source: for people.
    """

    curve: Curve = field(repr=False)
    n: int
    photos: int
    source: str


def rows(curve: Curve) -> Iterator[dict[str, Any]]:
    """A curve as plain rows, one a threshold."""
    rates = {"fmr": curve.fmr, "fnmr": curve.fnmr}
    for place, threshold in enumerate(curve.thresholds.tolist()):
        ends = {
            _column(name, end): float(getattr(rate, end)[place])
            for name, rate in rates.items()
            for end in _ENDS
        }
        counts = {"genuine": curve.genuine, "impostor": curve.impostor}
        yield {"threshold": threshold, **counts, **ends}


def from_rows(given: Iterable[dict[str, Any]]) -> Curve:
    """Undo `rows`."""
    table = sorted(given, key=lambda row: float(row["threshold"]))

    def column(name: str) -> F64:
        return np.array([row[name] for row in table], dtype=np.float64)

    def rates(name: str) -> Rates:
        return Rates(*(column(_column(name, end)) for end in _ENDS))

    genuine, impostor = int(table[0]["genuine"]), int(table[0]["impostor"])
    return Curve(column("threshold"), genuine, impostor, rates("fmr"), rates("fnmr"))


def _column(name: str, end: str) -> str:
    return name if end == "value" else f"{name}_{end}"


@cache
def _shipped() -> dict[int, Curve]:
    text = files("pipelines.preflight").joinpath(SHIPPED).read_text("utf-8")
    lines = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    by_photos: dict[int, list[dict[str, Any]]] = {}
    for line in lines:
        by_photos.setdefault(int(line["photos"]), []).append(line)
    return {photos: from_rows(some) for photos, some in by_photos.items()}


def shipped(n: int, photos: int) -> Measured:
    """The curve that comes with the package, for as many photos enrolled or the next number.

    More photos of a person bring more false matches at one cosine, so fewer promise too much. Those
    of the most photos stand for more, and the source says so.
    """
    known = _shipped()
    count = min((count for count in known if count >= photos), default=max(known))
    most = ", the most that is known" if count < photos else ""
    source = (
        f"{SHIPPED_MODEL} on LFW, {_photos(count)} enrolled{most}; other models differ: measure "
        "yours with --calibration"
    )
    return Measured(known[count], n, count, source)


def from_results(folder: str, photos: int | None, store: Store) -> Measured:
    """The curve of an evaluation. photos: which, where it has templates of several numbers.

    Raises `SourceError` for a folder without curves, `ParameterError` where none is of so many.
    """
    address = layout.join(folder, FILE)
    if not store.exists(address):
        raise SourceError(
            f"{folder} holds no {FILE}: name the OUT of `ironmask evaluate`, and run one of an "
            "earlier release again"
        )
    try:
        given = pq.read_table(io.BytesIO(store.read(address))).to_pylist()
    except pa.ArrowInvalid:
        raise TableError(f"{address} is damaged: run the evaluation again") from None
    wanted = [row for row in given if photos is None or row["photos"] in (0, photos)]
    if not wanted:
        have = ", ".join(map(str, sorted({row["photos"] for row in given})))
        raise ParameterError(f"{folder} has templates of {have} photos, none of {photos}")
    first = wanted[0]
    case = (first["protocol"], first["centring"])
    some = [row for row in wanted if (row["protocol"], row["centring"]) == case]
    source = f"{folder}, {case[0]}" + (f", {case[1]}" if case[1] else "")
    return Measured(from_rows(some), first["n"], first["photos"], source)


def from_embeddings(address: str, photos: int, store: Store) -> Measured:
    """The curve of a file's embeddings, each person's first ones enrolled.

    Raises `SourceError` for a file without subjects, or with too few embeddings of them.
    """
    found = sample(address, store)
    if not found.named:
        raise SourceError(f"{address} names no subjects: it needs a column `subject_id`")
    curve = compared(found, photos)
    source = f"{address}, {_photos(photos)} enrolled"
    return Measured(curve, found.vectors.shape[1], photos, source)


def compared(found: Photos, photos: int) -> Curve:
    """Compare the mean of each person's first photos with all other photos.

    Raises `SourceError` where no comparison is genuine, or none is not.
    """
    vectors = found.vectors
    usable = np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
    vectors, names = vectors[usable], found.people[usable]
    order = np.argsort(names, kind="stable")
    vectors, person = vectors[order], np.unique(names[order], return_inverse=True)[1]
    place = np.arange(len(person)) - np.searchsorted(person, person)
    counts = np.bincount(person)
    is_enrolled = (place < photos) & (counts[person] >= photos)
    people = np.unique(person[is_enrolled])
    templates = by_person(vectors[is_enrolled], person[is_enrolled])
    probes, owners = vectors[~is_enrolled], person[~is_enrolled]
    if len(templates) != len(people) or len(people) < 2 or not np.isin(owners, people).any():
        raise SourceError(
            f"{len(counts):,} people have too few usable embeddings: to enrol {photos} of each, "
            f"two people are needed at least, and one with {photos + 1}"
        )
    trials = Crossed.of(
        np.bincount(people, minlength=len(counts)), np.bincount(owners, minlength=len(counts))
    )
    unit = (probes / np.linalg.norm(probes, axis=1, keepdims=True)).astype(np.float32)
    return _curve(templates.astype(np.float32), people, unit, owners, trials)


def _curve(
    templates: F32, people: NDArray[np.intp], probes: F32, owners: NDArray[np.intp], trials: Crossed
) -> Curve:
    some = templates[:: max(1, len(templates) // _BLOCK)]
    share = min(max(_KEPT_SHARE, _LEAST_KEPT / (len(templates) * len(probes))), 1.0)
    floor = float(np.quantile(some @ probes.T, 1 - share))
    counts = np.zeros((2, BINS), dtype=np.int64)
    parts: list[list[NDArray[Any]]] = [[] for _ in range(5)]
    for start in range(0, len(templates), _BLOCK):
        own = people[start : start + _BLOCK]
        cosine = templates[start : start + _BLOCK] @ probes.T
        is_genuine = own[:, None] == owners
        template, probe = np.nonzero(is_genuine)
        near, beside = np.nonzero(~is_genuine & (cosine >= floor))
        for side, some in enumerate((cosine[~is_genuine], cosine[is_genuine])):
            counts[side] += np.bincount(cosine_bin(some), minlength=BINS)
        found = (cosine[template, probe], own[template], cosine[near, beside])
        for part, one in zip(parts, (*found, own[near], owners[beside]), strict=True):
            part.append(one)
    genuine, owner, impostor, first, second = map(np.concatenate, parts)
    kept = Kept(genuine, owner, impostor, first, second, trials, floor)
    return Curve.of(kept, ScoreCounts(thresholds(), counts[1], counts[0]))


def _photos(count: int) -> str:
    return "1 photo" if count == 1 else f"{count} photos"
