"""IronMask: protected face templates.

Call `protect` and `verify`, or their batch forms: they are the safe way in. Their parts live in the
modules of the same names.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ironmask.centring import Centring, centre
    from ironmask.params import DEFAULT_PRESET, PRESETS, Params, preset
    from ironmask.random import secure_generator
    from ironmask.renewal import verify_and_renew
    from ironmask.template import (
        ProtectedTemplate,
        Protector,
        protect,
        protect_batch,
        verify,
        verify_batch,
    )

    __version__: str

__all__ = [
    "DEFAULT_PRESET",
    "PRESETS",
    "Centring",
    "Params",
    "ProtectedTemplate",
    "Protector",
    "centre",
    "preset",
    "protect",
    "protect_batch",
    "secure_generator",
    "verify",
    "verify_and_renew",
    "verify_batch",
]

_HOMES = {
    "centring": ("Centring", "centre"),
    "params": ("DEFAULT_PRESET", "PRESETS", "Params", "preset"),
    "template": (
        "ProtectedTemplate",
        "Protector",
        "protect",
        "protect_batch",
        "verify",
        "verify_batch",
    ),
    "random": ("secure_generator",),
    "renewal": ("verify_and_renew",),
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return version("ironmask")
    # Loaded on first use: `ironmask --help` must not wait for SciPy.
    for module, names in _HOMES.items():
        if name in names:
            value: object = getattr(import_module(f"ironmask.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'ironmask' has no attribute {name!r}")
