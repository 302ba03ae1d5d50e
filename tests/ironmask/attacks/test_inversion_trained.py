"""Inverters that learn with gradients: small ones, on faces that are made up."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from support import inversion
from support.inversion import SIDE, N, embed, photos
from support.marks import few

from ironmask.attacks.inversion import LinearInverter, PixelBasis
from ironmask.errors import MismatchError, ParameterError, ProviderError

torch = pytest.importorskip("torch")

from ironmask.attacks.inversion import (  # noqa: E402
    DecoderShape,
    HybridInverter,
    NbNet,
    Training,
    ascend,
)
from ironmask.attacks.inversion.decoder import Decoder, Reconstruction  # noqa: E402
from ironmask.attacks.inversion.settings import BLOCKS  # noqa: E402
from ironmask.attacks.inversion.training import Trainer  # noqa: E402

TRAINED_ON = photos(150)
OWN = photos(60, 1, first=1000)
TEMPLATES = embed(OWN.images)
SMALL = DecoderShape(SIDE, 64, 2)
SHORT = Training(images=2400, batch=24, check_every=480, rate=4e-3, held_out=0.1)


@pytest.fixture(scope="module")
def recogniser():
    return inversion.torch_recogniser()


@pytest.fixture(scope="module")
def linear():
    """From so few people that something is left to learn."""
    made = LinearInverter()
    made.fit(TRAINED_ON.images[:80], embed(TRAINED_ON.images[:80]))
    return made


def cosine(made):
    return inversion.scores(made, OWN).cosines.mean()


def learnt(kind, recogniser, training=SHORT, **more):
    made = kind(recogniser, training, SMALL, **more)
    made.fit(TRAINED_ON.images, embed(TRAINED_ON.images), TRAINED_ON.people)
    return made


@pytest.mark.slow
def test_nbnet_learns_faces_of_embeddings_from_pixels_and_more_from_angles(recogniser):
    pixels, both = learnt(NbNet, None), learnt(NbNet, recogniser)
    assert pixels.invert(TEMPLATES).shape == OWN.images.shape
    assert 0.2 < cosine(pixels.invert(TEMPLATES)) < cosine(both.invert(TEMPLATES))
    assert both.curve[-1].cosine > both.curve[0].cosine
    assert both.curve[-1].loss < both.curve[0].loss
    assert np.isnan(pixels.curve[-1].cosine)
    hidden, _ = inversion.protected(TEMPLATES, np.random.default_rng(5))
    assert abs(cosine(both.invert(hidden))) < 0.1


@pytest.mark.slow
def test_the_hybrid_begins_as_the_linear_inverter_and_becomes_better(recogniser, linear):
    least = Training(images=2, batch=2, rate=1e-12, held_out=0)
    begun = learnt(HybridInverter, recogniser, least, linear=linear)
    differ = begun.invert(TEMPLATES).astype(int) - linear.invert(TEMPLATES)
    assert np.abs(differ).max() <= 1
    made = learnt(HybridInverter, recogniser, linear=linear)
    assert cosine(made.invert(TEMPLATES)) > cosine(linear.invert(TEMPLATES)) + 0.005


def test_ascent_brings_a_face_to_its_template(recogniser, linear):
    basis = PixelBasis.of(TRAINED_ON.images, 45)
    start = linear.invert(TEMPLATES)
    made = ascend(recogniser, start, TEMPLATES, basis)
    assert cosine(made) > cosine(start) + 0.1
    further = ascend(recogniser, start, TEMPLATES, basis, 30)
    assert cosine(further) >= cosine(made) - 0.01
    assert np.array_equal(ascend(recogniser, start, TEMPLATES, basis, 0), start)
    # Nothing but the basis is added, apart from clipping: 45 directions of 3,072.
    moved = (made.astype(np.float64) - start).reshape(len(start), -1)
    outside = moved - moved @ basis.components.T @ basis.components
    assert np.square(outside).mean() < 0.2 * np.square(moved).mean()


def stored(state):
    """Through a file, without pickle."""
    file = io.BytesIO()
    np.savez(file, **state)
    file.seek(0)
    return dict(np.load(file, allow_pickle=False))


@pytest.mark.parametrize("upsampled", few([False, True], True))
@pytest.mark.parametrize("kind", [NbNet, HybridInverter])
def test_a_state_is_the_whole_inverter(kind, upsampled, linear):
    more = {"linear": linear} if kind is HybridInverter else {}
    shape = replace(SMALL, upsampled=upsampled)
    made = kind(None, replace(SHORT, images=48), shape, **more)
    made.fit(TRAINED_ON.images, embed(TRAINED_ON.images))
    again = kind.from_state(stored(made.state()))
    assert np.array_equal(again.invert(TEMPLATES), made.invert(TEMPLATES))
    assert again.invert(np.empty((0, N))).shape == (0, SIDE, SIDE, 3)


class KilledError(Exception):
    """The process ended here."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", [NbNet, HybridInverter])
