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

    embedders: processes that hold a recogniser, apart from the workers; None: one a GPU.
    ray_address: of a running cluster; None: one made for this run.
    """

    executor: str = "ray"
    workers: int | None = None
    embedders: int | None = None
    ray_address: str | None = None

    def __post_init__(self) -> None:
        """Raise `ParameterError` for what cannot be, or an address that carries credentials."""
        if self.executor not in _EXECUTORS:
            raise ParameterError(f"unknown executor {self.executor!r}; it is ray or local")
        for name, value, least in (("workers", self.workers, 1), ("embedders", self.embedders, 0)):
            if value is not None and value < least:
                raise ParameterError(f"{value} {name}: there are at least {least}")
        without_secret(self.ray_address or "", "--ray-address")
