"""Protocols: which faces are enrolled, and which are compared with them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import numpy as np

from ironmask.errors import ParameterError, ProtocolError
from pipelines.evaluation.comparisons import Comparisons, refuse_one_class
from pipelines.evaluation.listed import of_pairs, of_roles
from pipelines.plan import lists
from pipelines.plan.labelled_faces import Labels
from pipelines.table.layout import TABLE_PROTOCOL

ALL: Final = "all"
_FIRST: Final = re.compile(r"first:([1-9][0-9]?)(?:/([1-9][0-9]?))?")
_SPAN: Final = re.compile(r"first:([1-9][0-9]?)-([1-9][0-9]?)")


def spread(names: Iterable[str]) -> tuple[str, ...]:
    """Protocols by name. `first:A-B` becomes the protocols `first:K/B` for each K from A to B."""
    every: list[str] = []
    for name in names:
        if span := _SPAN.fullmatch(name):
            low, high = map(int, span.groups())
            if low > high:
                raise ParameterError(f"{name} spans nothing: it goes from fewer faces to more")
            every += [f"first:{count}/{high}" for count in range(low, high + 1)]
        else:
            every.append(name)
    return tuple(dict.fromkeys(every))


def is_listed(name: str) -> bool:
    """Whether a protocol is the address of a file."""
    return name not in (ALL, TABLE_PROTOCOL) and not name.startswith("first:")


def is_single(name: str, listed: str | None) -> bool:
    """Whether every template is made from one face, so that centring changes nothing."""
    if is_listed(name):
        return listed is not None and not lists.is_roles(listed)
    match = _FIRST.fullmatch(name)
    return name == ALL or (match is not None and match[1] == "1")


def photos_enrolled(name: str, listed: str | None) -> int:
    """Faces in each template; 0 where they differ."""
    match = _FIRST.fullmatch(name)
    return int(match[1]) if match else int(is_single(name, listed))


def comparisons(protocol: str, labels: Labels, listed: str | None = None) -> Comparisons:
    """The comparisons of a protocol: `all`, `first:K`, `first:K/M`, or those of a file's text.

    `all`: every face with every other one, once. `first:K`: each subject's first K faces make one
    template, and all other faces are probes. `first:K/M`: the same for subjects of at least M
    faces; none of their first M is a probe, so each K up to M has the same probes. listed: LFW's
    `pairs.txt`, or a table with the columns image and role (`enrol` or `probe`), and template where
    a subject has several.

    Raises `ParameterError` for an unknown protocol, `ProtocolError` where no comparison is genuine,
    or all of them are.
    """
    if is_listed(protocol):
        if listed is None:
            raise ParameterError(f"unknown protocol {protocol!r}")
        if not lists.is_roles(listed):
            return of_pairs(protocol, labels, listed)
        found = of_roles(protocol, labels, listed)
    elif protocol == ALL:
        every = np.arange(len(labels.subject))
        found = Comparisons([np.array([i]) for i in every], labels.subject, every, once=True)
    elif match := _FIRST.fullmatch(protocol):
        found = _first(int(match[1]), int(match[2] or match[1]), labels)
    else:
        raise ParameterError(
            f"unknown protocol {protocol!r}: it is `all`, `first:K`, `first:K/M` or `first:A-B` "
            "with numbers of 1 to 99, or a file"
        )
    refuse_one_class(found, labels)
    return found


def _first(count: int, aside: int, labels: Labels) -> Comparisons:
    if count > aside:
        raise ParameterError(f"first:{count}/{aside} would enrol faces that are probes as well")
    starts = np.flatnonzero(np.diff(labels.subject, prepend=-1))
    sizes = np.diff(np.append(starts, len(labels.subject)))
    chosen = starts[sizes >= aside]
    if not len(chosen):
        raise ProtocolError(f"no subject has {aside} faces: ask for fewer with first:K")
    kept = (chosen[:, None] + np.arange(aside)).ravel()
    probes = np.setdiff1d(np.arange(len(labels.subject)), kept)
    return Comparisons(
        [start + np.arange(count) for start in chosen], labels.subject[chosen], probes
    )