def test_a_killed_training_goes_on_as_if_nothing_had_been(kind, recogniser, linear):
    """The angular loss joins, and a pass over the images ends, before and after the kill."""
    more = {"linear": linear} if kind is HybridInverter else {}
    training = replace(SHORT, images=1200, check_every=200, pixel_images=300)
    data = TRAINED_ON.images, embed(TRAINED_ON.images), TRAINED_ON.people
    whole = kind(recogniser, training, SMALL, **more)
    whole.fit(*data)
    kept = []

    def kill(state):
        kept.append(stored(state))
        if len(kept) == 3:
            raise KilledError

    with pytest.raises(KilledError):
        kind(recogniser, training, SMALL, **more).fit(*data, on_check=kill)
    resumed = kind(recogniser, replace(training), SMALL, **more)
    resumed.fit(*data, resume=kept[-1])
    curves = [
        np.array([(c.images, c.loss, c.held_out, c.cosine) for c in made.curve])
        for made in (whole, resumed)
    ]
    np.testing.assert_allclose(*curves, rtol=1e-4)
    assert len(curves[0]) > len(kept)
    differ = whole.invert(TEMPLATES).astype(int) - resumed.invert(TEMPLATES)
    assert np.abs(differ).max() <= 1


def test_a_checkpoint_of_another_network_is_refused(recogniser):
    kept = []
    data = TRAINED_ON.images, embed(TRAINED_ON.images)
    short = replace(SHORT, images=24)
    NbNet(None, short, SMALL).fit(*data, on_check=kept.append)
    with pytest.raises(MismatchError, match="another network"):
        NbNet(None, short, DecoderShape(SIDE, 32, 1)).fit(*data, resume=kept[0])
    with pytest.raises(MismatchError):
        NbNet(None, short, SMALL).fit(*data, resume={})


