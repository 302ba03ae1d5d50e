"""What a trained inverter is and how long it learns: plain values, without PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ironmask.attacks.inversion.inverter import SIDE
from ironmask.errors import ParameterError

BLOCKS: Final = 6


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """side: pixels of a side of the images.

    channels: what the first de-convolution gives; each block's gives half of the one before.
    layers: convolutions of the first block; each block has half of the one before, at least 1.
    They give as many channels together as the de-convolution of their block. upsampled: images grow
    by repeated pixels and a convolution, instead of a de-convolution, which can leave a
    checkerboard (Odena, Dumoulin and Olah, Distill, 2016).
    """

    side: int = SIDE
    channels: int = 256
    layers: int = 8
    upsampled: bool = False

    def __post_init__(self) -> None:
        """Raises `ParameterError` for sizes that give no network."""
        if self.side < 1 << (BLOCKS - 1) or self.layers < 1:
            raise ParameterError(f"{self}: images of 32 pixels or more, and a layer or more")
        if any(channels < 1 or channels % layers for _, channels, layers in self.blocks):
            raise ParameterError(
                f"{self}: layers must divide channels, which are halved {BLOCKS - 1} times"
            )

    @property
    def blocks(self) -> list[tuple[int, int, int]]:
        """Side, channels of the de-convolution and layers of each block."""
        sides = [self.side]
        for _ in range(BLOCKS - 1):
            sides.insert(0, -(-sides[0] // 2))
        return [
            (side, self.channels >> place, max(1, self.layers >> place))
            for place, side in enumerate(sides)
        ]


@dataclass(frozen=True, slots=True)
class Training:
    """How long and for what.

    images: budget in images, each counted as often as it is seen. cpu_seconds: the same in seconds
    of this process. pixel_images: of the budget, before the angular loss joins. batch: images at
    once. rate: of Adam; it falls along half a cosine to the end of the budget. angular, pixel,
    smoothness: weights of the losses; see `losses`. check_every: images between two checks.
    patience: checks without a better held-out loss, after which training stops. held_out: share of
    people who are not trained on. seed: of the first weights and the order of images.
    """

    images: int = 100_000
    cpu_seconds: float = math.inf
    pixel_images: int = 0
    batch: int = 16
    rate: float = 1e-3
    angular: float = 4.0
    pixel: float = 1.0
    smoothness: float = 0.0
    check_every: int = 4096
    patience: int = 5
    held_out: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises `ParameterError` for a setting that trains nothing."""
        if min(self.images, self.batch - 1, self.check_every, self.patience) < 1:
            raise ParameterError(
                f"{self}: images, check_every and patience are 1 or more, batch 2 or more"
            )
        weights = (self.angular, self.pixel, self.smoothness)
        if not (min(weights) >= 0 and self.rate > 0 and 0 <= self.held_out < 1):
            raise ParameterError(f"{self}: weights are 0 or more, held_out lies in 0..1")


@dataclass(frozen=True, slots=True)
class Check:
    """A point of the loss curve.

    images: seen so far. loss: mean since the last check. held_out: loss of held-out people, NaN
    where there are none. cosine: mean of their reconstructions to their templates, NaN without a
    recogniser.
    """

    images: int
    loss: float
    held_out: float
    cosine: float
