"""The comparisons that a list asks for, among the existing faces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import numpy as np

from ironmask.errors import ProtocolError
from pipelines.evaluation.comparisons import Comparisons, Uncompared
from pipelines.plan import lists
from pipelines.plan.labelled_faces import EXCLUDED, Face, Labels
from pipelines.plan.lists import Numbered, Pair, Role

_ABSENT: Final = "not in the source"


def of_pairs(name: str, labels: Labels, text: str) -> Comparisons:
    """The comparisons of a list of pairs. name: its address.

    Raises `ProtocolError` for a list that cannot be right: it contradicts the labels, has one class
    only, or says that a face is compared with itself.
    """
    known = _numbered(labels)
    seen: set[tuple[Numbered, Numbered]] = set()
    compared: list[tuple[Pair, int, int]] = []
    genuine, impostor = Counter[str](), Counter[str]()
    excluded = repeated = 0
    for pair in lists.pairs(name, text):
        ends = pair.first, pair.second
        if pair.is_comment:
            _refuse_comment(name, pair.line, pair.first in known)
            continue
        if ends in seen:
            repeated += 1
            continue
        seen.add(ends)
        first, second = (_face(name, pair.line, end, known) for end in ends)
        reason = first.reason or second.reason
        if EXCLUDED in (first.reason, second.reason):
            excluded += 1
        elif first.place is None or second.place is None:
            (genuine if pair.genuine else impostor)[reason] += 1
        else:
            compared.append((pair, first.place, second.place))
    uncompared = Uncompared(dict(genuine), dict(impostor), excluded, repeated)
    _refuse_unusable(name, labels, compared, uncompared)
    templates, at = np.unique([first for _, first, _ in compared], return_inverse=True)
    probes, to = np.unique([second for _, _, second in compared], return_inverse=True)
    return Comparisons(
        [np.array([face]) for face in templates],
        labels.subject[templates],
        probes,
        pairs=np.stack([at, to], axis=1),
        uncompared=uncompared,
    )


def of_roles(name: str, labels: Labels, text: str) -> Comparisons:
    """The comparisons of a list of roles, every template with every probe. name: its address.

    Raises `ProtocolError` for a list that cannot be right.
    """
    known = labels.faces()
    enrolled: dict[str, dict[str, Face]] = {}
    probes: dict[str, Face] = {}
    lines = excluded = 0
    for role in lists.roles(name, text):
        if role.is_comment:
            _refuse_comment(name, role.line, role.image in known)
            continue
        lines += 1
        face = _known(name, role, known)
        if face.reason == EXCLUDED:
            excluded += 1
        elif role.is_probe:
            probes[role.image] = face
        else:
            enrolled.setdefault(role.template or face.subject, {})[role.image] = face
    _refuse_wrong_roles(name, enrolled, probes)
    said = len(probes) + sum(map(len, enrolled.values())) + excluded
    templates = [_places(faces.values()) for faces in enrolled.values()]
    made = [np.array(places) for places in templates if places]
    return Comparisons(
        made,
        labels.subject[[places[0] for places in made]],
        np.array(_places(probes.values()), dtype=np.intp),
        uncompared=_uncompared(enrolled, probes, excluded, lines - said),
    )


def refuse_comments(name: str, labels: Labels, text: str) -> None:
    """Raise `ProtocolError` where a comment in a list of names is the name of a face or subject."""
    known = set(labels.subjects) | set(labels.images) | set(labels.left_out)
    for line, comment in lists.comments(text):
        _refuse_comment(name, line, comment in known)


def _numbered(labels: Labels) -> dict[Numbered, list[tuple[str, Face]]]:
    """The faces of a source by their names in lists of pairs."""
    found: dict[Numbered, list[tuple[str, Face]]] = {}
    for image, face in labels.faces().items():
        if called := lists.numbered(image):
            found.setdefault(called, []).append((image, face))
    return found


def _face(
    name: str, line: int, called: Numbered, known: dict[Numbered, list[tuple[str, Face]]]
) -> Face:
    faces = known.get(called, [("", Face(None, "", _ABSENT))])
    if len(faces) > 1:
        raise ProtocolError(
            f"{name}, line {line}: image {called[1]} of {called[0]!r} may be {faces[0][0]!r} or "
            f"{faces[1][0]!r}: keep one of them in the source"
        )
    return faces[0][1]


def _refuse_comment(name: str, line: int, is_known: bool) -> None:
    if is_known:
        raise ProtocolError(
            f"{name}, line {line}: it begins with # like a comment, and the source has a face of "
            "that name: put the name in quotation marks, or a blank after the #"
        )


def _refuse_unusable(
    name: str, labels: Labels, compared: list[tuple[Pair, int, int]], uncompared: Uncompared
) -> None:
    lost = uncompared.total + uncompared.excluded
    if not compared:
        raise ProtocolError(f"{name}: none of its {lost:,} pairs has both images in the source")
    subject = labels.subject
    wrong = [
        (first, second)
        for pair, first, second in compared
        if (subject[first] == subject[second]) != pair.genuine
    ]
    if wrong:
        one, other = (labels.images[place] for place in wrong[0])
        raise ProtocolError(
            f"{name}: the source's subjects contradict {len(wrong):,} of {len(compared):,} pairs, "
            f"{one!r} and {other!r} for one: its labels are swapped, or the images are other "
            "people's"
        )
    kinds = {pair.genuine for pair, _, _ in compared}
    if len(kinds) == 1:
        kind = "impostor" if True in kinds else "genuine"
        aside = f" of those that can be compared ({lost:,} cannot)" if lost else ""
        raise ProtocolError(
            f"{name}: no pair is {kind}{aside}, so half of the errors cannot be seen"
        )


def _known(name: str, role: Role, known: dict[str, Face]) -> Face:
    face = known.get(role.image)
    if face is None:
        raise ProtocolError(f"{name}, line {role.line}: the source has no image {role.image!r}")
    if not face.subject:
        raise ProtocolError(
            f"{name}, line {role.line}: image {role.image!r} has no subject in the source"
        )
    return face


def _refuse_wrong_roles(
    name: str, enrolled: dict[str, dict[str, Face]], probes: dict[str, Face]
) -> None:
    if not any(_places(faces.values()) for faces in enrolled.values()) or not _places(
        probes.values()
    ):
        raise ProtocolError(f"{name}: it needs lines of role enrol and of role probe")
    for template, faces in enrolled.items():
        if len({face.subject for face in faces.values()}) > 1:
            raise ProtocolError(f"{name}: template {template!r} has faces of several subjects")
        if both := sorted(faces.keys() & probes.keys()):
            raise ProtocolError(
                f"{name}: image {both[0]!r} is enrolled and a probe, so it would be compared with "
                "itself"
            )


def _places(faces: Iterable[Face]) -> list[int]:
    return sorted(face.place for face in faces if face.place is not None)


def _uncompared(
    enrolled: dict[str, dict[str, Face]], probes: dict[str, Face], excluded: int, repeated: int
) -> Uncompared:
    """Comparisons whose probe or template has no embedding."""
    genuine, impostor = Counter[str](), Counter[str]()
    templates = Counter[str]()
    usable = Counter(face.subject for face in probes.values() if face.place is not None)
    for faces in enrolled.values():
        one = next(iter(faces.values()))
        templates[one.subject] += 1
        if not _places(faces.values()):
            genuine[one.reason] += usable[one.subject]
            impostor[one.reason] += usable.total() - usable[one.subject]
    for face in probes.values():
        if face.place is None:
            genuine[face.reason] += templates[face.subject]
            impostor[face.reason] += templates.total() - templates[face.subject]
    return Uncompared(dict(+genuine), dict(+impostor), excluded, repeated)
