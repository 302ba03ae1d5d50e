"""What trained inverters minimise.

Kim et al. 2021, supplement A: a loss of pixels, and in place of Mai's perceptual one the angular
distance between the recogniser's embedding of the reconstruction and the template.

Importing this module needs PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ironmask.attacks.inversion.library import torch_library

torch = torch_library()

Recogniser = Callable[[Any], Any]
"""A differentiable recogniser: (k, 3, side, side) float32 RGB in -1..1 to embeddings, (k, n)."""


def seen(made: Any) -> Any:
    """What a recogniser gets of images in -1..1: no stored image holds more."""
    return made.clamp(-1, 1)


def cosines(embedded: Any, templates: Any) -> Any:
    """(k,) cosines of embeddings of any scale, in float32."""
    return torch.nn.functional.cosine_similarity(embedded.float(), templates.float(), dim=1)


def pixel_loss(made: Any, images: Any) -> Any:
    """Mean absolute difference of images in -1..1 (Mai et al. 2018, equation 5)."""
    return (made.float() - images).abs().mean()


def total_variation(made: Any) -> Any:
    """Mean absolute difference of neighbours, which a checkerboard makes large."""
    down = (made[:, :, 1:] - made[:, :, :-1]).abs().mean()
    across = (made[:, :, :, 1:] - made[:, :, :, :-1]).abs().mean()
    return down + across
