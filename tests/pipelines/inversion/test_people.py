"""Splits by people: nobody is in two parts, and the same seed gives the same people."""

from __future__ import annotations

import pytest

from ironmask.errors import SourceError
from pipelines.inversion.people import digest, shuffled, to_test_on, to_train_on
from pipelines.inversion.photos import Photo


def faces(people, each=3):
    names = [f"p{number:03d}" for number in range(people)]
    return {name: [Photo(name, f"{name}/{i}.jpg", "") for i in range(each)] for name in names}


def learnt(photos, salt="salt"):
    return salt, frozenset(digest(photo.person, salt) for photo in photos)


def test_four_fifths_are_trained_on_and_nobody_of_them_is_tested():
    kept = faces(100)
    trained = to_train_on(kept, seed=1, most=10_000)
    drawn = to_test_on(kept, [learnt(trained)], seed=1, most=200, each=2)
    owners = {photo.person for photo in trained}
    assert len(owners) == 80
    assert drawn.left_out == 80
    assert len(drawn.tested) == len(drawn.strangers) == 10
    assert not owners & {photo.person for photo in drawn.photos}


def test_tested_people_and_strangers_are_other_people():
    drawn = to_test_on(faces(40), [], seed=0, most=200, each=2)
    strangers = {drawn.photos[place].person for place in drawn.strangers}
    tested = {drawn.photos[one.own.start].person for one in drawn.tested}
    assert not strangers & tested
    assert len(strangers) + len(tested) == 40


def test_the_photo_of_type_two_is_in_no_template():
    drawn = to_test_on(faces(40, each=4), [], seed=0, most=20, each=9)
    for one in drawn.tested:
        assert one.other not in one.own
        assert len(one.own) == 3
        owners = {drawn.photos[place].person for place in [*one.own, one.other]}
        assert len(owners) == 1


def test_people_with_a_second_photo_are_tested_first():
    kept = faces(30, each=1) | {f"q{i}": faces(1, 2)["p000"] for i in range(10)}
    drawn = to_test_on(kept, [], seed=0, most=10, each=1)
    assert all(one.other is not None for one in drawn.tested)


def test_a_budget_of_photos_leaves_people_for_the_test():
    kept = faces(100)
    trained = to_train_on(kept, seed=0, most=60)
    assert len(trained) == 60
    drawn = to_test_on(kept, [learnt(trained)], seed=0, most=200, each=1)
    assert drawn.left_out == 20


def test_a_seed_gives_the_same_people_and_another_one_others():
    people = list(faces(50))
    assert shuffled(people, 1) == shuffled(reversed(people), 1)
    assert shuffled(people, 1) != shuffled(people, 2)


def test_salts_tell_the_same_person_apart():
    assert digest("Ada", "a") != digest("Ada", "b")


@pytest.mark.parametrize("people", [0, 24])
def test_too_few_to_train_on(people):
    with pytest.raises(SourceError, match="an inverter needs 25 or more"):
        to_train_on(faces(people), seed=0, most=100)


def test_too_few_to_test_on():
    with pytest.raises(SourceError, match="19 are left: an evaluation needs 20 or more"):
        to_test_on(faces(19), [], seed=0, most=10, each=1)
