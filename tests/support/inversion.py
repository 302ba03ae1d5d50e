"""People whose faces are made up, small and smooth, and a recogniser of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ironmask import helper
from ironmask.attacks.inversion import Scores, Threshold, by_random_codewords, thresholds
from ironmask.attacks.result import template_of
from ironmask.params import Params, preset
from ironmask.template import protect_batch, reopen

SIDE, N = 32, 128
PARAMS: Params = preset("balanced", N)
_IDENTITY, _PHOTO = 40, 10
_LOUDNESS = 14.0


class Photos(NamedTuple):
    """images: (k, 32, 32, 3) uint8. people: (k,), their labels."""

    images: np.ndarray
    people: np.ndarray


def patterns(count: int = _IDENTITY + _PHOTO) -> np.ndarray:
    """Smooth coloured pictures that faces are mixed from: (count, 32 * 32 * 3)."""
    rng = np.random.default_rng(5)
    grid = np.arange(SIDE) / SIDE
    waves = np.stack([np.cos(np.pi * f * (grid + 0.5 / SIDE)) for f in range(8)])
    weights = rng.standard_normal((count, 8, 8, 3))
    made = np.einsum("kabc,ai,bj->kijc", weights, waves, waves).reshape(count, -1)
    return made / np.sqrt(np.square(made).mean(axis=1, keepdims=True))


def photos(people: int, each: int = 2, *, first: int = 0) -> Photos:
    """The photos of some people, whose labels begin at `first`; the same ones for the same label.

    A photo differs from another one of its person in light, pose and noise.
    """
    made, basis = [], patterns()
    for label in range(first, first + people):
        rng = np.random.default_rng((9, label))
        identity = np.tile(rng.standard_normal(_IDENTITY), (each, 1))
        mixed = np.hstack([identity, rng.standard_normal((each, _PHOTO))]) @ basis
        made.append(110 + _LOUDNESS * mixed / np.sqrt(6) + 4 * rng.standard_normal(mixed.shape))
    images = np.clip(np.rint(np.concatenate(made)), 0, 255).astype(np.uint8)
    return Photos(images.reshape(-1, SIDE, SIDE, 3), np.repeat(np.arange(people) + first, each))


def projection() -> np.ndarray:
    """What the recogniser looks at: (3 * 32 * 32, N) float32, in the order of (side, side, 3)."""
    rng = np.random.default_rng(6)
    return (rng.standard_normal((3 * SIDE**2, N)) / np.sqrt(3 * SIDE**2)).astype(np.float32)


def embed(images: np.ndarray) -> np.ndarray:
    """The recogniser: (k, N) float32, not normalised."""
    flat = (images.reshape(len(images), -1).astype(np.float32) - 110) / 127.5
    return np.tanh(8 * flat @ projection())


def torch_recogniser():
    """The same for tensors (k, 3, 32, 32) in -1..1, with gradients."""
    import torch

    matrix = torch.from_numpy(projection())

    def recogniser(faces):
        flat = faces.permute(0, 2, 3, 1).reshape(len(faces), -1)
        return torch.tanh(8 * (flat + (127.5 - 110) / 127.5) @ matrix)

    return recogniser


def threshold(far: float) -> Threshold:
    """The recogniser's, from people of no test."""
    strangers = photos(300, 1, first=100_000)
    (found,) = thresholds(embed(strangers.images), strangers.people, [far])
    assert found.supported
    return found


def scores(made: np.ndarray, against: Photos) -> Scores:
    return Scores.of(embed(made), embed(against.images), against.people)


def protected(templates: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What rows of templates give without keys, and what they give once their codewords are known:
    (k, N) each.
    """
    key = bytes(range(32))
    rows = protect_batch(templates, PARAMS, [key] * len(templates), rng=rng)
    helpers = helper.decode([row.helper for row in rows], PARAMS, rows[0].encoding)
    codes = [reopen(row, template, key) for row, template in zip(rows, templates, strict=True)]
    opened = [template_of(p, code) for p, code in zip(helpers, codes, strict=True)]
    return by_random_codewords(helpers, PARAMS.alpha, rng), np.stack(opened)
