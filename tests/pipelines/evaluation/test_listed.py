"""The comparisons that a list asks for: those alone, and a list that cannot be right is refused."""

from __future__ import annotations

import numpy as np
import pytest

from ironmask.errors import ProtocolError
from pipelines.evaluation.listed import of_pairs, of_roles, refuse_comments
from pipelines.plan.labelled_faces import EXCLUDED, Face, Labels

IMAGES = ["Ann_0001.jpg", "Ann_0002.jpg", "Ann_0003.jpg", "Bob_0001.jpg", "Bob_0002.jpg"]
SUBJECT = np.array([0, 0, 0, 1, 1])
LEFT_OUT = {
    "Ann_0009.jpg": Face(None, "Ann", "no_face"),
    "Bob_0009.jpg": Face(None, "Bob", EXCLUDED),
}


def labels(**left_out: Face) -> Labels:
    return Labels(
        SUBJECT, ["Ann", "Bob"], IMAGES, np.arange(5), left_out or dict(LEFT_OUT), 1, 0, {}, 0
    )


def pairs(*lines: str):
    return of_pairs("pairs.txt", labels(), "\n".join(lines))


def roles(*lines: str):
    return of_roles("roles.csv", labels(), "\n".join(["image,role,template", *lines]))


class TestPairs:
    def test_those_alone_are_compared(self):
        found = pairs("Ann 1 2", "Ann 3 Bob 1")
        assert [one.tolist() for one in found.templates] == [[0], [2]]
        assert found.probes.tolist() == [1, 3]
        assert sorted(map(tuple, found.pairs.tolist())) == [(0, 0), (1, 1)]
        assert found.subject.tolist() == [0, 0]
        assert found.uncompared.total == 0

    def test_a_line_that_comes_again_counts_once(self):
        found = pairs("Ann 1 2", "Ann 1 2", "Ann 1 Bob 1")
        assert (len(found.pairs), found.uncompared.repeated) == (2, 1)

    def test_what_could_not_be_acquired_is_a_failure_of_its_kind(self):
        found = pairs("Ann 1 2", "Ann 1 Bob 1", "Ann 1 9", "Ann 9 Bob 1", "Ann 1 Bob 7")
        assert found.uncompared.genuine == {"no_face": 1}
        assert found.uncompared.impostor == {"no_face": 1, "not in the source": 1}

    def test_what_is_left_out_on_purpose_is_none(self):
        found = pairs("Ann 1 2", "Ann 1 Bob 1", "Bob 1 9", "Ann 9 Bob 9")
        assert (found.uncompared.excluded, found.uncompared.total) == (2, 0)

    @pytest.mark.parametrize(
        ("lines", "said"),
        [
            (("Eve 1 2",), "none of its 1 pairs has both images"),
            (("Ann 1 2", "Ann 2 3"), "no pair is impostor"),
            (("Ann 1 Bob 1",), "no pair is genuine"),
            (("Ann 1 2", "Ann 1 9", "Ann 9 Bob 1"), r"no pair is impostor of those .*\(2 cannot\)"),
        ],
    )
    def test_a_list_that_says_half_is_refused(self, lines, said):
        with pytest.raises(ProtocolError, match=said):
            pairs(*lines)

    def test_one_that_contradicts_the_labels_is_refused(self):
        swapped = Labels(
            SUBJECT[::-1].copy(), ["Ann", "Bob"], IMAGES, np.arange(5), {}, 0, 0, {}, 0
        )
        with pytest.raises(ProtocolError, match="contradict 1 of 2 pairs"):
            of_pairs("pairs.txt", swapped, "Ann 1 2\nAnn 1 3\n")

    def test_two_images_of_one_name_are_refused(self):
        twice = labels(**{"other/Ann_1.png": Face(None, "Ann", "no_face")})
        with pytest.raises(ProtocolError, match="image 1 of 'Ann' may be"):
            of_pairs("pairs.txt", twice, "Ann 1 2\n")

    def test_a_comment_that_names_a_face_is_refused(self):
        marked = labels(**{"#Ann_0001.jpg": Face(None, "#Ann", "no_face")})
        with pytest.raises(ProtocolError, match=r"line 1: it begins with # like a comment"):
            of_pairs("pairs.txt", marked, "#Ann 1 2\nAnn 1 2\n")
        assert len(pairs("# Ann 1 and others", "Ann 1 2", "Ann 1 Bob 1").pairs) == 2