def test_equal_seeds_give_equal_inverters_and_others_do_not():
    short = replace(SHORT, images=96)
    one, same, other = (
        learnt(NbNet, None, replace(short, seed=seed)).invert(TEMPLATES) for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.slow
def test_training_ends_when_held_out_people_gain_nothing():
    nothing = replace(SHORT, images=1 << 40, pixel=0, angular=0, patience=2, check_every=48)
    made = learnt(NbNet, None, nothing)
    assert [check.images for check in made.curve] == [48, 96, 144]
    assert all(check.held_out == 0 for check in made.curve)


def trainer_of(training, images=TRAINED_ON.images):
    net = Reconstruction(Decoder(N, SMALL), torch.zeros(3 * SIDE**2), None, SIDE)
    rows = embed(TRAINED_ON.images)
    people, on = TRAINED_ON.people, torch.device("cpu")
    return Trainer(net, None, images, rows, people, training, on)


def test_the_weights_that_were_best_for_held_out_people_are_kept():
    """It ends some checks after the best one, and steps are so large that each check differs."""
    made = trainer_of(replace(SHORT, images=1 << 40, check_every=24, patience=4, rate=0.05))
    made.run()
    losses = [check.held_out for check in made.curve]
    assert len(losses) - np.argmin(losses) == 5
    assert made._held_out()[0] == pytest.approx(min(losses), rel=1e-5)


def test_budgets_end_a_training():
    seen = learnt(NbNet, None, replace(SHORT, images=100)).curve[-1].images
    assert 100 <= seen < 100 + SHORT.batch
    at_once = replace(SHORT, images=1 << 40, cpu_seconds=1e-9)
    assert learnt(NbNet, None, at_once).curve[-1].images == SHORT.batch


class Watched:
    """Images that are asked for by index, as a decoder of files would be."""

    def __init__(self):
        self.asked = []

    def __len__(self):
        return len(TRAINED_ON.images)

    def __getitem__(self, index):
        self.asked.append(set(TRAINED_ON.people[index].tolist()))
        return TRAINED_ON.images[index]


@pytest.mark.slow
def test_held_out_people_are_not_trained_on():
    """Checks alone look at them: 60 of 150 people, whose photos are 120."""
    images = Watched()
    made = trainer_of(replace(SHORT, images=1800, check_every=1800, held_out=0.4), images)
    made.run()
    steps = -(-1800 // SHORT.batch)
    trained, checked = (set().union(*part) for part in (images.asked[:steps], images.asked[steps:]))
    assert (len(trained), len(checked)) == (90, 60)
    assert not trained & checked


@pytest.mark.parametrize("side", [32, 64, 100, 112, 128])
@pytest.mark.parametrize("upsampled", [False, True])
def test_six_blocks_grow_to_any_side(side, upsampled):
    shape = DecoderShape(side, 64, 2, upsampled)
    assert len(shape.blocks) == BLOCKS
    made = Decoder(16, shape)
    made.end[-1].bias.data += 1
    with torch.no_grad():
        image = made.eval()(torch.ones(2, 16))
    assert image.shape == (2, 3, side, side)
    assert (image == 1).all(), "the last convolution begins at zero"


def test_half_of_the_channels_are_neighbours():
    block = Decoder(16, DecoderShape(64, 64, 4)).blocks[1]
    grown = block.grow(torch.ones(2, 128, 2, 2))
    assert (grown.shape[1], block.eval()(torch.ones(2, 128, 2, 2)).shape[1]) == (32, 64)


@pytest.mark.slow
def test_a_smooth_loss_makes_smooth_images(recogniser):
    rough, smooth = (
        learnt(NbNet, None, replace(SHORT, images=480, smoothness=s)).invert(TEMPLATES)
        for s in (0.0, 5.0)
    )
    steps = [np.abs(np.diff(made.astype(int), axis=1)).mean() for made in (rough, smooth)]
    assert steps[1] < steps[0]


def test_what_cannot_be_trained_is_refused(recogniser, linear):
    images, embeddings = TRAINED_ON.images, embed(TRAINED_ON.images)
    with pytest.raises(ParameterError, match="call fit first"):
        NbNet(None, SHORT, SMALL).invert(TEMPLATES)
    with pytest.raises(ParameterError, match="112"):
        NbNet(None, SHORT).fit(images, embeddings)
    with pytest.raises(ParameterError, match="at least two"):
        NbNet(None, SHORT, SMALL).fit(images[:1], embeddings[:1])
    with pytest.raises(ParameterError, match="divide"):
        DecoderShape(SIDE, 48, 5)
    with pytest.raises(ParameterError, match="32 pixels"):
        DecoderShape(16)
    with pytest.raises(ParameterError, match="batch 2"):
        Training(batch=1)
    with pytest.raises(ParameterError, match="held_out"):
        Training(held_out=1.0)
    with pytest.raises(ParameterError, match="do not go together"):
        ascend(recogniser, OWN.images, TEMPLATES[1:], PixelBasis.of(images, 4))
    with pytest.raises(ProviderError, match="unknown device"):
        NbNet(device="gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_an_absent_gpu_is_an_error_and_no_fallback(recogniser):
    with pytest.raises(ProviderError, match="does not find it"):
        NbNet(recogniser, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_learns_the_same(recogniser):
    matrix = torch.from_numpy(inversion.projection()).cuda()

    def on_gpu(faces):
        flat = faces.permute(0, 2, 3, 1).reshape(len(faces), -1)
        return torch.tanh(8 * (flat.float() + (127.5 - 110) / 127.5) @ matrix)

    made = learnt(NbNet, on_gpu, device="cuda")
    here = NbNet.from_state(stored(made.state()))
    assert cosine(here.invert(TEMPLATES)) == pytest.approx(cosine(made.invert(TEMPLATES)), abs=0.01)
    assert cosine(made.invert(TEMPLATES)) > 0.2
