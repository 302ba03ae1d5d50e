"""The comparisons of an evaluation, and those that could not be made."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ironmask.errors import ProtocolError
from ironmask.metrics import Crossed, Listed, Trials
from pipelines.plan.labelled_faces import Labels

Index = NDArray[np.intp]


@dataclass(frozen=True)
class Uncompared:
    """Comparisons that a list asks for but that could not be made.

    genuine, impostor: their numbers, by the reason why a face has no embedding; they are failures
    to acquire. excluded: lines that name a face which is left out on purpose. repeated: lines that
    repeat another one, which counts once.
    """

    genuine: dict[str, int] = field(default_factory=dict)
    impostor: dict[str, int] = field(default_factory=dict)
    excluded: int = 0
    repeated: int = 0

    @property
    def total_genuine(self) -> int:
        """Genuine ones, for all reasons."""
        return sum(self.genuine.values())

    @property
    def total_impostor(self) -> int:
        """Impostor ones, for all reasons."""
        return sum(self.impostor.values())

    @property
    def total(self) -> int:
        """Genuine and impostor ones."""
        return self.total_genuine + self.total_impostor


@dataclass(frozen=True)
class Comparisons:
    """templates: faces of each template. subject: (t,) of the templates. probes: (m,) faces.

    once: every pair of faces counts once, with the earlier face as the template. pairs: (p, 2)
    places of templates and probes, where only listed ones are compared. uncompared: where a list
    names the comparisons.
    """

    templates: list[Index] = field(repr=False)
    subject: Index = field(repr=False)
    probes: Index = field(repr=False)
    once: bool = False
    pairs: Index | None = field(default=None, repr=False)
    uncompared: Uncompared | None = None

    def probes_after(self, first: int) -> Index:
        """The probes of the templates from this one on."""
        return self.probes[first:] if self.once else self.probes


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


def refuse_one_class(found: Comparisons, labels: Labels) -> None:
    """Raise `ProtocolError` where no comparison is genuine, or all of them are."""
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
