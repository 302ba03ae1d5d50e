"""Faces of 64 pixels behind templates of real ones: found without protection, and not with it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from support import crops, shared

from infra.faces.onnx_faces import FaceRecogniser
from infra.models.packs import find_pack
from ironmask import helper
from ironmask.attacks.inversion import LinearInverter, Scores, by_random_codewords, thresholds
from ironmask.attacks.result import template_of
from ironmask.params import preset
from ironmask.template import protect_batch, reopen

PEOPLE, TESTED, MOST = 300, 40, 12
SIDE, INPUT = 64, 112
KEY = bytes(32)


def resized(images: np.ndarray, side: int) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(one).resize((side, side))) for one in images])


@pytest.fixture(scope="module")
def people():
    """The people with the most photos: whom to learn from, and whom to test."""
    shared.shared_or_skipped()
    if not crops.ARCHIVE.is_file():
        pytest.skip(f"no {crops.ARCHIVE.name} among the shared files")
    everybody = crops.photos()
    names, counts = np.unique(everybody.people, return_counts=True)
    most = names[np.argsort(-counts, kind="stable")[:PEOPLE]]
    place = np.arange(len(everybody.names)) - np.searchsorted(everybody.people, everybody.people)
    some = everybody.where(np.isin(everybody.people, most) & (place < MOST))
    is_tested = np.isin(some.people, most[::-1][:TESTED])
    return some.where(~is_tested), some.where(is_tested)


@pytest.fixture(scope="module")
def inverter(people):
    made = LinearInverter()
    made.fit(resized(crops.crops(people[0].names), SIDE), people[0].embeddings)
    return made


@pytest.fixture(scope="module")
def victims(people):
    """Embeddings of two photos of each person; templates are of the first ones."""
    own, other = crops.two_photos(people[1].people)
    return people[1].embeddings[own], people[1].embeddings[other]


@pytest.fixture(scope="module")
def issued(victims):
    """Rows of the templates, made by the product, and their helpers, decrypted and decoded."""
    params, rng = preset("balanced"), np.random.default_rng(13)
    rows = protect_batch(victims[0], params, [KEY] * len(victims[0]), rng=rng)
    return rows, helper.decode([row.helper for row in rows], params, rows[0].encoding)


@pytest.fixture(scope="module")
def scored(inverter, victims):
    """What the recogniser makes of inverted vectors, beside embeddings of photos."""
    recogniser = FaceRecogniser(find_pack(str(shared.SHARED / "models" / "buffalo_sc")))

    def scores(vectors: np.ndarray, against: np.ndarray) -> Scores:
        made = resized(inverter.invert(vectors), INPUT)
        embedded = recogniser.embed(np.ascontiguousarray(made[..., ::-1]))
        return Scores.of(embedded, against, np.arange(len(made)))

    return scores


@pytest.fixture(scope="module")
def limits(people):
    train = people[0]
    return thresholds(train.embeddings, train.people, [1e-2, 1e-3])


def hits(scores: Scores, limits) -> tuple[int, ...]:
    return tuple(scores.hits(limit).hits for limit in limits)


def test_stored_templates_are_faces(scored, victims, limits):
    own, other = victims
    assert min(hits(scored(own, own), limits)) >= 0.85 * TESTED
    assert hits(scored(own, other), limits)[0] >= 0.4 * TESTED


def test_protected_rows_are_nobodys(scored, victims, issued, limits):
    vectors = by_random_codewords(issued[1], preset("balanced").alpha, np.random.default_rng(14))
    for against in victims:
        found = scored(vectors, against)
        loose, strict = hits(found, limits)
        assert (loose <= 2, strict) == (True, 0)
        assert abs(found.cosines.mean()) < 0.05


def test_rows_whose_codewords_are_known_are_faces_again(scored, victims, issued, limits):
    rows, helpers = issued
    codes = [reopen(row, own, KEY) for row, own in zip(rows, victims[0], strict=True)]
    opened = np.stack([template_of(p, code) for p, code in zip(helpers, codes, strict=True)])
    assert min(hits(scored(opened, victims[0]), limits)) >= 0.85 * TESTED
