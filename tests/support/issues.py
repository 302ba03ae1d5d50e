"""Issues of templates, as a thief who holds the rows decodes them."""

from __future__ import annotations

import numpy as np

from ironmask import Params, codeword, helper
from ironmask.rotation import Sampler

N, ALPHA = 128, 8


def unit(rng, n=N):
    vector = rng.standard_normal(n)
    return vector / np.linalg.norm(vector)


def capture(template, degrees, rng):
    """A vector at this angle to a template."""
    other = rng.standard_normal(len(template))
    other -= (other @ template) * template
    other /= np.linalg.norm(other)
    return np.cos(np.radians(degrees)) * template + np.sin(np.radians(degrees)) * other


def issued(templates, rng, alpha=ALPHA, encoding="float32"):
    """Helpers of fresh square real issues, as a thief decodes them: (b, n, n)."""
    return issued_as(Params(len(templates[0]), alpha, 0), templates, rng, encoding)


def issued_as(params, templates, rng, encoding="float32"):
    """Helpers of fresh issues of some parameters, as a thief decodes them: (b, N, n)."""
    sampler, width = Sampler.of(params), params.code_width
    helpers = []
    for template in templates:
        (target,) = codeword.dense(codeword.sample(rng, width, params.alpha), width)
        helpers += helper.encode(sampler.carrying(rng, template, target)[None], params, encoding)
    return helper.decode(helpers, params, encoding)
