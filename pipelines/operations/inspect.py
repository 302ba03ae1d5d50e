"""What a destination holds."""

from __future__ import annotations

from infra.settings import load as load_settings
from pipelines.operations import inventory
from pipelines.operations.inventory import Inventory
from pipelines.setup import places


def inspect(dest: str) -> Inventory:
    """Count what a destination holds."""
    _, storage = load_settings()
    return inventory.inventory(places.existing(dest, storage))
