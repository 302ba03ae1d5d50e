"""Issues of templates, as a thief who holds the rows decodes them."""

from __future__ import annotations

import numpy as np

from ironmask import codeword, helper
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
    """Helpers of fresh issues, as a thief decodes them: (b, n, n)."""
    n = len(templates[0])
    sampler = Sampler(n)
    helpers = []
    for template in templates:
        target = codeword.dense(codeword.sample(rng, n, alpha), n)[0]
        helpers += helper.encode(sampler.carrying(rng, template, target)[None], encoding)
    return helper.decode(helpers, encoding, n)
