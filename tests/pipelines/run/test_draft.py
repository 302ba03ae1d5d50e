"""The rows of a plan: each kind of job takes what is its, and a source of nothing is refused."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.destinations import OTHER_RUN, enrolled, failed, job, row, vectors

from ironmask.errors import NothingToDoError, SourceError
from pipelines.plan.census import Census
from pipelines.run.draft import draft, listed, refuse_empty
from pipelines.spec.outcomes import Outcome, Reason
from pipelines.spec.template_job import Purpose, SourceKind
from pipelines.table.identities import of_vector
from pipelines.table.pseudonyms import Pseudonyms

SOURCE = job().source


def put(place, people: list[str], embeddings=None) -> None:
    own = vectors(len(people), seed=2) if embeddings is None else embeddings
    column = pa.array([list(map(float, one)) for one in own], pa.list_(pa.float32()))
    sink = pa.BufferOutputStream()
    names = pa.array(people, pa.string())
    pq.write_table(pa.table({"subject_id": names, "embedding": column}), sink)
    place.store.write(SOURCE, memoryview(sink.getvalue()))


def drafted(dest, asked, tables=True) -> list[tuple[str, str | None, str]]:
    found = draft(
        asked, dest.tables if tables else None, dest.store, dest.keys, Census.of(asked),
        old_keys=dest.old_keys,
    )  # fmt: skip
    rows = [one for table in found for one in table.to_pylist()]
    return [(one["subject_id"], one["outcome"], one["reason"]) for one in rows]


def test_everybody_of_the_source(place, dest):
    put(place, ["bob", "ann", "bob"])
    everybody = [("ann", None, ""), ("bob", None, ""), ("bob", None, "")]
    assert drafted(dest, job()) == everybody
    assert drafted(dest, job(), tables=False) == everybody


def test_who_has_a_template_stays_out(place, dest):
    enrolled(dest, ["ann"])
    put(place, ["ann", "bob"])
    assert drafted(dest, job()) == [
        ("ann", "skipped", "already_enrolled"),
        ("bob", None, ""),
    ]


def test_a_content_that_serves_somebody_else_is_a_duplicate(place, dest):
    (own,) = vectors(1, seed=40)
    enrolled(dest, [row("ann", contents=[of_vector(own)])])
    put(place, ["bob"], [own])
    assert drafted(dest, job()) == [("bob", "duplicate", "duplicate_other_subject")]


class TestRetry:
    """Only what failed before is taken, and only of people who have no template."""

    @pytest.fixture
    def before(self, place, dest):
        put(place, ["ann", "bob", "cid"])
        uris = {
            one["subject_id"]: one["uri"]
            for batch in listed(job(), place.store, dest.keys)
            for one in batch.to_pylist()
        }
        rows = [failed(name, reason) for name, reason in (
            ("ann", Reason.ZERO_NORM), ("bob", Reason.NOT_FINITE),
        )]  # fmt: skip
        for one in rows:
            one.uri = uris[one.subject_id]
        enrolled(dest, [*rows, "dan"])
        return uris

    def test_for_any_reason(self, dest, before):
        assert [one[0] for one in drafted(dest, job(retry=("all",)))] == ["ann", "bob"]

    def test_for_one_reason(self, dest, before):
        assert [one[0] for one in drafted(dest, job(retry=("zero_norm",)))] == ["ann"]

    def test_nothing_that_failed_so(self, dest, before):
        with pytest.raises(NothingToDoError, match="nothing to retry"):
            drafted(dest, job(retry=("no_face",)))

    def test_who_was_enrolled_since_stays_out(self, dest, before):
        enrolled(dest, [row("ann", 7)], OTHER_RUN)
        assert [one[0] for one in drafted(dest, job(retry=("all",)))] == ["bob"]


class TestRepair:
    def lost(self, name: str):
        made = row(name)
        made.settle(Outcome.USED, Reason.LOST)
        return made

    def test_only_who_lost_their_template(self, place, dest):
        enrolled(dest, ["ann", self.lost("bob")])
        put(place, ["ann", "bob", "eve"])
        assert drafted(dest, job(purpose=Purpose.REPAIR)) == [("bob", None, "")]

    def test_of_a_source_without_them_nothing(self, place, dest):
        enrolled(dest, ["ann", self.lost("bob")])
        put(place, ["ann", "eve"])
        with pytest.raises(NothingToDoError, match="holds nothing of the people"):
            drafted(dest, job(purpose=Purpose.REPAIR))


class TestRenewal:
    def asked(self):
        return job(purpose=Purpose.REPROTECT, renews=1, generation=2)

    def test_only_what_templates_were_made_from(self, place, dest):
        own = vectors(3, seed=2)
        enrolled(dest, [row("ann", contents=[of_vector(own[0])])])
        put(place, ["ann", "ann", "eve"], own)
        assert drafted(dest, self.asked()) == [("ann", None, "")]

    def test_of_a_source_without_it_nothing(self, place, dest):
        enrolled(dest, ["ann"])
        put(place, ["ann"])
        with pytest.raises(SourceError, match="holds nothing that generation 1 was made from"):
            drafted(dest, self.asked())


class TestNothing:
    def test_an_empty_source_is_refused(self, place, dest):
        put(place, [])
        with pytest.raises(SourceError):
            drafted(dest, job())

    def test_of_an_empty_folder(self, place):
        asked = job(source="/memory/photos", kind=SourceKind.FOLDER)
        with pytest.raises(SourceError, match="lists no input as a folder"):
            refuse_empty(asked, place.store)
        place.store.write("/memory/photos/ann/1.jpg", b"x")
        refuse_empty(asked, place.store)

    def test_a_new_table_has_nothing_to_retry(self, place):
        with pytest.raises(NothingToDoError):
            refuse_empty(job(retry=("all",)), place.store)


def test_labels_are_hidden_where_the_table_keeps_pseudonyms(place, dest):
    put(place, ["ann"])
    asked = job(pseudonymous=True)
    ((subject, outcome, _),) = drafted(dest, asked)
    assert subject == Pseudonyms(place.keyring.table()).subject("ann")
    assert outcome is None
