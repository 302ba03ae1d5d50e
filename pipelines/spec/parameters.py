"""The scheme's parameters of new templates: what was chosen, beside a preset or the live ones."""

from __future__ import annotations

from dataclasses import replace

from ironmask.errors import ParameterError
from ironmask.params import (
    DEFAULT_PRESET,
    SCHEME_VERSION,
    Params,
    Structure,
    preset,
    structure_for,
)
from pipelines.spec.options import TemplateSettings


def chosen_params(chosen: TemplateSettings, n: int, live: Params | None = None) -> Params:
    """The parameters of templates of embeddings of width n. live: those of the live templates.

    A preset sets all of them, the version too. Without one, what was not chosen is as it is in the
    live templates, or as the default preset has it. A code of another width than theirs has the
    structure that `structure_for` gives, unless one was chosen. Live templates of version 1 stay so
    unless what was chosen needs version 2.

    Raises `ParameterError` for a preset, a width or a structure that cannot be.
    """
    if live is None or chosen.preset:
        base = preset(chosen.preset or DEFAULT_PRESET, n)
    else:
        base = as_wide(live, n)
    if chosen.code_width == 0:
        raise ParameterError("the code's width is 0: leave it out, or name the embedding's width")
    given = chosen.given("alpha", "tolerance", "code_width", "structure")
    width = given.setdefault("code_width", base.code_width)
    fitting = base.structure if width == base.code_width else structure_for(n, width)
    structure = given.setdefault("structure", fitting)
    is_plain = width == n and structure == Structure.REAL
    return replace(base, version=base.version if is_plain else SCHEME_VERSION, **given)


def as_wide(live: Params, n: int) -> Params:
    """The same parameters for embeddings of width n. The code is as many times wider than these."""
    if n == live.n:
        return live
    width = n * live.code_width // live.n
    structure = live.structure if live.structure is Structure.REAL else structure_for(n, width)
    return replace(live, n=n, code_width=width, structure=structure)
