"""IronMask: protected face templates.

The safe way in is `protect` and `verify` (and their batch forms); the parts they are made of live
in the modules of the same names.
"""

from ironmask.centring import Centring, centre
from ironmask.params import DEFAULT_PRESET, PRESETS, Params, preset
from ironmask.protect import ProtectedTemplate, protect, protect_batch, verify, verify_batch
from ironmask.random import secure_generator

__all__ = [
    "DEFAULT_PRESET",
    "PRESETS",
    "Centring",
    "Params",
    "ProtectedTemplate",
    "centre",
    "preset",
    "protect",
    "protect_batch",
    "secure_generator",
    "verify",
    "verify_batch",
]
