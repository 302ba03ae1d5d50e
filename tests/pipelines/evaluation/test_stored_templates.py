"""Templates that a table holds: found among the faces of a source, confirmed by their digests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.destinations import OTHER_RUN, Place, enrolled, failed, row, vectors

from ironmask.centring import Centring
from ironmask.errors import MismatchError, ProtocolError, TableError, TamperedError
from pipelines.evaluation import stored_templates
from pipelines.evaluation.stored_templates import Access, live, losses
from pipelines.plan.labelled_faces import Labels
from pipelines.spec.outcomes import Outcome, Reason

PEOPLE = ("ann", "bob", "cid")


def labels(*images: str) -> Labels:
    """Faces by their names, `person/number.jpg`, in the order of subjects and images."""
    names = sorted(images)
    owners = [name.split("/")[0] for name in names]
    subjects = sorted(set(owners))
    codes = np.array([subjects.index(one) for one in owners], np.intp)
    return Labels(codes, subjects, names, np.arange(len(names)), {}, 0, 0, {}, 0)


ALL = labels(*(f"{name}/{number}.jpg" for name in PEOPLE for number in range(2)))


@pytest.fixture
def place() -> Place:
    """A table with a template of each person, made from the first of their photos."""
    made = Place()
    enrolled(made.held(), list(PEOPLE))
    return made


@pytest.fixture
def dest(place):
    return place.held()


def access(place, dest) -> Access:
    issued = live(dest.tables, "/keys.json").issued
    return Access(issued, dest.tables, lambda: place.keyring.generation(1))


class TestLive:
    def test_what_all_templates_share(self, dest):
        found = live(dest.tables, "/keys.json")
        assert (found.issued.templates, found.issued.generation) == (3, 1)
        assert (found.issued.params.n, found.issued.params.alpha) == (64, 12)
        assert (found.centring, found.model) == (Centring.MEAN, "declared:m")
        assert found.key_id == dest.keys.key_id
        assert found.issued.keys == "/keys.json"

    def test_of_none_it_is_said(self):
        with pytest.raises(TableError, match="holds no template"):
            live(Place().held().tables, "/keys.json")

    def test_of_several_settings_it_is_said(self, dest):
        enrolled(dest, ["dan"], OTHER_RUN, model="declared:other")
        with pytest.raises(TableError, match="templates of several settings"):
            live(dest.tables, "/keys.json")

    def test_its_digest_tells_a_table_that_grew(self, dest):
        before = live(dest.tables, "/k").issued
        assert live(dest.tables, "/k").issued == before
        enrolled(dest, ["dan"], OTHER_RUN)
        assert live(dest.tables, "/k").issued.digest != before.digest


class TestRows:
    def test_faces_that_were_not_enrolled_are_probes(self, place, dest):
        found = stored_templates.rows(access(place, dest), "/e.parquet", ALL)
        assert found.subjects == list(PEOPLE)
        assert [one.tolist() for one in found.found.templates] == [[0], [2], [4]]
        assert found.found.probes.tolist() == [1, 3, 5]
        assert (found.missing, found.duplicates) == (0, 0)

    def test_templates_whose_faces_are_not_all_there_are_missing(self, place, dest):
        faces = labels("ann/0.jpg", "ann/1.jpg", "bob/0.jpg", "bob/1.jpg", "cid/1.jpg")
        found = stored_templates.rows(access(place, dest), "/e.parquet", faces)
        assert found.subjects == ["ann", "bob"]
        assert found.missing == 1
        assert 4 in found.found.probes

    def test_a_face_of_another_person_is_not_theirs(self, place, dest):
        """The source says that the photo which Ann was enrolled from is of Bob."""
        subjects = np.array([0, 0, 1, 1, 2, 2])
        subjects[0] = 1
        faces = replace(ALL, subject=subjects)
        found = stored_templates.rows(access(place, dest), "/e.parquet", faces)
        assert found.subjects == ["bob", "cid"]
        assert found.missing == 1

    def test_contents_that_the_table_knows_are_no_probes(self, place, dest):
        again = row("ann", 1)
        again.settle(Outcome.DUPLICATE, Reason.DUPLICATE_CONTENT, "same content as ann/0.jpg")
        enrolled(dest, [again], OTHER_RUN)
        found = stored_templates.rows(access(place, dest), "/e.parquet", ALL)
        assert found.duplicates == 1
        assert found.found.probes.tolist() == [3, 5]

    def test_names_are_known_by_their_ends(self, place, dest):
        faces = replace(ALL, images=[name.removesuffix(".jpg") for name in ALL.images])
        found = stored_templates.rows(access(place, dest), "/e.parquet", faces)
        assert len(found.ids) == 3

    def test_a_source_of_others_is_refused(self, place, dest):
        with pytest.raises(ProtocolError, match="holds the faces of no template"):
            stored_templates.rows(access(place, dest), "/e.parquet", labels("eve/0.jpg"))

    def test_a_table_that_has_changed_is_refused(self, place, dest):
        frozen = access(place, dest)
        enrolled(dest, ["dan"], OTHER_RUN)
        with pytest.raises(MismatchError, match="have changed since this evaluation began"):
            stored_templates.rows(frozen, "/e.parquet", ALL)


class TestOpened:
    @pytest.fixture
    def rows(self, place, dest):
        return stored_templates.rows(access(place, dest), "/e.parquet", ALL)

    def opened(self, place, dest, rows, numbers, templates):
        some = np.array(numbers, np.intp)
        return stored_templates.opened(access(place, dest), rows, some, templates)

    def test_what_a_row_was_made_from_gives_its_codeword(self, place, dest, rows):
        faces = vectors(3).astype(np.float64)
        found = self.opened(place, dest, rows, [0, 1, 2], faces)
        assert sorted(found) == [0, 1, 2]
        for helper, code in found.values():
            assert isinstance(helper, bytes)
            assert np.count_nonzero(code) <= 12

    def test_other_faces_do_not(self, place, dest, rows):
        wrong = vectors(3, seed=77).astype(np.float64)
        assert self.opened(place, dest, rows, [0, 1, 2], wrong) == {}

    def test_some_of_them_are_known_by_their_place(self, place, dest, rows):
        faces = vectors(3).astype(np.float64)
        faces[1] = vectors(1, seed=9)[0]
        assert sorted(self.opened(place, dest, rows, [0, 1, 2], faces)) == [0, 2]
        assert sorted(self.opened(place, dest, rows, [2], faces[2:])) == [0]

    def test_of_none_nothing(self, place, dest, rows):
        assert self.opened(place, dest, rows, [], np.empty((0, 64))) == {}

    def test_other_keys_open_none(self, place, dest, rows):
        place.keyring.succeed(2, 1, rekey=True, rotate_mac=False)
        other = Access(access(place, dest).issued, dest.tables, lambda: place.keyring.generation(2))
        with pytest.raises(TamperedError):
            stored_templates.opened(other, rows, np.array([0]), vectors(1).astype(np.float64))

    def test_a_row_that_is_gone_is_said(self, place, dest, rows):
        other = replace(rows, ids=["gone", *rows.ids[1:]])
        with pytest.raises(TableError, match="template gone is gone since"):
            self.opened(place, dest, other, [0], vectors(1).astype(np.float64))


class TestLosses:
    def test_of_whole_runs_none(self, dest):
        found = losses(dest.tables, 1)
        assert (found.used, found.failed, found.subjects, found.without) == (3, {}, 3, 0)

    def test_who_failed_altogether_is_without(self, dest):
        enrolled(dest, [failed("ann", number=1), failed("eve"), failed("eve", number=1)], OTHER_RUN)
        found = losses(dest.tables, 1)
        assert found.failed == {"no_face": 3}
        assert (found.used, found.subjects, found.without) == (3, 4, 1)
