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
