"""Template inversion: the face behind an embedding, as a thief of templates would make it.

Kim et al. 2021, supplement A. An inverter learns from faces of other people what an embedding looks
like. Its reconstruction is then shown to a recogniser, which accepts it or not (`scoring`).

| inverter | needs | cost |
| --- | --- | --- |
| `LinearInverter` | pairs of faces and embeddings, NumPy alone | one pass over them |
| `NbNet` | the same, PyTorch; better with a differentiable recogniser | training |
| `HybridInverter` | the same | training; it begins as good as the linear one |
| `ascend` | a differentiable recogniser and a start | `steps` gradients a template |

Another inverter is any callable that takes templates, (k, n), and gives images (`inverted`). Images
are (k, side, side, 3) uint8 RGB, aligned as the recogniser wants them. Nothing here reads files.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ironmask.attacks.inversion.basis import PixelBasis
from ironmask.attacks.inversion.inverter import Inverter, State, inverted
from ironmask.attacks.inversion.linear import LinearInverter
from ironmask.attacks.inversion.scoring import Hits, Scores, Threshold, other_photos, thresholds
from ironmask.attacks.inversion.settings import Check, DecoderShape, Training
from ironmask.attacks.inversion.stolen import by_random_codewords

if TYPE_CHECKING:
    from ironmask.attacks.inversion.ascent import ascend
    from ironmask.attacks.inversion.trained import HybridInverter, NbNet

__all__ = [
    "Check",
    "DecoderShape",
    "Hits",
    "HybridInverter",
    "Inverter",
    "LinearInverter",
    "NbNet",
    "PixelBasis",
    "Scores",
    "State",
    "Threshold",
    "Training",
    "ascend",
    "by_random_codewords",
    "inverted",
    "other_photos",
    "thresholds",
]

# What needs PyTorch, by module.
_TRAINED = {
    "HybridInverter": "trained",
    "NbNet": "trained",
    "ascend": "ascent",
}


def __getattr__(name: str) -> object:
    if name not in _TRAINED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_TRAINED[name]}"), name)
    globals()[name] = value
    return value
