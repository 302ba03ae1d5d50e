"""IronMask at scale: the verbs of the command line, for other programs.

Each verb does what the command of its name does, with the same options and refusals.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.api.audit import audit
    from pipelines.api.capacity import plan_capacity
    from pipelines.api.enrolment import enroll
    from pipelines.api.evaluation import evaluate
    from pipelines.api.inversion import invert_evaluate, invert_fit
    from pipelines.api.operations import (
        check,
        erase,
        failures,
        inspect,
        prove,
        rotate_kek,
        status,
        vacuum,
    )
    from pipelines.api.repair import repair
    from pipelines.api.reprotection import rekey, reprotect, rotate_mac
    from pipelines.api.settings import settings
    from pipelines.verification.verifier import Verifier

__all__ = [
    "Verifier",
    "audit",
    "check",
    "enroll",
    "erase",
    "evaluate",
    "failures",
    "inspect",
    "invert_evaluate",
    "invert_fit",
    "plan_capacity",
    "prove",
    "rekey",
    "repair",
    "reprotect",
    "rotate_kek",
    "rotate_mac",
    "settings",
    "status",
    "vacuum",
]

_HOMES = {
    "api.audit": ("audit",),
    "api.capacity": ("plan_capacity",),
    "api.enrolment": ("enroll",),
    "api.evaluation": ("evaluate",),
    "api.inversion": ("invert_evaluate", "invert_fit"),
    "api.operations": (
        "check", "erase", "failures", "inspect", "prove", "rotate_kek", "status", "vacuum",
    ),
    "api.repair": ("repair",),
    "api.reprotection": ("rekey", "reprotect", "rotate_mac"),
    "api.settings": ("settings",),
    "verification.verifier": ("Verifier",),
}  # fmt: skip


def __getattr__(name: str) -> object:
    # Loaded on first use: a program that verifies needs no evaluation.
    for module, names in _HOMES.items():
        if name in names:
            value: object = getattr(import_module(f"pipelines.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'pipelines' has no attribute {name!r}")
