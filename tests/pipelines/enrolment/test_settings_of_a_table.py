"""What nobody chose is as in the table that is there, its version of the scheme among it."""

from __future__ import annotations

import pytest
from support.command import ironmask
from support.enrolling import (
    ALPHA,
    TOLERANCE,
    WIDTH,
    captures,
    request,
    run,
    run_as_first_version,
    several,
    unit_vectors,
    write_embeddings,
)
from support.table import checked, copied, keys_of, rows, templates, verified

from ironmask.errors import MismatchError, RiskError
from ironmask.params import DEFAULT_PRESET, PRESETS, Params, preset
from pipelines.enrolment import request as enrolment_request
from pipelines.spec.parameters import chosen_params

FIRST, MORE = 3, 6
NOTHING = {"alpha": None, "tolerance": None}
FIRST_VERSION = "first_version"
KINDS = {
    FIRST_VERSION: {},
    "square": {"code_width": WIDTH, "structure": "real"},
    "quaternionic": {"code_width": WIDTH, "structure": "quaternionic"},
    "wide": {"code_width": 2 * WIDTH, "structure": "quaternionic"},
    "wide_and_real": {"code_width": 2 * WIDTH, "structure": "real"},
}
LATER = ("code_width", "structure", "conditioner", "own_secret")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A table of three people of each kind, in an encoding and a centring that are not usual."""
    folder = tmp_path_factory.mktemp("prepared")
    source = several(folder / "e.parquet", FIRST)
    for name, settings in KINDS.items():
        asked = request(
            source, folder / name, encoding="float16", centring="regression", **settings
        )
        (run_as_first_version if name == FIRST_VERSION else run)(asked)
    return folder


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def made(prepared, tmp_path, kind):
    return copied(prepared / kind, tmp_path / "d")


@pytest.fixture
def more(tmp_path):
    """The same people, and as many others."""
    return several(tmp_path / "more.parquet", MORE)


def params_of(row) -> Params:
    return Params.recorded(row)


def test_without_options_it_is_added_to(made, more, kind):
    before = templates(made)
    assert run(request(more, made, **NOTHING)).subjects_enrolled == MORE - FIRST
    after = templates(made)
    assert len(after) == MORE
    assert {name: after[name] for name in before} == before
    (params,) = {params_of(row) for row in after.values()}
    assert params.version == (1 if kind == FIRST_VERSION else 2)
    assert (params.alpha, params.tolerance) == (ALPHA, TOLERANCE)
    for name in ("encoding", "centring", *LATER):
        assert len({row[name] for row in after.values()}) == 1, name
    probes = captures(unit_vectors(MORE), 1, seed=9)
    for number, name in enumerate(sorted(after)):
        pair = probes[[number, number - 1]]
        assert verified(made, name, pair) == [True, False]
    assert checked(made).code == 0


def test_the_columns_of_version_2_are_null_in_rows_of_version_1(made, kind):
    for row in templates(made).values():
        found = {name: row[name] for name in LATER}
        if kind == FIRST_VERSION:
            assert found == dict.fromkeys(LATER)
        else:
            assert found == {**KINDS[kind], "conditioner": None, "own_secret": False}


def test_naming_what_is_there_is_the_same(made, more, kind):
    named = {"alpha": ALPHA, "tolerance": TOLERANCE, "encoding": "float16"}
    asked = request(more, made, **named, centring="regression", **KINDS[kind])
    assert run(asked).subjects_enrolled == MORE - FIRST


@pytest.mark.parametrize(
    "chosen",
    [
        *({"preset": name} for name in PRESETS),
        {"code_width": 3 * WIDTH},
        {"alpha": ALPHA + 1},
        {"encoding": "int8"},
        {"centring": "mean"},
    ],
    ids=str,
)
def test_other_choices_are_refused_and_named(made, more, kind, chosen):
    asked = request(more, made, **{**NOTHING, **chosen})
    there = params_of(next(iter(templates(made).values())))
    here = chosen_params(asked.settings, WIDTH, there)
    with pytest.raises(MismatchError) as caught:
        run(asked)
    for name, value in here.recording().items():
        said = f"{name} is {there.recording()[name]} there and {value} here"
        assert (said in str(caught.value)) == (value != there.recording()[name])
    assert len(rows(made, "templates")) == FIRST


@pytest.mark.parametrize("kind", [FIRST_VERSION], indirect=True)
class TestOfVersion1:
    def test_a_wider_code_is_refused(self, made, more):
        with pytest.raises(MismatchError, match="code_width is 64 there and 128 here"):
            run(request(more, made, code_width=128))
        with pytest.raises(MismatchError, match="structure is real there and quaternionic here"):
            run(request(more, made, structure="quaternionic"))

    def test_records_of_before_are_those_of_square_real_helpers(self, made, more, monkeypatch):
        """They do not name what version 1 of the scheme has not."""
        from pipelines.run import admit
        from pipelines.table import run_records

        def as_then(tables):
            found = run_records.runs(tables)
            for record in found:
                for part in (record.config["shapes"], record.config["job"]["params"]):
                    for name in ("code_width", "structure", "version"):
                        part.pop(name, None)
            return found

        monkeypatch.setattr(admit, "runs", as_then)
        with pytest.raises(MismatchError) as caught:
            run(request(more, made, code_width=128))
        assert "code_width is 64 there and 128 here" in str(caught.value)
        assert run(request(more, made)).subjects_enrolled == MORE - FIRST

    def test_the_command_says_what_is_there(self, made, more):
        common = ("enroll", more, made, "--executor=local", f"--keys={keys_of(made)}")
        foreseen = ironmask(*common, "--dry-run", "--json")
        settings = f"n {WIDTH}, alpha {ALPHA}, tolerance {TOLERANCE} "
        assert settings in foreseen.err
        assert "float16, centring regression" in foreseen.err
        assert settings in foreseen.json()["settings"]
        assert ironmask(*common).code == 0

    def test_inspect_tells_the_version(self, made):
        (found,) = ironmask("inspect", made, "--json").json()["generations"]
        assert found["scheme_version"] == 1
        assert (found["code_width"], found["structure"]) == (WIDTH, "real")
        assert f"version 1, code {WIDTH} wide, real" in " ".join(
            ironmask("inspect", made).out.split()
        )
        status = ironmask("status", made, "--json").json()
        told = [status[name] for name in ("scheme_version", "code_width", "structure")]
        assert told == [1, WIDTH, "real"]


class TestWhereNobodyWasEnrolled:
    def test_the_defaults_hold(self, tmp_path, more):
        bad = write_embeddings(tmp_path / "bad.parquet", ["s"], [[float("nan")] * WIDTH])
        dest = tmp_path / "d"
        assert run(request(bad, dest, encoding="float16")).subjects_enrolled == 0
        run(request(more, dest, preset=DEFAULT_PRESET, **NOTHING))
        (params,) = {params_of(row) for row in templates(dest).values()}
        assert params == preset(DEFAULT_PRESET, WIDTH)
        assert {row["encoding"] for row in templates(dest).values()} == {"int8.1"}


class TestInTheClear:
    """A wide code is the sparsest vector of a known subspace: no row of one lies unencrypted."""

    WIDE = [name for name, one in PRESETS.items() if one.widening > 1]  # noqa: RUF012
    PLAIN = {"plaintext_helpers": True, "accepted_risk": "stolen-rows"}  # noqa: RUF012

    @pytest.mark.parametrize("chosen", [*WIDE, WIDTH + 1])
    def test_a_wide_code_is_refused_whatever_risk_is_accepted(self, tmp_path, more, chosen):
        name = "code_width" if isinstance(chosen, int) else "preset"
        with pytest.raises(RiskError) as caught:
            enrolment_request.prepare(request(more, tmp_path / "d", **self.PLAIN, **{name: chosen}))
        said = str(caught.value)
        assert f"known {WIDTH}-dimensional subspace" in said
        assert "less than nothing" in said
        assert "leave --plaintext-helpers out" in said
        for name, one in PRESETS.items():
            assert (name in said) == (one.widening == 1)

    def test_the_command_says_so_in_one_line(self, tmp_path, more):
        answer = ironmask(
            "enroll", more, tmp_path / "d", "--executor=local", "--plaintext-helpers",
            "--accept-risk=stolen-rows", f"--preset={self.WIDE[0]}",
        )  # fmt: skip
        assert answer.code == 1
        assert len(answer.errors) == 1
        assert not (tmp_path / "d").exists()

    @pytest.mark.parametrize("name", [n for n, one in PRESETS.items() if one.widening == 1])
    def test_a_square_one_may_if_the_risk_is_taken(self, tmp_path, more, name):
        dest = tmp_path / "d"
        assert run(request(more, dest, preset=name, **self.PLAIN)).subjects_enrolled == MORE
        assert {row["sealed"] for row in templates(dest).values()} == {False}
