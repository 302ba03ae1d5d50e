"""NbNet's networks: neighborly de-convolution blocks that grow an image out of a template.

Mai, Cao, Yuen and Jain, On the Reconstruction of Face Images from Deep Face Templates, IEEE
Transactions on Pattern Analysis and Machine Intelligence 41(5), 2019, section 3. Blocks here are
smaller ones, as Kim et al. 2021, supplement A, have them for embeddings of 512 values.

Importing this module needs PyTorch; see `library.torch_library`.
"""

from __future__ import annotations

from typing import Any

from ironmask.attacks.inversion.library import torch_library
from ironmask.attacks.inversion.settings import DecoderShape

torch = torch_library()
nn = torch.nn
_Module: Any = nn.Module


class NbBlock(_Module):  # type: ignore[misc]
    """A de-convolution, then layers that each build channels from it and from the layer before.

    "NbNet-B": all outputs are joined, so half of the channels are neighbours of the other half.
    """

    def __init__(self, grow: Any, channels: int, layers: int) -> None:
        super().__init__()
        self.grow = grow
        each = channels // layers
        inputs = [channels] + [channels + each] * (layers - 1)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(given),
                nn.ReLU(inplace=True),
                nn.Conv2d(given, each, 3, padding=1, bias=False),
            )
            for given in inputs
        )

    def forward(self, x: Any) -> Any:
        grown = self.grow(x)
        found, given = [grown], grown
        for layer in self.layers:
            found.append(layer(given))
            given = torch.cat([grown, found[-1]], 1)
        return torch.cat(found, 1)


class Decoder(_Module):  # type: ignore[misc]
    """Templates, (k, n) unit rows, to what is added to an image: (k, 3, side, side).

    Six blocks and one convolution, which begins at zero.
    """

    def __init__(self, n: int, shape: DecoderShape) -> None:
        super().__init__()
        self.scale = n**0.5
        blocks, given, before = [], n, 1
        for place, (side, channels, layers) in enumerate(shape.blocks):
            if place == 0:
                grow = nn.ConvTranspose2d(given, channels, side, bias=False)
            else:
                grow = nn.Sequential(
                    nn.BatchNorm2d(given),
                    nn.ReLU(inplace=True),
                    *_growing(given, channels, before, side, shape.upsampled),
                )
            blocks.append(NbBlock(grow, channels, layers))
            given, before = 2 * channels, side
        self.blocks = nn.Sequential(*blocks)
        self.end = nn.Sequential(
            nn.BatchNorm2d(given), nn.ReLU(inplace=True), nn.Conv2d(given, 3, 3, padding=1)
        )
        nn.init.zeros_(self.end[-1].weight)
        nn.init.zeros_(self.end[-1].bias)

    def forward(self, templates: Any) -> Any:
        return self.end(self.blocks(self.scale * templates[:, :, None, None]))


class Reconstruction(_Module):  # type: ignore[misc]
    """An affine image of the template, in -1..1, plus a decoder's.

    weights: (n, 3 side^2), or none where every template begins with the same image; offset:
    (3 side^2,), both in the order of `LinearInverter.affine`. They are not trained.
    """

    def __init__(self, decoder: Decoder, offset: Any, weights: Any | None, side: int) -> None:
        super().__init__()
        self.decoder, self.side = decoder, side
        # They do not change, so checkpoints do without them.
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, templates: Any) -> Any:
        flat = self.offset.expand(len(templates), -1)
        if self.weights is not None:
            # Half precision would round it to more than a grey level.
            with torch.autocast(templates.device.type, enabled=False):
                flat = flat + templates @ self.weights
        first = flat.view(-1, self.side, self.side, 3).permute(0, 3, 1, 2)
        return first + self.decoder(templates).float()


def _growing(given: int, channels: int, before: int, side: int, upsampled: bool) -> list[Any]:
    """Layers from `before` to `side` pixels, which are twice as many, or one less."""
    if upsampled:
        return [
            nn.Upsample(size=(side, side), mode="nearest"),
            nn.Conv2d(given, channels, 3, padding=1, bias=False),
        ]
    if side == before:
        return [nn.Conv2d(given, channels, 3, padding=1, bias=False)]
    kernel = 4 - (2 * before - side)
    return [nn.ConvTranspose2d(given, channels, kernel, stride=2, padding=1, bias=False)]
