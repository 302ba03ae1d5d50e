"""Giving up a generation that is being prepared."""

from __future__ import annotations

from pipelines.reprotection import job
from pipelines.setup.hold import hold_live
from pipelines.table.destroy_generation import Proof


def abandon(dest: str, keys: str | None) -> Proof:
    """Give up the generation that is being prepared."""
    with hold_live(dest, keys) as (held, keyring):
        return job.abandon(held, keyring)
