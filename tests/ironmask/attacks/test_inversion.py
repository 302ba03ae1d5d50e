"""A face is read off an embedding by a linear map, and not off a protected row."""

from __future__ import annotations

import io
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from support import inversion
from support.inversion import SIDE, N, embed, photos

from ironmask.attacks.inversion import LinearInverter, PixelBasis, inverted
from ironmask.errors import ParameterError, TemplateError

TRAINED_ON = photos(300)
VICTIMS = photos(100, first=1000)
OWN = inversion.Photos(VICTIMS.images[::2], VICTIMS.people[::2])
OTHER = inversion.Photos(VICTIMS.images[1::2], VICTIMS.people[1::2])
TEMPLATES = embed(OWN.images)


@pytest.fixture
def rng():
    return np.random.default_rng(71)


@pytest.fixture(scope="module")
def linear():
    made = LinearInverter()
    made.fit(TRAINED_ON.images, embed(TRAINED_ON.images))
    return made


@pytest.fixture(scope="module")
def strict():
    return inversion.threshold(1e-3)


def test_the_recogniser_takes_a_face_of_an_embedding_for_its_person(linear, strict):
    made = linear.invert(TEMPLATES)
    assert made.shape == OWN.images.shape
    assert inversion.scores(made, OWN).hits(strict).share >= 0.95
    assert inversion.scores(made, OTHER).hits(strict).share >= 0.9


def test_it_looks_like_the_person(linear):
    made = linear.invert(TEMPLATES).astype(float)
    mean = TRAINED_ON.images.mean(axis=0)
    left = np.square(made - OWN.images).mean()
    assert left < 0.5 * np.square(mean - OWN.images).mean()


def test_a_protected_row_gives_nothing_and_its_codeword_gives_everything(linear, strict, rng):
    """The second half shows that the first one does not fail for another reason."""
    hidden, opened = inversion.protected(TEMPLATES, rng)
    loose = inversion.threshold(1e-2)
    for against in (OWN, OTHER):
        of_row = inversion.scores(linear.invert(hidden), against)
        # 100 strangers are accepted so often once in a million times.
        assert of_row.hits(strict).hits <= 4
        assert of_row.hits(loose).hits <= 8
        assert abs(of_row.cosines.mean()) < 0.1
        of_template = inversion.scores(linear.invert(opened), against)
        raw = inversion.scores(linear.invert(TEMPLATES), against)
        assert of_template.hits(strict).hits == raw.hits(strict).hits


def test_the_mean_face_is_nobodys(strict):
    mean = np.rint(TRAINED_ON.images.mean(axis=0)).astype(np.uint8)
    made = inverted(lambda templates: np.tile(mean, (len(templates), 1, 1, 1)), TEMPLATES)
    assert inversion.scores(made, OWN).hits(strict).hits <= 4


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_the_length_of_an_embedding_does_not_matter(linear, scale):
    assert np.array_equal(linear.invert(scale * TEMPLATES[:5]), linear.invert(TEMPLATES[:5]))


def test_the_map_is_that_of_the_normal_equations(rng):
    images, embeddings = photos(30).images, rng.standard_normal((60, 20))
    made = LinearInverter(ridge=0.1)
    made.fit(images, embeddings)
    x = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    y = images.reshape(60, -1).astype(float)
    dx, dy = x - x.mean(axis=0), y - y.mean(axis=0)
    ridge = 0.1 * np.trace(dx.T @ dx) / 20 * np.eye(20)
    expected = y.mean(axis=0) + dx @ np.linalg.solve(dx.T @ dx + ridge, dx.T @ dy)
    wanted = np.clip(expected, 0, 255).reshape(images.shape)
    assert np.abs(made.invert(embeddings) - wanted).max() <= 0.51
    weights, offset = made.affine()
    again = ((x @ weights + offset) * 127.5 + 127.5).clip(0, 255)
    assert np.abs(again - wanted.reshape(60, -1)).max() < 0.01


def test_the_ridge_is_right_for_other_people():
    """With few people, and noise in embeddings: neither none nor a lot."""
    some = photos(80)
    noise = np.random.default_rng(3).standard_normal((2, 160, N))
    embeddings = embed(some.images) + 0.5 * noise[0]
    others = photos(80, first=2000)
    templates = embed(others.images) + 0.5 * noise[1]

    def error(ridge):
        made = LinearInverter(ridge)
        made.fit(some.images, embeddings)
        return np.square(made.invert(templates).astype(float) - others.images).mean(), made.ridge

    chosen, ridge = error(None)
    assert chosen < min(error(1000 * ridge)[0], error(ridge / 1000)[0])


