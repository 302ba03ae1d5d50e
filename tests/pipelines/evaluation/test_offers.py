"""The settings that there are for a recogniser, asked for by command and by call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.command import ironmask

import pipelines
from ironmask import Params
from ironmask.errors import ParameterError
from pipelines.report import offers

PEOPLE, EACH, N = 400, 3, 512


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    """People who are told apart rather well, though photos of one lie 67 degrees apart."""
    rng = np.random.default_rng(2)
    owner = np.repeat(np.arange(PEOPLE), EACH)
    vectors = rng.standard_normal((PEOPLE, N))[owner] + 1.23 * rng.standard_normal((len(owner), N))
    table = pa.table(
        {"subject_id": [f"p{o:03d}" for o in owner], "embedding": list(vectors.astype(np.float32))}
    )
    path = tmp_path_factory.mktemp("faces") / "faces.parquet"
    pq.write_table(table, path)
    return path


@pytest.fixture(scope="module")
def profile(faces) -> Path:
    """What an evaluation of them leaves."""
    out = faces.with_name("out")
    options = {"protocols": ["first:1", "first:2"], "settings": ["1024,14,1"], "executor": "local"}
    pipelines.evaluate(str(faces), str(out), **options)
    return out


def test_what_is_shipped_serves_without_anything_else():
    found = pipelines.settings(fmr=1e-5, floor_bits=100)
    chosen = found.chosen
    assert chosen is not None
    assert chosen.params.n == 512
    assert chosen.params.bits >= 100
    assert chosen.kib <= 140
    assert chosen.fmr.bound <= 1e-5
    assert all(one.candidate.fmr.bound <= 1e-5 for one in found.listed)
    tar = [one.candidate.tar for one in found.listed]
    assert tar == sorted(tar, reverse=True)
    assert chosen.tar >= tar[0] - found.listed[0].candidate.fnmr.error
    assert "w600k_mbf on LFW, 1 photo" in found.offer.measured.source
    # A setting is a mixture of thresholds, so it is no better than the threshold at its FMR.
    assert all(one.recogniser > one.candidate.tar - 0.03 for one in found.listed if one.recogniser)


def test_fewer_bits_or_more_bytes_accept_no_less():
    tar = [
        pipelines.settings(fmr=1e-4, **limits, rows=1).chosen.tar
        for limits in ({"floor_bits": 110}, {"floor_bits": 90}, {"floor_bits": 90, "most_kib": 260})
    ]
    assert tar[0] < tar[1] < tar[2]


@pytest.mark.slow
def test_an_evaluation_is_a_profile(profile):
    """Its expected rates lie near those that it measured with real issues."""
    rows = pq.read_table(profile / "protected.parquet").to_pylist()
    for photos, row in enumerate(rows, 1):
        found = pipelines.settings(str(profile), photos=photos, rows=1)
        assert found.offer.measured.photos == photos
        assert found.offer.measured.curve.impostor == row["fmr_trials"]
        params = Params(N, row["alpha"], row["tolerance"], row["code_width"], row["structure"])
        (one,) = [one for one in found.offer.candidates if one.params == params]
        # Both are of the same comparisons; only the helpers' own chance is between them.
        chance = one.tar * (1 - one.tar) / row["fnmr_trials"]
        assert abs(one.tar - (1 - row["fnmr"])) < 4.5 * np.sqrt(chance) + 0.01
        assert row["fmr_low"] <= one.fmr.bound
    assert 0.2 < rows[0]["fnmr"] < 0.8
    with pytest.raises(ParameterError, match="none of 3"):
        pipelines.settings(str(profile), photos=3)


def test_a_rate_that_so_few_cannot_tell_is_refused(faces):
    answer = ironmask("settings", "--calibration", faces, "--fmr", "1e-7")
    assert (answer.code, len(answer.errors)) == (2, 1)
    trials = PEOPLE * (PEOPLE - 1) * (EACH - 1)
    assert f"1e-07 is not supported by {trials:,} impostor comparisons" in answer.errors[0]
    assert "are needed" in answer.errors[0]


def test_the_command_prints_a_table_and_json(faces):
    asked = ("settings", "--calibration", faces, "--fmr", ".01", "--rows", 3)
    answer = ironmask(*asked, "--json")
    assert answer.code == 0, answer.err
    told = answer.json()
    assert told["photos"] == 1
    assert str(faces) in told["source"]
    (chosen,) = [row for row in told["settings"] if row["chosen"]]
    assert chosen["fmr_low"] <= chosen["fmr"] <= chosen["fmr_bound"] <= 0.01
    assert chosen["tar_low"] <= chosen["tar"] <= chosen["tar_high"]
    assert chosen["bits"] >= 80
    assert chosen["verify_ms"] > 0
    again = ironmask(*asked)
    assert again.code == 0
    said = " ".join(again.out.split())
    assert f"Chosen: n {N}" in said
    assert f"alpha {chosen['alpha']}, tolerance {chosen['tolerance']}" in said
    assert "more keep to the limits" in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--fmr", "2"), "between 0 and 1"),
        (("--floor-bits", "400"), "ask for fewer"),
        (("--most-kib", "1"), "allow more bytes"),
        (("--encoding", "int3"), "unknown encoding"),
        (("here", "--calibration", "there"), "name one"),
    ],
)
def test_what_cannot_be_offered_is_refused(options, says):
    answer = ironmask("settings", *options)
    assert (answer.code, len(answer.errors)) == (2, 1)
    assert says in answer.errors[0]


def test_each_row_of_the_sheet_has_all_columns():
    found = pipelines.settings(rows=2)
    sheet = offers.sheet(found)
    assert {len(row) for row in sheet.rows} == {len(sheet.columns)}
    assert found.chosen is None
    assert offers.answer(found) == ""
