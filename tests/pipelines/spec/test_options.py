"""Requests from flat names: each part takes its own, and what nobody takes is refused."""

from __future__ import annotations

import pytest

from ironmask.errors import ParameterError
from pipelines.auditing.request import AuditRequest
from pipelines.enrolment.request import EnrolRequest
from pipelines.reprotection.request import ReprotectRequest
from pipelines.spec.faces import FaceSettings
from pipelines.spec.options import KeyFiles, Risk, TemplateSettings, assembled, names
from pipelines.spec.workplace import Workplace

PLACES = {"source": "photos", "dest": "table"}


def enrolment(**flat) -> EnrolRequest:
    return assembled(EnrolRequest, {**PLACES, **flat})


def test_nothing_chosen_is_the_default():
    assert enrolment() == EnrolRequest("photos", "table")


def test_each_part_takes_its_own():
    found = enrolment(alpha=12, keys="k.json", executor="local", provider="cuda", calibration="c")
    assert found == EnrolRequest(
        "photos",
        "table",
        settings=TemplateSettings(alpha=12),
        key_files=KeyFiles("k.json"),
        workplace=Workplace("local"),
        faces=FaceSettings(provider="cuda"),
        risk=Risk("c"),
    )


def test_a_part_may_be_given_whole_or_as_a_mapping():
    by_name = enrolment(det_sizes=[320], workers=2)
    assert enrolment(faces={"det_sizes": [320]}, workplace=Workplace(workers=2)) == by_name


def test_a_part_as_a_mapping_and_one_of_its_names_beside_it():
    assert enrolment(faces={"min_face": 30.0}, policy="single").faces == FaceSettings(
        policy="single", min_face=30.0
    )


def test_a_ready_made_part_and_one_of_its_names_are_refused():
    with pytest.raises(ParameterError, match="workplace is given whole, and workers"):
        enrolment(workplace=Workplace("local"), workers=2)


def test_lists_become_tuples_for_json_knows_no_others():
    assert enrolment(retry=["unreadable"]).inputs.retry == ("unreadable",)
    found = assembled(AuditRequest, {"tables": ["a"], "source": "e", "out": "o", "keys": ["k"]})
    assert (found.tables, found.keys) == (("a",), ("k",))


def test_an_unknown_name_is_refused_and_the_others_are_named():
    with pytest.raises(ParameterError, match=r"no option tolerence here.* alpha, .*tolerance"):
        enrolment(tolerence=1)


def test_an_unknown_name_inside_of_a_part_is_refused():
    with pytest.raises(ParameterError, match="no option colour in faces"):
        enrolment(faces={"colour": 1})


def test_a_name_that_another_verb_has_is_refused():
    with pytest.raises(ParameterError, match="no option kek"):
        assembled(ReprotectRequest, {"dest": "table", "kek": "local:"})


def test_a_name_that_is_given_twice_is_refused():
    with pytest.raises(ParameterError, match="policy is given twice: in faces"):
        enrolment(faces={"policy": "single"}, policy="largest")


@pytest.mark.parametrize("name", ["allow_roots", "retry", "det_sizes"])
def test_a_text_is_no_list_of_its_letters(name):
    """Of the letters of `/data`, one is a root that all files lie in."""
    with pytest.raises(ParameterError, match=f"{name} is of type str: it must be list"):
        enrolment(**{name: "/data"})


@pytest.mark.parametrize(
    "flat",
    [
        {"alpha": "16"}, {"alpha": 16.5}, {"workers": True}, {"vault": "no"}, {"model": 3},
        {"filling": "0.2"}, {"allow_roots": [3]}, {"allow_roots": None}, {"policy": 1},
        {"source": None}, {"restart": 0},
    ],
    ids=repr,
)  # fmt: skip
def test_a_value_of_another_type_is_refused_and_not_shown(flat):
    (name,) = flat
    with pytest.raises(ParameterError, match=f"^{name} is of type [a-zA-Z]+: it must be"):
        enrolment(**flat)


def test_what_other_programs_write_is_of_the_right_type():
    found = enrolment(filling=0, det_sizes=range(320, 960, 320), alpha=None)
    assert (found.settings.filling, found.faces.det_sizes) == (0, (320, 640))


@pytest.mark.parametrize("whole", [None, "local", 3, [1]], ids=repr)
def test_a_part_that_has_no_parts_is_refused(whole):
    with pytest.raises(ParameterError, match="workplace has parts: give a mapping of executor,"):
        enrolment(workplace=whole)


@pytest.mark.parametrize(("name", "number"), [("workers", 0), ("workers", -1), ("embedders", -1)])
def test_too_few_workers_are_refused(name, number):
    with pytest.raises(ParameterError, match=f"{number} {name}"):
        enrolment(**{name: number})


def test_what_must_be_given_is_named():
    with pytest.raises(ParameterError, match="source and dest must be given"):
        assembled(EnrolRequest, {})


def test_a_wrong_value_is_refused_by_its_part():
    with pytest.raises(ParameterError, match="unknown executor 'slurm'"):
        enrolment(executor="slurm")


def test_names_are_those_of_the_request_and_of_its_parts():
    found = names(ReprotectRequest)
    assert {"dest", "max_lost", "vault", "alpha", "keys", "workers", "restart"} <= found
    assert not found & {"origin", "losses", "settings", "key_files", "risk", "workplace"}
