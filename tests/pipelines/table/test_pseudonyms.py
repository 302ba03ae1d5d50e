"""Labels that do not lie in the clear: keyed by the table, opened by its keys alone."""

from __future__ import annotations

import pyarrow as pa
import pytest
from support.destinations import OTHER_RUN, Place, job, record
from support.memory_keys import MemoryKeyring

from ironmask.errors import KeyNotFoundError, TamperedError
from pipelines.plan.sources import COLUMNS
from pipelines.table import pseudonyms
from pipelines.table.pseudonyms import ADDRESS, Pseudonyms


@pytest.fixture(scope="module")
def names() -> Pseudonyms:
    return Pseudonyms(MemoryKeyring("table").table())


def source(*rows: tuple[str, str, str]) -> pa.Table:
    made = [
        {"subject_id": subject, "uri": uri, "detail": detail, "reason": ""}
        for subject, uri, detail in rows
    ]
    return pa.Table.from_pylist(made, COLUMNS)


def test_a_subject_has_one_of_a_table(names):
    assert names.subject("ann") == names.subject("ann")
    assert names.subject("ann") != Pseudonyms(MemoryKeyring("table").table()).subject("ann")
    assert names.subject("ann") != names.subject("Ann")
    assert names.subject("ann").startswith("p-")
    assert "ann" not in names.subject("ann")


def test_nobody_is_nobody(names):
    assert names.subject("") == ""


def test_a_subject_and_an_address_of_one_text_differ(names):
    assert names.subject("x")[2:] != names.address("x")[2:]


def test_labels_are_hidden_and_shown_again(names):
    row = ("ann\u202e", "photos/ann/é.jpg", "what is wrong with ann")
    hidden = names.hidden(source(row))
    (made,) = hidden.to_pylist()
    assert hidden.schema.equals(COLUMNS)
    assert made["subject_id"] == names.subject(row[0])
    assert made["uri"] == names.address(row[1])
    assert made["detail"] == ""
    text = repr({name: value for name, value in made.items() if name != ADDRESS})
    assert not any(label in text for label in ("ann", "photos"))
    assert b"ann" not in made[ADDRESS]
    assert names.shown(made["uri"], made[ADDRESS]) == row


def test_the_length_of_a_label_is_not_told(names):
    short, long = names.hidden(source(("a", "u", ""), ("a" * 30, "u", ""))).to_pylist()
    assert len(short[ADDRESS]) == len(long[ADDRESS])


def test_labels_of_another_row_are_refused(names):
    first, second = names.hidden(source(("ann", "1", ""), ("bob", "2", ""))).to_pylist()
    with pytest.raises(TamperedError):
        names.shown(first["uri"], second[ADDRESS])
    with pytest.raises(TamperedError):
        names.shown(first["uri"], b"")


class TestOfATable:
    @pytest.fixture
    def place(self):
        return Place()

    def test_labels_themselves_without_any_run(self, place):
        dest = place.held()
        assert not pseudonyms.are_kept(dest.tables)
        assert pseudonyms.kept(dest.tables, None) is None
        assert pseudonyms.stored_subject(dest.tables, None, "ann") == "ann"

    def test_the_newest_job_says_which(self, place):
        dest = place.held()
        record(dest, job(pseudonymous=False))
        assert pseudonyms.stored_subjects(dest.tables, None, ["b", "a"]) == ["b", "a"]
        record(dest, job(pseudonymous=True), OTHER_RUN)
        made = pseudonyms.kept(dest.tables, dest.keys.table)
        assert made is not None
        found = pseudonyms.stored_subjects(dest.tables, dest.keys.table, ["b", "a"])
        assert found == [made.subject("b"), made.subject("a")]

    def test_without_keys_nobody_can_be_named(self, place):
        dest = place.held()
        record(dest, job(pseudonymous=True))
        with pytest.raises(KeyNotFoundError, match="has no keys of its table"):
            pseudonyms.stored_subject(dest.tables, None, "ann")
