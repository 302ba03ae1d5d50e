"""White-box ascent: a few gradient steps from any reconstruction to a face that is accepted.

Importing this module needs PyTorch.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from ironmask.arrays import U8, unit_rows
from ironmask.attacks.inversion.basis import PixelBasis
from ironmask.attacks.inversion.inverter import square_side
from ironmask.attacks.inversion.library import device as find_device
from ironmask.attacks.inversion.library import to_images, to_tensor, torch_library
from ironmask.attacks.inversion.losses import Recogniser, cosines, seen
from ironmask.errors import ParameterError

torch = torch_library()

_BATCH: Final = 16


def ascend(
    recogniser: Recogniser,
    start: U8,
    templates: ArrayLike,
    basis: PixelBasis,
    steps: int = 10,
    *,
    rate: float = 0.3,
    device: str = "cpu",
) -> U8:
    """Move images towards templates: (k, side, side, 3) uint8 RGB.

    Each step of Adam (Kingma and Ba, International Conference on Learning Representations, 2015)
    raises the cosine between the recogniser's embedding and the template. It moves the image along
    the basis alone, so it stays a face. start: (k, side, side, 3) uint8. templates: (k, n) of any
    scale. rate: of the first step, in standard deviations of each component; it falls to zero.

    Raises `ParameterError` for arrays that do not match, `ProviderError` for an absent device.
    """
    rows = unit_rows(templates, np.shape(templates)[-1]).astype(np.float32)
    pixels = 3 * square_side(start) ** 2
    if len(start) != len(rows) or basis.components.shape[1] != pixels or steps < 0:
        raise ParameterError(
            f"{len(start)} images of {pixels} values, {len(rows)} templates, a basis of "
            f"{basis.components.shape[1]} values and {steps} steps do not go together"
        )
    on = find_device(device)
    # In units of the image tensor: 127.5 grey levels are 1.
    scaled = basis.components * (basis.deviations[:, None] / np.float32(127.5))
    directions = torch.from_numpy(scaled).to(on)
    out = np.empty_like(start)
    for at in range(0, len(rows), _BATCH):
        part = slice(at, at + _BATCH)
        images, targets = to_tensor(start[part], on), torch.from_numpy(rows[part]).to(on)
        out[part] = to_images(_moved(recogniser, images, targets, directions, steps, rate))
    return out


def _moved(
    recogniser: Recogniser, images: Any, targets: Any, directions: Any, steps: int, rate: float
) -> Any:
    side = images.shape[-1]
    moves = torch.zeros(len(images), len(directions), device=images.device, requires_grad=True)
    optimiser = torch.optim.Adam([moves], lr=rate)
    falling = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 1 / max(steps, 1), max(steps, 1))

    def moved() -> Any:
        change = (moves @ directions).view(-1, side, side, 3).permute(0, 3, 1, 2)
        return seen(images + change)

    for _ in range(steps):
        optimiser.zero_grad()
        (-cosines(recogniser(moved()), targets).sum()).backward()
        optimiser.step()
        falling.step()
    with torch.no_grad():
        return moved()
