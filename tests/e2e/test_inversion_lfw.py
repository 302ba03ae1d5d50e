"""Real faces behind real embeddings: what a recogniser accepts, before and after protection."""

from __future__ import annotations

import numpy as np
import pytest
from support import crops, shared

from infra.faces.onnx_faces import FaceRecogniser
from infra.models.packs import find_pack
from ironmask import helper
from ironmask.attacks.inversion import (
    LinearInverter,
    PixelBasis,
    Scores,
    by_random_codewords,
    thresholds,
)
from ironmask.params import preset
from ironmask.template import protect_batch

pytestmark = pytest.mark.slow

PEOPLE, TESTED, PHOTOS = 1135, 200, 10_000


@pytest.fixture(scope="module")
def data():
    shared.shared_or_skipped()
    if not crops.ARCHIVE.is_file():
        pytest.skip(f"no {crops.ARCHIVE.name} among the shared files")
    return crops.split(PEOPLE)


@pytest.fixture(scope="module")
def victims(data):
    """Templates, the photos that they are of and other photos, as embeddings: (200, 512) each."""
    test = data[1]
    own, other = (found[:TESTED] for found in crops.two_photos(test.people))
    return test.embeddings[own], test.embeddings[other]


@pytest.fixture(scope="module")
def faces(data):
    train = data[0]
    return crops.crops(train.names[:PHOTOS]), train.embeddings[:PHOTOS]


@pytest.fixture(scope="module")
def linear(faces):
    made = LinearInverter()
    made.fit(*faces)
    return made


@pytest.fixture(scope="module")
def recogniser():
    return FaceRecogniser(find_pack(str(shared.SHARED / "models" / "buffalo_sc")))


@pytest.fixture(scope="module")
def limits(data):
    train = data[0]
    return thresholds(train.embeddings[:PHOTOS], train.people[:PHOTOS], [1e-2, 1e-3])


def scored(made, against, recogniser):
    embedded = recogniser.embed(np.ascontiguousarray(made[..., ::-1]))
    return Scores.of(embedded, against, np.arange(len(made)))


def test_a_linear_map_gives_faces_that_are_accepted(linear, victims, recogniser, limits):
    own, other = victims
    made = linear.invert(own)
    loose, strict = limits
    assert scored(made, own, recogniser).hits(strict).share >= 0.95
    assert scored(made, other, recogniser).hits(loose).share >= 0.85


def test_protected_rows_give_nothing(linear, victims, recogniser, limits):
    own, other = victims
    params, rng = preset("balanced"), np.random.default_rng(13)
    rows = protect_batch(own, params, [bytes(32)] * len(own), rng=rng)
    helpers = helper.decode([row.helper for row in rows], params, rows[0].encoding)
    made = linear.invert(by_random_codewords(helpers, params.alpha, rng))
    for against in (own, other):
        found = scored(made, against, recogniser)
        assert found.hits(limits[0]).hits <= 6
        assert found.hits(limits[1]).hits <= 1
        assert abs(found.cosines.mean()) < 0.05


def test_ten_gradients_give_faces_that_are_accepted_for_other_photos(
    linear, faces, victims, recogniser, limits
):
    pytest.importorskip("torch")
    from infra.models.differentiable import differentiable
    from ironmask.attacks.inversion import ascend

    own, other = (embeddings[:32] for embeddings in victims)
    basis = PixelBasis.of(faces[0], 400, most=1200)
    net = differentiable(find_pack(str(shared.SHARED / "models" / "buffalo_sc")))
    start = linear.invert(own)
    made = ascend(net, start, own, basis)
    assert scored(made, own, recogniser).cosines.min() > limits[1].cosine
    before, after = (scored(m, other, recogniser).cosines.mean() for m in (start, made))
    assert after > before + 0.05
    assert scored(made, other, recogniser).hits(limits[1]).share >= 0.9
