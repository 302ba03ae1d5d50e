"""PyTorch, which only trained inverters need, and the devices it finds."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ironmask.arrays import U8
from ironmask.errors import ProviderError

_CPU: Final = "cpu"
_CUDA: Final = "cuda"


def torch_library() -> Any:
    """The module `torch`. Raises `ProviderError` where it is not installed."""
    try:
        return import_module("torch")
    except ImportError as error:
        raise ProviderError(
            "trained inverters and gradients need PyTorch: install it with "
            '`pip install "ironmask[attacks]"` (a build for CPUs will do), or use the linear '
            "inverter"
        ) from error


def device(name: str) -> Any:
    """`cpu`, `cuda` or `cuda:<number>` as torch names it.

    Raises `ProviderError` where that device is absent. It never falls back.
    """
    torch = torch_library()
    kind, _, number = name.partition(":")
    if kind not in (_CPU, _CUDA) or not (number or "0").isdigit():
        raise ProviderError(f"unknown device {name!r}: cpu, cuda or cuda:<number>")
    if kind == _CUDA and int(number or 0) >= torch.cuda.device_count():
        raise ProviderError(
            f"device {name!r}: PyTorch does not find it; check the driver and that its build is "
            "one for CUDA, or use device 'cpu'"
        )
    return torch.device(name)


def to_tensor(images: U8, on: Any) -> Any:
    """(k, side, side, 3) uint8 as (k, 3, side, side) float32 in -1..1, channels last in memory."""
    torch = torch_library()
    bytes_ = torch.from_numpy(np.ascontiguousarray(images)).to(on)
    return (bytes_.permute(0, 3, 1, 2).float() - 127.5) / 127.5


def to_images(tensor: Any) -> U8:
    """The reverse of `to_tensor`, clipped and rounded."""
    values = (tensor.detach().float() * 127.5 + 127.5).clamp(0, 255).round()
    torch = torch_library()
    images: U8 = values.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return images


def to_array(tensor: Any) -> NDArray[Any]:
    """A copy of a tensor as an array."""
    copy: NDArray[Any] = tensor.detach().cpu().numpy().copy()
    return copy
