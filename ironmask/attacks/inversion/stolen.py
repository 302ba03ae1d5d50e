"""What a protected row gives an inverter as it lies, without keys and without a search."""

from __future__ import annotations

import numpy as np

from ironmask import codeword
from ironmask.arrays import F32, F64
from ironmask.attacks.result import template_of


def by_random_codewords(helpers: F32, alpha: int, rng: np.random.Generator) -> F64:
    """P'c of a random codeword for each helper, (k, N, n) decoded: (k, n) unit rows.

    A thief with a row alone has nothing better to invert, unless an attack finds the codeword.
    """
    codes = codeword.sample(rng, helpers.shape[1], alpha, len(helpers))
    return np.stack([template_of(p, c) for p, c in zip(helpers, codes, strict=True)])
