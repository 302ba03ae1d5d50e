"""Keys that do not belong to the templates at hand are refused."""

from __future__ import annotations

from ironmask.errors import WrongKeyError
from pipelines.ports import GenerationKeys


def refuse_other_keys(dest: str, key_id: str, keys: GenerationKeys) -> None:
    """Raise `WrongKeyError` where these are not the keys that a table's templates name."""
    if keys.key_id != key_id:
        raise WrongKeyError(
            f"the keys at hand are {keys.key_id}; the templates of {dest} were sealed under "
            f"{key_id}"
        )
