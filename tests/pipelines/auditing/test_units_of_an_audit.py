"""What an audit does to which rows and faces, settled before the first of it is done."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from support.destinations import vectors

from ironmask.params import Params, Structure
from pipelines.auditing.frozen import (
    LINKED,
    Kind,
    linkage_units,
    photo_units,
    renewal_units,
    row_units,
    width_label,
)

# Forty people of one to twelve faces.
SUBJECT = np.repeat(np.arange(40), np.arange(40) % 12 + 1)


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


ROTATION = Params(64, 12, 1)


def test_each_sampled_row_is_attacked_in_each_way():
    units = list(row_units(3, ROTATION, ["ann", "bob", "cid"]))
    for kind in (Kind.LYING, Kind.ROW, Kind.FACES):
        assert [one.rows for one in units if one.kind is kind] == [
            ((3, name),) for name in ("ann", "bob", "cid")
        ]
    assert [one.rows[0][1] for one in units if one.kind is Kind.SEEDS] == ["ann", "bob"]
    assert list(row_units(0, ROTATION, [])) == []


@pytest.mark.parametrize("structure", Structure)
def test_wide_rows_are_searched_by_their_width_too(structure):
    """As they lie, and as the keys open them; seeds make square, real rotations alone."""
    wide = Params(64, 12, 1, 128, structure)
    units = list(row_units(0, wide, ["ann", "bob"]))
    for kind in (Kind.LYING_WIDTH, Kind.WIDTH):
        mine = [one for one in units if one.kind is kind]
        assert [one.rows for one in mine] == [((0, "ann"),), ((0, "bob"),)]
        assert {one.label for one in mine} == {width_label(wide)}
    assert not any(one.kind is Kind.SEEDS for one in units)
    square = Params(64, 12, 1, structure=structure)
    kinds = {one.kind for one in row_units(0, square, ["ann"])}
    assert (Kind.SEEDS in kinds) == (structure is Structure.REAL)
    assert not kinds & {Kind.WIDTH, Kind.LYING_WIDTH}


class TestLinkage:
    @pytest.fixture
    def units(self):
        return linkage_units(SUBJECT, 6, rng())

    def test_mated_are_of_one_face_and_others_of_two_people(self, units):
        of_attack = [one for one in units if one.label.startswith(LINKED[1])]
        assert len(of_attack) == 12
        for one in of_attack:
            first, second = one.faces
            if one.label.endswith("|mated"):
                assert first == second
            else:
                assert SUBJECT[first] != SUBJECT[second]

    def test_each_function_has_as_many_of_both(self, units):
        labels = [one.label for one in units]
        for name in LINKED:
            assert labels.count(f"{name}|mated") == labels.count(f"{name}|non-mated") > 0

    def test_faces_are_plain_numbers(self, units):
        assert {type(face) for one in units for face in one.faces} == {int}


def test_renewals_have_so_many_issues_of_one_photo_or_one_person():
    units = list(renewal_units(SUBJECT, rng()))
    for one in units:
        count, which = one.label.split("|")
        assert len(one.faces) == int(count)
        assert len({int(SUBJECT[face]) for face in one.faces}) == 1
        assert len(set(one.faces)) == (1 if which == "same photo" else int(count))
    labels = {one.label for one in units}
    assert labels == {f"{n}|{w}" for n, w in product((2, 3, 5, 10), ("same photo", "other photos"))}


def test_who_has_too_few_photos_gives_none():
    units = list(renewal_units(np.arange(5), rng()))
    assert {one.label.split("|")[1] for one in units} == {"same photo"}


class TestPhotos:
    def faces(self, *degrees: float) -> np.ndarray:
        """Photos of one person at some angles from the first."""
        first, other = vectors(2)
        other = other - first * (first @ other)
        other = other / np.linalg.norm(other)
        angles = np.radians(degrees)[:, None]
        found: np.ndarray = (np.cos(angles) * first + np.sin(angles) * other).astype(np.float32)
        return found

    def test_pairs_are_counted_under_their_angle(self):
        units = list(photo_units(np.zeros(2, np.intp), self.faces(0, 25)))
        assert [(one.label, one.faces) for one in units] == [("20 to 30 degrees", (0, 1))]

    def test_a_photo_and_its_copy_are_no_pair(self):
        assert list(photo_units(np.zeros(2, np.intp), self.faces(0, 0.5))) == []

    def test_photos_that_have_nothing_in_common_are_none(self):
        assert list(photo_units(np.zeros(2, np.intp), self.faces(0, 95))) == []

    def test_of_an_angle_a_few_are_enough(self):
        units = list(photo_units(np.zeros(4, np.intp), self.faces(0, 10, 15, 5)))
        assert len(units) == 2

    def test_people_of_one_photo_have_none(self):
        assert list(photo_units(np.arange(4), vectors(4))) == []
