"""Parameters of new templates: what was chosen, beside a preset or the live ones."""

from __future__ import annotations

import pytest

from ironmask.choosing import Limits, catalogue
from ironmask.errors import ParameterError
from ironmask.params import (
    DEFAULT_PRESET,
    MOST_WIDENING,
    PRESETS,
    SCHEME_VERSION,
    Params,
    Structure,
    preset,
    structure_for,
)
from pipelines.spec.options import TemplateSettings
from pipelines.spec.parameters import as_wide, chosen_params
from pipelines.spec.template_job import SourceKind, TemplateJob

N = 64
FIRST = Params(N, 12, 1, version=1)
SQUARE = Params(N, 12, 1)
WIDE = Params(N, 12, 1, 2 * N, Structure.QUATERNIONIC)
WIDE_REAL = Params(N, 12, 1, 2 * N)
LIVE = {"of version 1": FIRST, "square": SQUARE, "wide": WIDE, "wide and real": WIDE_REAL}


def params(live: Params | None = None, n: int = N, /, **chosen: object) -> Params:
    return chosen_params(TemplateSettings(**chosen), n, live)


def test_a_new_table_has_the_default_preset():
    assert params() == preset(DEFAULT_PRESET, N)


@pytest.mark.parametrize("live", [None, *LIVE.values()])
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_all_of_them_and_the_version(name, live):
    assert params(live, preset=name) == preset(name, N)
    assert params(live, preset=name).version == SCHEME_VERSION


def test_what_was_chosen_overrides_the_preset():
    found = params(preset=DEFAULT_PRESET, alpha=11, tolerance=2)
    before = preset(DEFAULT_PRESET, N)
    assert (found.alpha, found.tolerance) == (11, 2)
    assert (found.code_width, found.structure) == (before.code_width, before.structure)


@pytest.mark.parametrize("live", LIVE.values(), ids=LIVE)
def test_what_was_not_chosen_is_as_in_the_live_templates(live):
    assert params(live) == live
    assert params(live, alpha=13) == Params(N, 13, 1, live.code_width, live.structure, live.version)


@pytest.mark.parametrize("live", LIVE.values(), ids=LIVE)
def test_naming_what_is_there_changes_nothing(live):
    named = {"alpha": live.alpha, "tolerance": live.tolerance}
    assert params(live, **named, code_width=live.code_width) == live
    assert params(live, **named, structure=str(live.structure)) == live


@pytest.mark.parametrize(("n", "width"), [(64, 192), (64, 130), (66, 132), (128, 128)])
@pytest.mark.parametrize("live", [None, FIRST, WIDE_REAL])
def test_another_width_has_the_structure_that_suits_it(n, width, live):
    found = params(live, n, code_width=width)
    assert found.code_width == width
    if live is None or width != as_wide(live, n).code_width:
        assert found.structure is structure_for(n, width)


def test_a_structure_that_was_chosen_stays():
    assert params(code_width=3 * N, structure="real").structure is Structure.REAL
    assert params(preset="paper", structure="quaternionic").structure is Structure.QUATERNIONIC


@pytest.mark.parametrize(
    "chosen", [{"code_width": 2 * N}, {"structure": "quaternionic"}, {"preset": "paper"}]
)
def test_what_version_1_does_not_have_is_of_version_2(chosen):
    assert params(FIRST, **chosen).version == 2


@pytest.mark.parametrize("chosen", [{"alpha": 13}, {"structure": "real"}, {"code_width": N}])
def test_other_choices_leave_version_1(chosen):
    assert params(FIRST, **chosen).version == 1


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"preset": "safest"}, "unknown preset 'safest'"),
        ({"structure": "complex"}, "unknown structure 'complex'"),
        ({"code_width": N - 1}, "must lie in n"),
        ({"code_width": 0}, "width is 0"),
        ({"code_width": N + 2, "structure": "quaternionic"}, "widths that 4 divides"),
    ],
)
def test_what_cannot_be_is_refused(chosen, said):
    with pytest.raises(ParameterError, match=said):
        params(**chosen)


class TestEmbeddingsOfAnotherWidth:
    def test_the_code_is_as_many_times_wider(self):
        assert as_wide(WIDE, 128) == Params(128, 12, 1, 256, Structure.QUATERNIONIC)
        assert as_wide(FIRST, 128) == Params(128, 12, 1, version=1)

    def test_where_4_does_not_divide_it_the_helper_is_real(self):
        assert as_wide(WIDE, 66) == Params(66, 12, 1, 132)

    def test_real_helpers_stay_real(self):
        assert as_wide(WIDE_REAL, 128) == Params(128, 12, 1, 256)


def test_the_widest_code_that_is_offered_is_the_widest_that_a_job_takes():
    def job(code_width: int) -> TemplateJob:
        return TemplateJob("/s", "/d", SourceKind.FOLDER, "m", Params(N, 16, 0, code_width))

    every = Limits(None, bits=0, kib=1e6)
    widest = max(one.code_width for one in catalogue(N, "int8", every))
    assert widest == MOST_WIDENING * N
    assert job(widest).params.code_width == widest
    with pytest.raises(ParameterError, match=f"at most {MOST_WIDENING} times as wide"):
        job(widest + 1)
