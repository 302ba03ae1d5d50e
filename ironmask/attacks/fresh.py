"""Issues with known codewords, made to measure attacks on them."""

from __future__ import annotations

import numpy as np

from ironmask import codeword, helper
from ironmask.arrays import F32, F64, I32
from ironmask.filling import Filling
from ironmask.params import Params
from ironmask.rotation import Sampler


def fresh_issues(
    templates: F64,
    params: Params,
    rng: np.random.Generator,
    *,
    filling: Filling | None = None,
    encoding: str = helper.DEFAULT_ENCODING,
) -> list[tuple[F32, I32]]:
    """Make issues of templates, (k, n) unit rows, to attack.

    Each has the helper, (N, n), as a thief decodes it, and the codeword, (alpha,).
    """
    sampler, made = Sampler.of(params), []
    for template in templates if filling is None else filling.filled(templates, rng):
        code = codeword.sample(rng, params.code_width, params.alpha)
        (target,) = codeword.dense(code, params.code_width)
        rows = sampler.carrying(rng, template, target)
        stored = helper.encode(rows[None], params, encoding)
        made.append((helper.decode(stored, params, encoding)[0], code[0]))
    sampler.wipe()
    return made
