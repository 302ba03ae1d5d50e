"""Issues of templates, as a thief who holds the rows decodes them."""

from __future__ import annotations

import numpy as np

from ironmask.attacks import fresh_issues
from ironmask.params import Params, Structure

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


def issued(templates, rng, alpha=ALPHA, encoding="float32", code_width=0, structure=Structure.REAL):
    """Helpers of fresh issues, as a thief decodes them: (b, N, n)."""
    return np.stack([p for p, _ in known(templates, rng, alpha, encoding, code_width, structure)])


def known(templates, rng, alpha=ALPHA, encoding="float32", code_width=0, structure=Structure.REAL):
    """The same with the codewords, (helper, code) each."""
    n = len(templates[0])
    # Toy sizes lie below the least width of a table.
    params = _Toy(n, alpha, 0, code_width, structure)
    return fresh_issues(np.stack(templates), params, rng, encoding=encoding)


class _Toy(Params):
    """Parameters of any width."""

    def __post_init__(self):
        object.__setattr__(self, "code_width", self.code_width or self.n)
