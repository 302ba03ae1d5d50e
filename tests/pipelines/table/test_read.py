"""One person's row: theirs, live, and sealed by the keys at hand."""

from __future__ import annotations

import pytest
from support.destinations import OTHER_RUN, enrolled
from support.memory_keys import MemoryKeyring

from ironmask.errors import KeyNotFoundError, TableError, WrongKeyError
from pipelines.spec.template_job import Purpose
from pipelines.table import generations
from pipelines.table.read import find_row, open_live, templates_by
from pipelines.table.row_cipher import open_row


def test_a_row_is_found_and_opens(place, dest):
    enrolled(dest, ["ann", "bob"])
    row, keys = open_live(dest.tables, "ann", place.keyring.generation)
    assert row["subject_id"] == "ann"
    assert open_row(dest.tables.table_id, row, keys).params.alpha == 12


@pytest.mark.parametrize("subject", ["", "ANN", "nobody", "ann\x00", "a\u202enn", "' or 1=1"])
def test_nobody_else_is_found(dest, subject):
    enrolled(dest, ["ann"])
    with pytest.raises(TableError, match="holds no template of subject"):
        find_row(dest.tables, subject)


def test_of_an_empty_table_nobody(place, dest):
    with pytest.raises(TableError, match="holds no template"):
        open_live(dest.tables, "ann", place.keyring.generation)


def test_two_issues_of_one_person_are_refused(place, dest):
    enrolled(dest, ["ann"])
    enrolled(dest, ["ann"], OTHER_RUN)
    with pytest.raises(TableError, match="2 live templates"):
        open_live(dest.tables, "ann", place.keyring.generation)


def test_only_the_live_generation_answers(place, dest):
    place.keyring.succeed(2, 1, rekey=True, rotate_mac=False)
    enrolled(dest, ["ann"])
    dest.log_seal.rekey(place.keyring.generation(2))
    second = place.held(2)
    generations.prepare(second, 2, 1, Purpose.REPROTECT)
    enrolled(second, ["ann", "bob"], OTHER_RUN, generation=2)
    assert find_row(second.tables, "ann")["generation"] == 1
    assert find_row(second.tables, "bob", 2)["generation"] == 2
    with pytest.raises(TableError):
        find_row(second.tables, "bob")
    generations.switch(second, 2, {})
    row, keys = open_live(second.tables, "ann", place.keyring.generation)
    assert (row["generation"], keys.key_id) == (2, second.keys.key_id)


def test_keys_that_are_not_at_hand_are_said(place, dest):
    enrolled(dest, ["ann"])
    place.keyring.destroy_generation(1)
    with pytest.raises(KeyNotFoundError, match="destroyed"):
        open_live(dest.tables, "ann", place.keyring.generation)


def test_keys_of_another_table_are_noticed(dest):
    enrolled(dest, ["ann"])
    other = MemoryKeyring("other")
    other.add_generation(1)
    with pytest.raises(WrongKeyError, match=f"was sealed under {dest.keys.key_id}"):
        open_live(dest.tables, "ann", other.generation)


def test_a_generation_that_took_its_place_meanwhile_answers(place, dest):
    """Between the look at what is live and the row, another process switched and destroyed."""
    enrolled(dest, ["ann"])
    dest.log_seal.end()
    asked: list[int] = []

    def opener(number: int):
        asked.append(number)
        if len(asked) == 1:
            _switch(place)
            raise KeyNotFoundError("destroyed meanwhile")
        return place.keyring.generation(number)

    reader = place.reader()
    row, keys = open_live(reader, "ann", opener)
    assert asked == [1, 2]
    assert (row["generation"], keys.key_id) == (2, place.keyring.generation(2).key_id)


def _switch(place) -> None:
    place.keyring.succeed(2, 1, rekey=True, rotate_mac=False)
    place.held().log_seal.rekey(place.keyring.generation(2))
    second = place.held(2)
    generations.prepare(second, 2, 1, Purpose.REPROTECT)
    enrolled(second, ["ann"], OTHER_RUN, generation=2)
    generations.switch(second, 2, {})
    second.log_seal.end()


class TestCounts:
    def test_of_nothing(self, dest):
        assert templates_by(dest.tables, ["generation"]) == []

    def test_by_columns_in_the_order_of_the_first(self, dest):
        enrolled(dest, ["ann", "bob"], model="declared:b")
        enrolled(dest, ["cid"], OTHER_RUN, model="declared:a")
        enrolled(dest, ["dan"], "aa" * 6, model="declared:a")
        assert templates_by(dest.tables, ["model", "alpha"]) == [
            ({"model": "declared:a", "alpha": 12}, 2),
            ({"model": "declared:b", "alpha": 12}, 2),
        ]
