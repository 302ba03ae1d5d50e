"""What an audit found as rows of a table: each value once, under the audit that found it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ironmask.attacks import Foretold
from ironmask.comparisons import Setting
from ironmask.metrics import Linkability
from ironmask.metrics.intervals import Interval
from ironmask.params import Params
from ironmask.spectrum import Spectrum
from pipelines.auditing.costs import FILES, KEYS, Cost
from pipelines.auditing.frozen import Audit, Target
from pipelines.auditing.job import is_of_templates
from pipelines.auditing.rates import metrics, run_id
from pipelines.auditing.results import AuditResults
from pipelines.preflight.judge import Preflight
from pipelines.preflight.profile import Profile

SPACE = Spectrum(500, np.eye(64) * 500 / 64)
TARGET = Target("/t", "id", 1, "/k", Params(64, 12, 1), "int8.1", True, 0.0, None, 20)
AUDIT = Audit((TARGET,), "/e.parquet", "v", (), 2.0, ())
LINK = Linkability(20, 20, 6, 0.25, Interval(0.1, 0.4), 0.5, Interval(0.2, 0.7))
COSTS = [
    Cost("search of one row", KEYS, "", "", 20.5, 3.0),
    Cost("key of AES-256-GCM", FILES, "", "", 256.0),
]
FOUND = AuditResults(
    AUDIT,
    COSTS,
    {"nearest": LINK},
    {},
    [],
    SPACE,
    Preflight(Profile("m", "s", SPACE, 500), "m", 9.0, Foretold(1, 3000.0, 1.0, False)),
    "",
)


def test_each_value_is_a_row():
    rows = {(row["name"], row["label"]): row["value"] for row in metrics(FOUND)}
    assert rows == {
        ("attack_bits", f"search of one row, with {KEYS}"): 20.5,
        ("attack_bits", f"key of AES-256-GCM, with {FILES}"): 256.0,
        ("attack_seconds", f"search of one row, with {KEYS}"): 3.0,
        ("d_sys", "nearest"): 0.25,
        ("maximal_linkability", "nearest"): 0.5,
        ("effective_rank", "/e.parquet"): SPACE.effective_rank,
    }
    assert {row["run_id"] for row in metrics(FOUND)} == {run_id(FOUND)}


def test_another_audit_has_another_name():
    other = replace(FOUND, audit=replace(AUDIT, sampled=("ann",)))
    assert run_id(other) != run_id(FOUND)
    assert run_id(replace(FOUND, costs=[])) == run_id(FOUND)


def test_a_rate_of_other_templates_is_none_of_these():
    """A table that moved to a wider code keeps the rates that its narrow one had."""
    wide = Params(512, 16, 2, 1024, "quaternionic")
    assert is_of_templates("table, mean: N1024 alpha16 int8 tolerance 2", wide, "int8.1")
    for other in (
        "table: N512 alpha16 int8 tolerance 2",
        "table: N1024 real alpha16 int8 tolerance 2",
        "table: N1024 alpha16 bits6 tolerance 2",
        "table: alpha16 int8 tolerance 2",
        "table: N1024 alpha16 int8 tolerance 12",
        "first:1: N1024 alpha16 int8 tolerance 2",
        "tablets, mean: N1024 alpha16 int8 tolerance 2",
        "table, mean: other N1024 alpha16 int8 tolerance 2",
        "table, mean: N1024 alpha16 int9 tolerance 2",
        "table, mean: cosine FMR 1e-06",
    ):
        assert not is_of_templates(other, wide, "int8.1")
    before = Params(512, 16, 2, version=1)
    assert is_of_templates("table: alpha16 int8 tolerance 2", before, "int8.1")
    assert not is_of_templates("table: alpha12 int8 tolerance 2", before, "int8.1")


@pytest.mark.parametrize(
    ("n", "code_width", "structure"),
    [
        (512, 512, "real"), (512, 512, "quaternionic"), (512, 1024, "real"),
        (512, 1024, "quaternionic"), (66, 66, "real"), (66, 100, "real"),
    ],
)  # fmt: skip
def test_a_rate_is_told_by_its_parameters_and_not_by_their_spelling(n, code_width, structure):
    params = Params(n, 12, 1, code_width, structure)
    written = Setting(params, "int8").name
    assert is_of_templates(f"table, mean: {written} tolerance 1", params, "int8.1")
    in_full = f"N{code_width} {structure} alpha12 int8 tolerance 1"
    assert is_of_templates(f"table, mean: {in_full}", params, "int8.1")


@pytest.mark.parametrize("version", [1, 2])
def test_a_rate_of_version_1_is_one_of_all_square_real_templates(version):
    """A table that was protected anew accepts whom it accepted before."""
    params = Params(512, 16, 2, version=version)
    for label in ("table: alpha16 int8 tolerance 2", "table: N512 real alpha16 int8 tolerance 2"):
        assert is_of_templates(label, params, "int8.1")
    square = replace(params, structure="quaternionic", version=2)
    assert not is_of_templates("table: alpha16 int8 tolerance 2", square, "int8.1")
