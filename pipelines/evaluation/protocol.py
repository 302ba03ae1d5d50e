"""Which faces are enrolled, and which are compared with them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ironmask.errors import ParameterError, ProtocolError
from ironmask.metrics import Crossed, Listed, Trials
from pipelines.plan.labelled_faces import Labels
from pipelines.table.layout import TABLE_PROTOCOL

Index = NDArray[np.intp]
ALL: Final = "all"
_FIRST: Final = re.compile(r"first:([1-9][0-9]?)(?:/([1-9][0-9]?))?")
_SPAN: Final = re.compile(r"first:([1-9][0-9]?)-([1-9][0-9]?)")


@dataclass(frozen=True)
class Comparisons:
    """templates: faces of each template. subject: (t,) of the templates. probes: (m,) faces.

    once: every pair of faces counts once, with the earlier one as the template. pairs: (p, 2)
    templates and probes, by place, where only listed ones are compared.
    """

    templates: list[Index] = field(repr=False)
    subject: Index = field(repr=False)
    probes: Index = field(repr=False)
    once: bool = False
    pairs: Index | None = field(default=None, repr=False)

    def probes_after(self, first: int) -> Index:
        """The probes that templates from this one on are compared with."""
        return self.probes[first:] if self.once else self.probes


def spread(names: Iterable[str]) -> tuple[str, ...]:
    """Protocols by name, with `first:A-B` as the protocols `first:K/B` of each K from A to B."""
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
    """Whether a protocol is that of a file."""
    return name not in (ALL, TABLE_PROTOCOL) and not name.startswith("first:")


def is_single(name: str, listed: str | None) -> bool:
    """Whether every template is of one face, so that there is nothing to centre."""
    if is_listed(name):
        return listed is not None and not _is_csv(listed)
    match = _FIRST.fullmatch(name)
    return name == ALL or (match is not None and match[1] == "1")


def comparisons(protocol: str, labels: Labels, listed: str | None = None) -> Comparisons:
    """The comparisons of a protocol: `all`, `first:K`, `first:K/M`, or those of a file's text.

    `all`: every face with every other one, once. `first:K`: each subject's first K faces make one
    template, all other faces are probes. `first:K/M`: the same for subjects of at least M faces, of
    which none of the first M is a probe, so that each K up to M has the same probes. listed: LFW's
    `pairs.txt`, or a CSV with the columns image and role (`enrol` or `probe`), and template where a
    subject has several.

    Raises `ParameterError` for an unknown protocol, `ProtocolError` where nothing is genuine or
    everything is.
    """
    if is_listed(protocol):
        if listed is None:
            raise ParameterError(f"unknown protocol {protocol!r}")
        if not _is_csv(listed):
            return _listed(protocol, labels, listed)
        found = _roles(protocol, labels, listed)
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


def trials(found: Comparisons, labels: Labels, lost: Index) -> Trials:
    """Impostor comparisons of each pair of subjects. lost: templates that were not compared."""
    count = len(labels.subjects)
    if found.pairs is not None:
        template, probe = found.pairs[~np.isin(found.pairs[:, 0], lost)].T
        first, second = found.subject[template], labels.subject[found.probes[probe]]
        other = first != second
        return Listed.of(first[other], second[other], np.ones(other.sum()), count)
    probes = np.bincount(labels.subject[found.probes], minlength=count)
    if found.once:
        return Crossed.within(probes)
    templates = np.bincount(np.delete(found.subject, lost), minlength=count)
    return Crossed.of(templates, probes)


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


def _is_csv(text: str) -> bool:
    return {"image", "role"} <= set(text.partition("\n")[0].strip().split(","))


def _roles(name: str, labels: Labels, text: str) -> Comparisons:
    place = {image: index for index, image in enumerate(labels.images)}
    enrolled: dict[str, list[int]] = {}
    probes: list[int] = []
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), 2):
        image, role = row["image"], row["role"]
        if role not in ("enrol", "probe"):
            raise ProtocolError(f"{name}, line {number}: role {role!r} is neither enrol nor probe")
        if image not in place:
            raise ProtocolError(
                f"{name}, line {number}: the source has no image {image!r}, or it is left out"
            )
        if role == "probe":
            probes.append(place[image])
        else:
            subject = labels.subjects[labels.subject[place[image]]]
            enrolled.setdefault(row.get("template") or subject, []).append(place[image])
    if not enrolled or not probes:
        raise ProtocolError(f"{name}: it needs lines of role enrol and of role probe")
    for template, faces in enrolled.items():
        if len(set(labels.subject[faces].tolist())) > 1:
            raise ProtocolError(f"{name}: template {template!r} has faces of several subjects")
    both = set(probes) & {face for faces in enrolled.values() for face in faces}
    if both:
        raise ProtocolError(
            f"{name}: image {labels.images[min(both)]!r} is enrolled and a probe, so it would be "
            "compared with itself"
        )
    templates = [np.array(sorted(set(faces))) for faces in enrolled.values()]
    return Comparisons(
        templates, labels.subject[[faces[0] for faces in templates]], np.array(sorted(set(probes)))
    )


def refuse_one_class(found: Comparisons, labels: Labels) -> None:
    """Raise `ProtocolError` where no comparison is genuine, or every one is."""
    probed = np.bincount(labels.subject[found.probes], minlength=len(labels.subjects))
    own = probed[found.subject] - (1 if found.once else 0)
    if not (own > 0).any():
        raise ProtocolError(
            "no comparison is genuine: no subject has a template and another face; check that "
            "subject_id names people, not images"
        )
    if len(set(found.subject.tolist()) | set(labels.subject[found.probes].tolist())) == 1:
        raise ProtocolError(
            "every comparison is genuine: all faces are of one subject; an evaluation needs others"
        )


def _listed(name: str, labels: Labels, text: str) -> Comparisons:
    """LFW's pairs.txt: `name i j` is genuine, `name i other j` is not; images are name_000i."""
    place = {
        image.rpartition("/")[2].rpartition(".")[0] or image: index
        for index, image in enumerate(labels.images)
    }
    first, second, genuine, missing = [], [], [], 0
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("\t") if "\t" in line else line.split()
        if len(words) not in (3, 4):
            if number == 1 and all(word.isdigit() for word in words):
                continue
            raise ProtocolError(f"{name}, line {number}: not `name i j` or `name i other j`")
        ends = (words[0], words[1]), (words[0] if len(words) == 3 else words[2], words[-1])
        try:
            one, other = (f"{who}_{int(which):04d}" for who, which in ends)
        except ValueError:
            raise ProtocolError(f"{name}, line {number}: {line!r} has no image numbers") from None
        if one in place and other in place:
            first.append(place[one])
            second.append(place[other])
            genuine.append(len(words) == 3)
        else:
            missing += 1
    _refuse_swapped(name, labels, np.array(first), np.array(second), np.array(genuine), missing)
    templates, at = np.unique(first, return_inverse=True)
    probes, to = np.unique(second, return_inverse=True)
    pairs = np.unique(np.stack([at, to], axis=1), axis=0)
    return Comparisons(
        [np.array([face]) for face in templates], labels.subject[templates], probes, pairs=pairs
    )


def _refuse_swapped(
    name: str, labels: Labels, first: Index, second: Index, genuine: Index, missing: int
) -> None:
    if not len(first):
        raise ProtocolError(f"{name}: none of its {missing:,} pairs has both images in the source")
    wrong = (labels.subject[first] == labels.subject[second]) != genuine
    if wrong.any():
        pair = np.flatnonzero(wrong)[0]
        raise ProtocolError(
            f"{name}: the source's subjects contradict {wrong.sum():,} of {len(wrong):,} pairs, "
            f"{labels.images[first[pair]]!r} and {labels.images[second[pair]]!r} for one: its "
            "labels are swapped, or the images are other people's"
        )
    for kind, some in (("genuine", genuine), ("impostor", ~genuine.astype(bool))):
        if not some.any():
            raise ProtocolError(f"{name}: no pair is {kind}, so half of the errors cannot be seen")