class TestRoles:
    def test_every_template_meets_every_probe(self):
        found = roles("Ann_0001.jpg,enrol,", "Bob_0001.jpg,enrol,", "Ann_0002.jpg,probe,")
        assert [one.tolist() for one in found.templates] == [[0], [3]]
        assert (found.subject.tolist(), found.probes.tolist()) == ([0, 1], [1])
        assert found.pairs is None

    def test_faces_of_one_person_are_one_template_unless_named(self):
        lines = ["Ann_0001.jpg,enrol,{0}", "Ann_0002.jpg,enrol,{1}", "Ann_0003.jpg,probe,"]
        together = roles(*(line.format("", "") for line in lines), "Bob_0001.jpg,enrol,")
        assert [len(one) for one in together.templates] == [2, 1]
        apart = roles(*(line.format("a", "b") for line in lines), "Bob_0001.jpg,enrol,")
        assert [len(one) for one in apart.templates] == [1, 1, 1]

    def test_what_could_not_be_acquired_is_counted_with_all_it_would_meet(self):
        found = roles(
            "Ann_0001.jpg,enrol,",
            "Bob_0001.jpg,enrol,",
            "Ann_0009.jpg,probe,",
            "Bob_0002.jpg,probe,",
            "Bob_0009.jpg,probe,",
        )
        assert found.uncompared.genuine == {"no_face": 1}
        assert found.uncompared.impostor == {"no_face": 1}
        assert found.uncompared.excluded == 1

    def test_a_template_of_nothing_is_one_that_failed(self):
        found = roles(
            "Ann_0009.jpg,enrol,",
            "Bob_0001.jpg,enrol,",
            "Ann_0002.jpg,probe,",
            "Bob_0002.jpg,probe,",
        )
        assert found.uncompared.genuine == {"no_face": 1}
        assert found.uncompared.impostor == {"no_face": 1}
        assert found.subject.tolist() == [1]

    @pytest.mark.parametrize(
        ("lines", "said"),
        [
            (("Ann_0001.jpg,enrol,",), "needs lines of role enrol and of role probe"),
            (("Ann_0009.jpg,enrol,", "Bob_0001.jpg,probe,"), "needs lines of role enrol"),
            (("Eve_0001.jpg,enrol,",), "line 2: the source has no image 'Eve_0001.jpg'"),
            (
                ("Ann_0001.jpg,enrol,t", "Bob_0001.jpg,enrol,t", "Ann_0002.jpg,probe,"),
                "template 't' has faces of several subjects",
            ),
            (
                ("Ann_0001.jpg,enrol,", "Ann_0001.jpg,probe,"),
                "is enrolled and a probe, so it would be compared with itself",
            ),
        ],
    )
    def test_a_list_that_cannot_be_right_is_refused(self, lines, said):
        with pytest.raises(ProtocolError, match=said):
            roles(*lines)

    def test_a_face_of_nobody_has_no_role(self):
        nobody = labels(**{"x.jpg": Face(None, "", "no_subject")})
        with pytest.raises(ProtocolError, match=r"image 'x\.jpg' has no subject"):
            of_roles("roles.csv", nobody, "image,role\nx.jpg,enrol\n")


def test_a_list_of_names_must_not_comment_out_a_face():
    marked = labels(**{"#1.jpg": Face(None, "Ann", "no_face")})
    refuse_comments("names.txt", marked, "# a comment\nAnn\n")
    with pytest.raises(ProtocolError, match="line 2"):
        refuse_comments("names.txt", marked, "Ann\n#1.jpg\n")
