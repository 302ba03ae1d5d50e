"""Scheme version 2 in one thread: wide codes, quaternionic helpers, short tags."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import ortho_group
from threadpoolctl import threadpool_limits

from ironmask import Params, Protector, batched, candidates, preset, protect, secure_generator
from ironmask import codeword as codewords
from ironmask import verify as verified
from ironmask.random import fill_normals
from ironmask.rotation import Sampler

from .kernel import BEFORE, N, some_keys
from .table import Row, compare

WIDE = Params(N, 16, 3, 2 * N, "quaternionic")
SQUARE = Params(N, 16, 0, N, "quaternionic")
ROUNDS = 15


def whole(params: Params) -> Callable[[], object]:
    """Protect a template and encrypt its helper, as an enrolment does for each row."""
    with tempfile.TemporaryDirectory() as folder:
        keys = some_keys(Path(folder))
    protector, key = Protector(params), keys.row_key("bench")
    template = secure_generator().standard_normal(N)
    return lambda: keys.encrypt(protector.protect(template, key).helper, b"bound")


def sampling(params: Params) -> Callable[[], object]:
    rng, sampler = secure_generator(), Sampler.of(params)
    source = rng.standard_normal(N)
    code = codewords.sample(rng, params.code_width, params.alpha)
    target = codewords.dense(code, params.code_width)[0]
    source /= np.linalg.norm(source)
    return lambda: sampler.carrying(rng, source, target)


def limit(params: Params) -> Callable[[], object]:
    """The products of the sampler's algorithm, shape by shape, and its normals: nothing else."""
    rng, d = secure_generator(), params.structure.components
    rows, n = params.helper_shape
    panels = batched.panels(params)
    shapes, done = [], 0
    for panel in panels:
        width, own, height = panel.width, panel.width * d, panel.m * d
        # V'V, of real vectors half of it; V'Q; half a product for the triangle; V (T V'Q).
        square = (width if d > 1 else width // 2, height, own)
        shapes += [square, (own, height - own, done), (own // 2, own, width + done)]
        shapes += [(height, own, width + done)]
        done += width
    shapes += [(rows, n, d), (rows, d, n)]
    some = rng.standard_normal(max(a * b for k in shapes for a, b in (k[:2], k[1:], k[::2])))
    left, right = some.astype(np.float32), some[::-1].astype(np.float32)
    parts = [
        (left[: a * b].reshape(a, b), right[: b * c].reshape(b, c), np.empty((a, c), np.float32))
        for a, b, c in shapes
        if c
    ]
    normals = np.empty(panels[-1].end, dtype=np.float32)

    def work() -> None:
        fill_normals(rng, normals)
        for a, b, out in parts:
            np.matmul(a, b, out=out)

    return work


def checking(params: Params) -> Callable[[], object]:
    """One verification of a probe, of as many subsets as the list is long."""
    count = len(candidates.patterns(params))
    if count != candidates.SEARCH:
        raise ValueError(f"{params.describe()} is tried as {count:,} subsets")
    rng = secure_generator()
    template, key = rng.standard_normal(N), rng.bytes(32)
    row = protect(template, params, key)
    return lambda: verified(row, template, key)


def version_2() -> list[Row]:
    """Goals as the design states them."""
    # An enrolment protects row after row: few find what the other side left in the caches.
    turns = {"rounds": ROUNDS, "repeat": 12}
    scipys = lambda: ortho_group.rvs(N)  # noqa: E731
    library = f"scipy ortho_group.rvs({N})"
    default, before = preset("balanced", N), f"version 1 of {_short(BEFORE)}"
    with threadpool_limits(1):
        rows = [
            compare(_protects(WIDE), whole(WIDE), library, scipys, **turns, at_most=0.11),
            compare(_protects(SQUARE), whole(SQUARE), library, scipys, **turns, at_most=0.06),
        ]
        for params in (WIDE, SQUARE, Params(N, 16, 0)):
            what = f"sampling {_short(params)}"
            against = "its products and normals alone"
            goal = {} if params.structure == "real" else {"at_most": 2.0}
            pair = sampling(params), limit(params)
            rows.append(compare(what, pair[0], against, pair[1], **turns, **goal))
        subsets = f"{candidates.SEARCH:,} subsets"
        what, against = f"verify {_short(WIDE)}, {subsets}", f"{before}, as many"
        pair = checking(WIDE), checking(BEFORE)
        rows.append(compare(what, pair[0], against, pair[1], **turns, at_most=1.0))
        what, against = f"time a row, {before}", f"default, {_short(default)}"
        pair = whole(BEFORE), whole(default)
        return [*rows, compare(what, pair[0], against, pair[1], **turns, at_least=1.6)]


def _short(params: Params) -> str:
    return f"{params.structure} ({params.code_width}, {params.alpha}, {params.tolerance})"


def _protects(params: Params) -> str:
    return f"protect and encrypt {_short(params)}"
