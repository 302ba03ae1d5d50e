"""A rotation that can be made again gives the template away; one that cannot does not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group
from support.issues import issued, unit

from ironmask import codeword, helper
from ironmask.attacks import recover_from_rotation, scan_seeds
from ironmask.errors import ParameterError
from ironmask.params import Params

N, ALPHA = 128, 8
PARAMS = Params(N, ALPHA, 0)


@pytest.fixture
def rng():
    return np.random.default_rng(37)


def seeded(seed):
    """As careless software makes it."""
    return ortho_group.rvs(N, random_state=seed)


def turned(s, c):
    """R with R s = c, in their plane."""
    w = c - (s @ c) * s
    w /= np.linalg.norm(w)
    cosine, sine = s @ c, np.sqrt(1 - (s @ c) ** 2)
    plane = np.stack([s, w], axis=1)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.eye(N) + plane @ (turn - np.eye(2)) @ plane.T


def stolen(template, seed, rng, encoding):
    hidden = seeded(seed)
    target = codeword.dense(codeword.sample(rng, N, ALPHA), N)[0]
    p = turned(hidden @ template, target) @ hidden
    stored = helper.encode(p[None].astype(np.float32), PARAMS, encoding)
    return helper.decode(stored, PARAMS, encoding)[0]


@pytest.mark.parametrize("encoding", ["float32", "int8"])
def test_a_seed_among_many(encoding, rng):
    template = unit(rng, N)
    p = stolen(template, 41, rng, encoding)
    found = scan_seeds(p, ALPHA, range(100), seeded)
    assert found.trials == 42
    assert found.cosine(template) > 0.999


def test_fresh_randomness_gives_nothing(rng):
    p = stolen(unit(rng, N), 1041, rng, "int8")
    found = scan_seeds(p, ALPHA, range(60), seeded)
    assert (found.success, found.trials) == (False, 60)


def test_a_digest_decides(rng):
    template = unit(rng, N)
    p = stolen(template, 3, rng, "float32")
    code = codeword.decode(p @ template, ALPHA)[0].tolist()
    right = recover_from_rotation(
        p, seeded(3), ALPHA, confirm=lambda codes: codes[0].tolist() == code
    )
    assert right.templates[0] @ template > 0.999
    assert not recover_from_rotation(p, seeded(3), ALPHA, confirm=lambda _: False).success


def test_a_wide_helper_is_no_rotation(rng):
    (wide,) = issued([unit(rng, N)], rng, ALPHA, "int8", 2 * N)
    with pytest.raises(ParameterError, match="no rotation: this attack is one on square helpers"):
        scan_seeds(wide, ALPHA, range(2), seeded)
    with pytest.raises(ParameterError, match="a rotation of"):
        recover_from_rotation(np.eye(N + 1, dtype=np.float32), seeded(0), ALPHA)
