"""Where a user wants the work done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ironmask.errors import ParameterError
from pipelines.spec.addresses import without_secret

_EXECUTORS: Final = ("ray", "local")


@dataclass(frozen=True)
class Workplace:
    """executor: ray, or local (this process alone). workers: CPU workers; None: all cores.

    embedders: processes that hold the models, apart from the workers; None: as many as the GPUs
    have room for, and none on CPUs. gpu_fraction: share of a GPU that each of them reserves.
    ray_address: of a running cluster; None: one made for this run.
    """

    executor: str = "ray"
    workers: int | None = None
    embedders: int | None = None
    ray_address: str | None = None
    gpu_fraction: float = 1.0

    def __post_init__(self) -> None:
        """Raise `ParameterError` for what cannot be, or an address that carries credentials."""
        if self.executor not in _EXECUTORS:
            raise ParameterError(f"unknown executor {self.executor!r}; it is ray or local")
        for name, value, least in (("workers", self.workers, 1), ("embedders", self.embedders, 0)):
            if value is not None and value < least:
                raise ParameterError(f"{value} {name}: there are at least {least}")
        if not 0.0 < self.gpu_fraction <= 1.0:
            raise ParameterError(
                f"a gpu_fraction of {self.gpu_fraction:g}: it is more than 0, and 1 at most"
            )
        without_secret(self.ray_address or "", "--ray-address")
