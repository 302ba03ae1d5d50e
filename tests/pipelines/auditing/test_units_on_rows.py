"""Attacks on stored rows: on the row that was sampled, under its own keys, or not at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.destinations import DEST, Place, enrolled, vectors

from ironmask.errors import TableError, TamperedError
from ironmask.params import Params, Structure
from ironmask.spectrum import Spectrum
from pipelines.auditing import units
from pipelines.auditing.frozen import LINKED, Audit, Kind, Target, Unit
from pipelines.auditing.units import Surroundings
from pipelines.plan.labelled_faces import Faces, Labels

STRANGERS = 30
SQUARE = Params(64, 12, 1)
WIDE = {one: Params(64, 8, 0, 192, one) for one in Structure}


@pytest.fixture
def place() -> Place:
    made = Place()
    enrolled(made.held(), ["ann", "bob"])
    return made


def around(place, faces=None, params=SQUARE) -> Surroundings:
    """One table, and faces of people who are not in it; the first two are of Ann and Bob."""
    found = vectors(2 + STRANGERS) if faces is None else faces
    names = ["ann", "bob", *(f"x{n:02d}" for n in range(STRANGERS))]
    subject = np.arange(len(names))
    labels = Labels(subject, names, names, subject, {}, 0, 0, {}, 0)
    target = Target(DEST, place.tables.table_id, 1, "/k", params, "int8.1", True, 0.0, None, 2)
    audit = Audit((target,), "/e", "v", ("ann", "bob"), 0.05, ())
    return Surroundings(
        audit=audit,
        faces=Faces(labels, found),
        unknown=np.arange(2, len(names)),
        tables=[place.reader()],
        keys=lambda _: place.keyring.generation(1),
        templates=found[2:].astype(np.float64),
        space=Spectrum.of(found[2:], 64),
        fillings=[None],
    )


def unit(kind: Kind, subject: str = "ann", **changes) -> Unit:
    return Unit(kind, rows=((0, subject),), **changes)


def test_strangers_are_not_accepted(place):
    found = units.run(around(place), unit(Kind.FACES))
    assert (found.trials, found.accepted, found.success) == (STRANGERS, 0, False)


def test_a_stranger_who_looks_like_the_person_is_counted(place):
    faces = vectors(2 + STRANGERS)
    faces[5] = faces[0]
    found = units.run(around(place, faces), unit(Kind.FACES))
    assert (found.accepted, found.success) == (1, True)
    assert units.run(around(place, faces), unit(Kind.FACES, "bob")).accepted == 0


def test_seeds_give_no_row_away(place):
    found = units.run(around(place), unit(Kind.SEEDS))
    assert (found.kind, found.success, found.trials) == (Kind.SEEDS, False, 50)


def test_encrypted_bytes_give_no_row_away(place):
    """No time would find anything in them, so none is said to have been too short."""
    found = units.run(around(place), unit(Kind.LYING))
    assert (found.success, found.out_of_time) == (False, False)


@pytest.mark.parametrize("structure", Structure)
class TestWide:
    """Rows that the width of their code opens, but for their encryption."""

    @pytest.fixture
    def wide(self, structure) -> Surroundings:
        made = Place()
        enrolled(made.held(), ["ann", "bob"], params=WIDE[structure])
        return around(made, params=WIDE[structure])

    def test_as_they_lie_they_give_nothing(self, wide):
        for kind in (Kind.LYING, Kind.LYING_WIDTH):
            found = units.run(wide, unit(kind, label="w"))
            assert (found.success, found.out_of_time, found.label) == (False, False, "w")

    def test_with_the_keys_they_give_all(self, wide):
        for subject in ("ann", "bob"):
            found = units.run(wide, unit(Kind.WIDTH, subject))
            assert found.success
            assert found.trials <= 192

    def test_strangers_are_not_accepted(self, wide):
        assert units.run(wide, unit(Kind.FACES)).accepted == 0

    def test_fresh_issues_of_it_fall(self, wide):
        found = units.run(wide, Unit(Kind.RENEWAL, "2|same photo", faces=(0, 0)))
        assert found.kind == Kind.RENEWAL
        assert found.trials > 0


def test_an_obvious_function_gives_a_score_for_each_pair(place):
    mated = units.run(around(place), Unit(Kind.LINK, f"{LINKED[0]}|mated", faces=(0, 1, 2)))
    other = units.run(around(place), Unit(Kind.LINK, f"{LINKED[0]}|non-mated", faces=(0, 1, 2)))
    assert len(mated.scores) == len(other.scores) == 3
    assert not mated.out_of_time


@pytest.mark.parametrize("kind", [Kind.LYING, Kind.ROW, Kind.SEEDS, Kind.FACES])
def test_a_row_that_is_gone_is_said(place, kind):
    with pytest.raises(TableError, match="a sampled row of /memory/dest is gone"):
        units.run(around(place), unit(kind, "eve"))


def test_a_row_under_other_keys_is_no_finding(place):
    place.keyring.succeed(2, 1, rekey=True, rotate_mac=False)
    other = around(place)
    wrong = replace(other, keys=lambda _: place.keyring.generation(2))
    with pytest.raises(TamperedError):
        units.run(wrong, unit(Kind.FACES))


def test_keys_are_not_shown(place):
    row = units._stored(around(place), 0, "ann")
    assert row.key.hex() not in repr(row)
    assert repr(row.key) not in repr(row)
