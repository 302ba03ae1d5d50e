"""Before a switch: who would lose their template, and whether the new rows open."""

from __future__ import annotations

import pytest
from support.destinations import DEST, OTHER_RUN, enrolled, job

from ironmask.errors import CountError, SourceError, TableError, TamperedError
from pipelines.reprotection import losses
from pipelines.reprotection.losses import lost, open_some, refuse_losses
from pipelines.spec.template_job import Purpose
from pipelines.table import generations

MANY = [f"s{number:02d}" for number in range(40)]


def prepared(place, old: list[str], new: list[str]):
    """A table in which generation 2 of some people is about to take the place of generation 1."""
    first = place.held()
    enrolled(first, old)
    place.keyring.succeed(2, 1, rekey=True, rotate_mac=False)
    first.log_seal.rekey(place.keyring.generation(2))
    dest = place.held(2)
    generations.prepare(dest, 2, 1, Purpose.REPROTECT)
    if new:
        enrolled(dest, new, OTHER_RUN, generation=2)
    return dest


def asked():
    return job(renews=1, generation=2, purpose=Purpose.REPROTECT)


def test_nobody_where_all_are_there(place):
    dest = prepared(place, ["ann", "bob"], ["bob", "ann", "new"])
    assert lost(dest.tables, 1, 2).count == 0
    assert refuse_losses(dest.tables, asked(), 0).count == 0


def test_those_without_a_new_template(place):
    dest = prepared(place, ["ann", "bob", "cid"], ["bob"])
    found = lost(dest.tables, 1, 2)
    assert (found.count, set(found.some)) == (2, {"ann", "cid"})


def test_only_a_few_are_named(place):
    dest = prepared(place, MANY, [MANY[0]])
    found = lost(dest.tables, 1, 2)
    assert (found.count, len(found.some)) == (39, 5)
    assert set(found.some) <= set(MANY[1:])


def test_of_an_empty_generation_everybody(place):
    dest = prepared(place, ["ann", "bob"], [])
    assert lost(dest.tables, 1, 2).count == 2


def test_more_than_are_allowed_are_refused(place):
    dest = prepared(place, ["ann", "bob", "cid"], ["bob"])
    for allowed in (0, 1):
        with pytest.raises(SourceError, match=r"2 people of generation 1 .*--max-lost 2"):
            refuse_losses(dest.tables, asked(), allowed)
    assert refuse_losses(dest.tables, asked(), 2).count == 2


def test_two_new_templates_of_one_person_stop_it(place):
    dest = prepared(place, ["ann"], ["ann"])
    enrolled(dest, ["ann"], "dd" * 6, generation=2)
    with pytest.raises(CountError, match="2 templates of 1 people: it must not become live"):
        lost(dest.tables, 1, 2)


class TestOpened:
    def test_rows_open_with_their_keys(self, place):
        dest = prepared(place, MANY, MANY)
        open_some(dest.tables, 2, place.keyring.generation(2))
        open_some(dest.tables, 1, place.keyring.generation(1))

    def test_not_with_others(self, place):
        dest = prepared(place, ["ann"], ["ann"])
        with pytest.raises(TamperedError, match="does not authenticate"):
            open_some(dest.tables, 2, place.keyring.generation(1))

    def test_of_none_it_cannot_become_live(self, place):
        dest = prepared(place, ["ann"], [])
        with pytest.raises(TableError, match="generation 2 holds no template"):
            open_some(dest.tables, 2, place.keyring.generation(2))

    def test_a_file_that_was_changed_is_noticed(self, place):
        dest = prepared(place, ["ann"], ["ann"])
        (path,) = (path for path in place.listed("templates") if "generation=2" in path)
        uri = f"{DEST}/templates/{path}"
        content = bytearray(place.store.read(uri))
        content[len(content) // 2] ^= 1
        place.store.write(uri, bytes(content))
        with pytest.raises(TamperedError, match="is not what was written"):
            open_some(dest.tables, 2, place.keyring.generation(2))

    def test_rows_from_all_over_are_opened(self, place, monkeypatch):
        dest = prepared(place, MANY, MANY)
        opened: list[str] = []
        whole = losses.open_row

        def counting(table_id, row, keys):
            opened.append(row["subject_id"])
            return whole(table_id, row, keys)

        monkeypatch.setattr(losses, "open_row", counting)
        open_some(dest.tables, 2, place.keyring.generation(2))
        assert len(set(opened)) == 16
        assert {MANY[0], MANY[-1]} <= set(opened)
