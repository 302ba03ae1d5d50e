"""What one stolen row of a real model gives away, with a subspace measured on other people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ironmask import Params, codeword, helper
from ironmask.attacks import recover_from_subspace
from ironmask.rotation import Sampler
from ironmask.spectrum import Spectrum

N, USED = 512, 300


@pytest.fixture(scope="module")
def people(shared: Path):
    """Embeddings of the people that a thief knows, and of those whose rows were stolen."""
    content = np.load(shared / "faces" / "lfw_w600k_mbf_embeddings.npz")
    _, owner = np.unique(content["label"], return_inverse=True)
    vectors = content["emb"].astype(np.float64)
    return vectors[owner % 2 == 0], vectors[owner % 2 == 1]


def test_the_subspace_leaves_no_bits(people):
    space = Spectrum.of(people[0], N)
    assert space.effective_rank < 300
    assert space.bits_left(Params(N, 16, 0)) == 0


@pytest.mark.parametrize(("alpha", "guessed"), [(8, 1), (16, 2)])
def test_one_row_gives_its_template(people, alpha, guessed):
    known, stolen = people
    rng = np.random.default_rng(alpha)
    directions = Spectrum.of(known, N).directions[:, :USED]
    sampler = Sampler(N)
    for template in stolen[rng.permutation(len(stolen))[:3]]:
        target = codeword.dense(codeword.sample(rng, N, alpha), N)[0]
        unit = template / np.linalg.norm(template)
        stored = helper.encode(sampler.carrying(rng, unit, target)[None], "int8")
        (decoded,) = helper.decode(stored, "int8", N)
        found = recover_from_subspace(decoded, directions, alpha, rng, guessed=guessed)
        assert found.cosine(template) > 0.999
        assert found.bits < 18