def test_batches_add_up():
    images, embeddings = TRAINED_ON.images, embed(TRAINED_ON.images)
    whole, parts = LinearInverter(), LinearInverter()
    whole.fit(images, embeddings)
    for part in np.split(np.arange(len(images)), [1, 4, 300, 511]):
        parts.partial_fit(images[part], embeddings[part])
    assert parts.ridge == whole.ridge
    differ = whole.invert(TEMPLATES).astype(int) - parts.invert(TEMPLATES)
    assert np.abs(differ).max() <= 1
    parts.fit(images[::2], embeddings[::2])
    half = LinearInverter()
    half.fit(images[::2], embeddings[::2])
    assert np.array_equal(parts.invert(TEMPLATES), half.invert(TEMPLATES))


def test_memory_does_not_grow_with_the_images():
    images, embeddings = photos(128).images, embed(photos(128).images)
    peaks = []
    for rounds in (2, 8):
        tracemalloc.start()
        made = LinearInverter()
        made.fit_batches((images, embeddings) for _ in range(rounds))
        made.invert(TEMPLATES[:2])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.05 * peaks[0]


def stored(state):
    """Through a file, without pickle."""
    file = io.BytesIO()
    np.savez(file, **state)
    file.seek(0)
    return dict(np.load(file, allow_pickle=False))


def test_a_state_is_the_whole_inverter(linear):
    again = LinearInverter.from_state(stored(linear.state()))
    assert np.array_equal(again.invert(TEMPLATES), linear.invert(TEMPLATES))
    assert (again.ridge, again.side) == (linear.ridge, SIDE)


def test_what_cannot_be_learnt_from_is_refused(linear):
    images, embeddings = TRAINED_ON.images, embed(TRAINED_ON.images)
    with pytest.raises(ParameterError, match="call fit first"):
        LinearInverter().invert(TEMPLATES)
    for wrong in (images[..., :2], images.astype(np.float32), images[:, :16], images[0]):
        with pytest.raises(ParameterError, match="not uint8"):
            LinearInverter().partial_fit(wrong, embeddings)
    with pytest.raises(ParameterError, match="600 images, 599 embeddings"):
        LinearInverter().fit(images, embeddings[1:])
    with pytest.raises(ParameterError, match="2 labels"):
        LinearInverter().fit(images, embeddings, [1, 2])
    with pytest.raises(TemplateError):
        linear.invert(np.ones((1, N + 1)))
    begun = LinearInverter()
    begun.partial_fit(images[:2], embeddings[:2])
    with pytest.raises(ParameterError, match="16 pixels"):
        begun.partial_fit(images[:2, :16, :16], embeddings[:2])
    with pytest.raises(ParameterError, match="ridge -1"):
        LinearInverter(ridge=-1)


def test_another_inverter_is_a_callable(linear):
    asked = []

    def published(templates):
        asked.append(len(templates))
        return linear.invert(templates).astype(np.float64) + 0.25

    many = np.tile(TEMPLATES, (3, 1))
    assert np.array_equal(inverted(published, many), inverted(linear, many))
    assert sum(asked) == len(many)
    with pytest.raises(ParameterError, match="not uint8"):
        inverted(lambda templates: np.zeros((len(templates), 3, SIDE, SIDE)), TEMPLATES)
    with pytest.raises(ParameterError, match="1 images for 100 templates"):
        inverted(lambda templates: np.zeros((1, SIDE, SIDE, 3)), TEMPLATES)


def test_a_basis_of_images():
    images = TRAINED_ON.images
    basis = PixelBasis.of(images, 60, most=400)
    assert basis.components.shape == (60, 3 * SIDE**2)
    np.testing.assert_allclose(basis.components @ basis.components.T, np.eye(60), atol=1e-4)
    assert (np.diff(basis.deviations) <= 0).all()
    others = VICTIMS.images.reshape(len(VICTIMS.images), -1) - basis.mean
    parts = others @ basis.components.T
    assert np.square(parts @ basis.components - others).mean() < 0.2 * np.square(others).mean()
    np.testing.assert_allclose(parts.std(axis=0)[:20] / basis.deviations[:20], 1, atol=0.5)
    assert len(PixelBasis.of(images[:5], 60).components) == 4
    with pytest.raises(ParameterError, match="no basis"):
        PixelBasis.of(images[:1])


WITHOUT = """
import sys
sys.modules["torch"] = None
import numpy as np
from ironmask.attacks import inversion
from ironmask.errors import ProviderError
made = inversion.LinearInverter()
made.fit(np.random.default_rng(1).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8), np.eye(9))
assert made.invert(np.eye(9)).shape == (9, 8, 8, 3)
inversion.Training(), inversion.DecoderShape()
for name in ("NbNet", "HybridInverter", "ascend"):
    try:
        getattr(inversion, name)
    except ProviderError as error:
        print(error)
"""


def test_without_torch_the_linear_inverter_works_and_others_say_what_to_install():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all('pip install "ironmask[attacks]"' in line for line in lines)
