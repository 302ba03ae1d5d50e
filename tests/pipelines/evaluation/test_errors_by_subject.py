"""Comparisons that are errors, by the subjects that they share; and the same within groups."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from ironmask.comparisons import Setting
from ironmask.metrics import Crossed, ScoreCounts
from ironmask.params import Params
from pipelines.evaluation.errors_by_subject import Errors, accepts, side
from pipelines.evaluation.groups import groups

# Three people of two faces each; a template of each, and all faces are probes.
SUBJECT = np.repeat(np.arange(3), 2)
TEMPLATE = np.arange(3)


def errors(genuine_cosine, impostor_cosine=None, *, floor: float = 0.0) -> Errors:
    """Each template against both faces of its person, and against all faces of the others."""
    owner = np.repeat(TEMPLATE, 2)
    pairs = [(t, p) for t in TEMPLATE for p in range(6) if SUBJECT[p] != t]
    cosine = np.zeros(len(pairs)) if impostor_cosine is None else np.asarray(impostor_cosine)
    return Errors(
        genuine={
            "template": owner,
            "probe": np.arange(6),
            "cosine": np.asarray(genuine_cosine, np.float64),
            "tolerances_0": np.array([0b11, 0b10, 0b11, 0b11, 0b11, 0b11]),
        },
        impostor={
            "template": np.array([t for t, _ in pairs]),
            "probe": np.array([p for _, p in pairs]),
            "cosine": cosine,
            "tolerances_0": np.array([0b10] * 2 + [0] * (len(pairs) - 2)),
        },
        subject=SUBJECT,
        template=TEMPLATE,
        trials=Crossed.of(np.ones(3), np.full(3, 2)),
        rng=np.random.default_rng(0),
        floor=floor,
    )


def test_refusals_are_counted_for_their_person():
    found = errors([0.9] * 6).refused(np.array([True, True, False, False, False, True]))
    assert (found.errors, found.trials, found.subjects) == (3, 6, 3)


def test_who_was_never_compared_says_nothing():
    one = errors([0.9] * 6)
    some = {name: values[:4] for name, values in one.genuine.items()}
    found = Errors(**{**vars(one), "genuine": some}).refused(np.zeros(4, bool))
    assert (found.trials, found.subjects) == (4, 2)


def test_accepted_impostors_are_counted_for_both_people():
    one = errors([0.9] * 6)
    mask = np.zeros(12, bool)
    mask[[0, 1]] = True
    found = one.accepted(mask)
    assert (found.errors, found.trials) == (2, 12)
    assert len(found.first) == 1


def test_at_a_threshold_what_lies_below_is_refused():
    one = errors([0.9, 0.5, 0.9, 0.4, 0.9, 0.9])
    assert one.refused_at(0.5).errors == 1
    assert one.refused_at(0.51).errors == 2
    assert one.refused_at(0.0).errors == 0


def test_a_rate_has_its_counts():
    one = errors([0.9] * 6, np.linspace(0, 0.5, 12))
    refused = one.refused(np.array([True] + [False] * 5))
    found = one.rate(refused)
    assert (found.errors, found.trials, found.value) == (1, 6, 1 / 6)
    accepted = one.rate(one.accepted(np.zeros(12, bool)))
    assert (accepted.errors, accepted.trials) == (0, 12)
    assert accepted.bound > 0


@pytest.mark.parametrize(
    ("tolerance", "expected"), [(0, [True, False, True]), (1, [True, True, False])]
)
def test_each_tolerance_has_its_bit(tolerance, expected):
    kept = {"tolerances_2": np.array([0b11, 0b10, 0b01])}
    assert accepts(kept, 2, tolerance).tolist() == expected


def test_sides_of_a_table_are_apart():
    table = pa.table({"genuine": [True, False, True], "cosine": [0.9, 0.1, 0.8]})
    assert side(table, True)["cosine"].tolist() == [0.9, 0.8]
    assert side(table, False)["cosine"].tolist() == [0.1]


class TestGroups:
    def rows(self, labels, settings=()):
        one = errors([0.9, 0.2, 0.9, 0.9, 0.9, 0.9], np.linspace(0, 0.5, 12))
        scores = ScoreCounts.of(one.genuine["cosine"], one.impostor["cosine"])
        return list(groups(one, scores, settings, {"sex": labels}, ["ann", "bob", "cid"]))

    def test_impostors_are_compared_within_a_group(self):
        found = {row.group: row for row in self.rows(["f", "f", "f", "f", "m", "m"])}
        assert set(found) == {"f"}
        row = found["f"]
        assert (row.label, row.what, row.subjects) == ("sex", "cosine", 2)
        assert row.fmr.trials == 4
        assert (row.fnmr.errors, row.fnmr.trials) == (1, 4)

    def test_each_setting_is_judged_beside_the_recogniser(self):
        setting = Setting(Params(64, 12, 1))
        _, row = self.rows(["f"] * 4 + ["m"] * 2, [setting])
        assert row.what == f"{setting.name} tolerance 1"
        assert (row.fnmr.errors, row.fmr.errors) == (0, 2)

    def test_people_without_a_label_are_in_none(self):
        assert self.rows([""] * 6) == []
        (row,) = self.rows(["f", "f", "f", "f", "", ""])
        assert row.subjects == 2

    def test_a_person_has_the_label_of_the_first_face(self):
        (row,) = self.rows(["f", "m", "f", "f", "x", "x"])
        assert (row.group, row.subjects) == ("f", 2)
