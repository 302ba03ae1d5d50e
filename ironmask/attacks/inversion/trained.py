"""Inverters that are trained: NbNet, and a decoder on top of the linear inverter.

Importing this module needs PyTorch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ironmask.arrays import F32, U8, unit_rows
from ironmask.attacks.inversion.decoder import Decoder, Reconstruction
from ironmask.attacks.inversion.inverter import Pictures, State, Subset, matching, square_side
from ironmask.attacks.inversion.library import device as find_device
from ironmask.attacks.inversion.library import to_array, to_images, torch_library
from ironmask.attacks.inversion.linear import LinearInverter
from ironmask.attacks.inversion.losses import Recogniser
from ironmask.attacks.inversion.settings import Check, DecoderShape, Training
from ironmask.attacks.inversion.training import Trainer
from ironmask.errors import ParameterError

torch = torch_library()

_BATCH: Final = 64
# Of the linear part of a hybrid. Directions in which templates hardly vary are left to the decoder:
# a map that follows them makes much of the rounding of a template.
_RIDGE: Final = 0.1

Numbers = NDArray[np.intp]
_Affine = tuple[F32, F32 | None, Numbers]
"""Offset and weights of `Reconstruction`, and indices of the images that are left to train on."""


class _Trained(ABC):
    """What both have in common: a fixed affine image and a decoder that is trained."""

    def __init__(
        self,
        recogniser: Recogniser | None = None,
        training: Training | None = None,
        shape: DecoderShape | None = None,
        *,
        device: str = "cpu",
    ) -> None:
        """recogniser: differentiable, on the device; without one, pixels alone are trained on.

        Raises `ProviderError` for an absent device.
        """
        self._recogniser, self._device = recogniser, find_device(device)
        self._training = training or Training()
        self._shape = shape or DecoderShape()
        self._net: Any = None
        self.curve: tuple[Check, ...] = ()

    def fit(
        self,
        images: Pictures,
        embeddings: ArrayLike,
        people: ArrayLike | None = None,
        *,
        resume: State | None = None,
        on_check: Callable[[State], None] | None = None,
    ) -> None:
        """See `Inverter`. `curve` has the losses afterwards.

        on_check: gets a checkpoint now and then. resume: a checkpoint of the same images and
        settings, to go on from. Raises `MismatchError` where it is of another network.
        """
        rows = unit_rows(embeddings, np.shape(embeddings)[-1]).astype(np.float32)
        numbers = matching(images, rows, people)
        side = square_side(images[np.arange(1)])
        if side != self._shape.side:
            raise ParameterError(f"images of {side} pixels, the decoder's have {self._shape.side}")
        offset, weights, left = self._affine(images, rows, numbers)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._training.seed)
            decoder = Decoder(rows.shape[1], self._shape)
        net = _reconstruction(decoder, offset, weights, side)
        used = Subset(images, left)
        trainer = Trainer(
            net, self._recogniser, used, rows[left], numbers[left], self._training, self._device
        )
        if resume is not None:
            trainer.resume(resume)
        trainer.run(on_check)
        self._net, self.curve = trainer.net, tuple(trainer.curve)

    @abstractmethod
    def _affine(self, images: Pictures, rows: F32, people: Numbers, /) -> _Affine:
        """What the decoder's output is added to."""

    def invert(self, templates: ArrayLike) -> U8:
        """See `Inverter`. Raises `ParameterError` before `fit`."""
        net = self._learnt()
        rows = unit_rows(templates, np.shape(templates)[-1]).astype(np.float32)
        parts = [np.empty((0, self._shape.side, self._shape.side, 3), dtype=np.uint8)]
        with torch.no_grad():
            for at in range(0, len(rows), _BATCH):
                some = torch.from_numpy(rows[at : at + _BATCH]).to(self._device)
                parts.append(to_images(net(some)))
        return np.concatenate(parts)

    def state(self) -> State:
        """See `Inverter`."""
        net, shape = self._learnt(), self._shape
        found = {f"decoder/{k}": to_array(v) for k, v in net.decoder.state_dict().items()}
        found["shape"] = np.array([shape.side, shape.channels, shape.layers, shape.upsampled])
        found["offset"] = to_array(net.offset)
        if net.weights is not None:
            found["weights"] = to_array(net.weights)
        return found

    @classmethod
    def from_state(cls, state: State, *, device: str = "cpu") -> Self:
        """The inverter of a state."""
        side, channels, layers, upsampled = (int(v) for v in state["shape"])
        made = cls(shape=DecoderShape(side, channels, layers, bool(upsampled)), device=device)
        own = "decoder/"
        inner = {
            name.removeprefix(own): torch.from_numpy(np.array(value))
            for name, value in state.items()
            if name.startswith(own)
        }
        decoder = Decoder(len(inner["blocks.0.grow.weight"]), made._shape)
        decoder.load_state_dict(inner)
        net = _reconstruction(decoder, state["offset"], state.get("weights"), side)
        made._net = net.to(made._device).to(memory_format=torch.channels_last).eval()
        return made

    def _learnt(self) -> Any:
        if self._net is None:
            raise ParameterError("an inverter that has learnt nothing yet: call fit first")
        return self._net


class NbNet(_Trained):
    """The neighborly de-convolutional network, on top of the mean image.

    Mai et al. 2018, fitted to embeddings of 512 values; see `decoder`. Losses: pixels, and the
    angle between the template and the recogniser's embedding of the reconstruction.
    """

    def _affine(self, images: Pictures, _rows: F32, people: Numbers, /) -> _Affine:
        return _mean_image(images), None, np.arange(len(people))


class HybridInverter(_Trained):
    """A linear inverter and a decoder that learns what it leaves over.

    Untrained, it is the linear inverter. The linear part learns from half of the people and the
    decoder from the others: of faces that the linear part knows, the decoder would learn to correct
    too little.
    """

    def __init__(
        self,
        recogniser: Recogniser | None = None,
        training: Training | None = None,
        shape: DecoderShape | None = None,
        *,
        linear: LinearInverter | None = None,
        device: str = "cpu",
    ) -> None:
        """As `NbNet`. linear: one that is fitted to images of others, so that all are left for the
        decoder.
        """
        super().__init__(recogniser, training, shape, device=device)
        self._linear = linear

    def _affine(self, images: Pictures, rows: F32, people: Numbers, /) -> _Affine:
        left = np.arange(len(people))
        linear = self._linear
        if linear is None:
            numbered = torch.Generator().manual_seed(self._training.seed)
            order = torch.randperm(int(people.max()) + 1, generator=numbered).numpy()
            is_first = np.isin(people, order[: len(order) // 2])
            left = np.flatnonzero(~is_first)
            first = np.flatnonzero(is_first)
            linear = LinearInverter(_RIDGE)
            linear.fit(Subset(images, first), rows[first])
        weights, offset = linear.affine()
        return offset, weights, left


def _mean_image(images: Pictures) -> F32:
    """The mean of all images in -1..1: (3 side^2,)."""
    total: NDArray[np.float64] | None = None
    for at in range(0, len(images), _BATCH):
        part = np.asarray(images[np.arange(at, min(at + _BATCH, len(images)))])
        added = part.reshape(len(part), -1).sum(axis=0, dtype=np.float64)
        total = added if total is None else total + added
    if total is None:
        raise ParameterError("no images to learn from")
    return (total / len(images) / 127.5 - 1).astype(np.float32)


def _reconstruction(decoder: Decoder, offset: F32, weights: F32 | None, side: int) -> Any:
    linear = None if weights is None else torch.from_numpy(weights)
    return Reconstruction(decoder, torch.from_numpy(offset), linear, side)
