"""One small interface to array libraries and devices: NumPy, and PyTorch or CuPy on a GPU.

Code that uses it keeps to the Python array API standard and to the methods offered here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import numpy as np

from ironmask.errors import ProviderError

CPU: Final = "cpu"
_CUDA: Final = "cuda"


@dataclass(frozen=True)
class Accelerator:
    """An array library and a device of it. xp: a namespace of the array API standard."""

    xp: Any
    device: Any

    @property
    def is_host(self) -> bool:
        """Whether arrays are NumPy's."""
        return str(self.xp.__name__) == "array_api_compat.numpy"

    def upload(self, array: np.ndarray[Any, Any]) -> Any:
        return self.xp.asarray(array, device=self.device)

    def download(self, array: Any) -> np.ndarray[Any, Any]:
        if hasattr(array, "cpu"):
            array = array.cpu()
        return np.asarray(array.get() if hasattr(array, "get") else array)

    def least_of_largest(self, values: Any, k: int) -> Any:
        """The k-th largest value of each row, (m, n): (m, 1)."""
        if hasattr(values, "topk"):
            return values.topk(k, dim=1, sorted=False).values.min(dim=1, keepdim=True).values
        # The standard has no `partition`; NumPy and CuPy both do.
        split = values.shape[1] - k
        return self._plain("partition")(values, split, axis=1)[:, split : split + 1]

    def sum_of_largest(self, values: Any, k: int) -> Any:
        """The sum of the k largest values of each row, (m, n) without negative ones: (m,)."""
        return self.xp.sum(values * (values >= self.least_of_largest(values, k)), axis=1)

    def largest(self, values: Any, k: int) -> Any:
        """Places of the k largest values of each row, (m, n), in no order: (m, k).

        Among equal values any may be chosen.
        """
        if hasattr(values, "topk"):
            return values.topk(k, dim=1, sorted=False).indices
        return self._plain("argpartition")(values, values.shape[1] - k, axis=1)[:, -k:]

    def _plain(self, name: str) -> Any:
        return getattr(np if self.is_host else import_module("cupy"), name)


def accelerator(name: str) -> Accelerator:
    """Open `cpu`, or open `cuda` or `cuda:<number>` with PyTorch or CuPy.

    Raises `ProviderError` where that device or its library is absent. It never falls back.
    """
    if name == CPU:
        return Accelerator(import_module("array_api_compat.numpy"), CPU)
    kind, _, number = name.partition(":")
    if kind != _CUDA or not (number or "0").isdigit():
        raise ProviderError(f"unknown device {name!r}: cpu, cuda or cuda:<number>")
    try:
        import torch

        if torch.cuda.is_available() and int(number or 0) < torch.cuda.device_count():
            return Accelerator(import_module("array_api_compat.torch"), name)
    except ImportError:
        pass
    try:
        import cupy

        if int(number or 0) < cupy.cuda.runtime.getDeviceCount():
            return Accelerator(
                import_module("array_api_compat.cupy"), cupy.cuda.Device(int(number or 0))
            )
    except Exception as error:
        raise _absent(name) from error
    raise _absent(name)


def _absent(name: str) -> ProviderError:
    return ProviderError(
        f"device {name!r}: neither PyTorch nor CuPy finds it. Install `ironmask[gpu]` and check "
        "the driver, or use device 'cpu'"
    )
