"""A short round of tampering: every kind of file, every hand."""

from __future__ import annotations

import random

import pytest
from faults.tamper import ask, flip, flip_lines, flippable, hands, lay_hands, make_table

from pipelines.table.schemas import TABLES


@pytest.fixture(scope="module")
def dest(tmp_path_factory):
    return make_table(tmp_path_factory.mktemp("tamper"))


def test_a_sound_table_is_sound(dest):
    for deep in (True, False):
        verdict = ask(dest, deep=deep)
        assert (verdict.found, verdict.broken) == (False, "")


def test_every_kind_of_file_is_there(dest):
    assert set(flippable(dest)) == {
        *(f"data of {name}" for name in TABLES),
        *(f"log of {name}" for name in TABLES),
        "checkpoint",
        "plan",
        "part of a plan",
        "seal",
    }


@pytest.mark.slow
def test_flipped_bits_are_found(dest):
    lines = flip_lines(list(flip(dest, 24, random.Random(7))))
    assert [line for line in lines if not line.holds] == []
    assert not ask(dest).found


@pytest.mark.parametrize("name", hands())
def test_every_hand_is_found(dest, name):
    verdict = lay_hands(dest, hands()[name])
    assert verdict.broken == ""
    assert verdict.found
