"""The pack of a table's model, among those on this machine."""

from __future__ import annotations

import re
from typing import Final

from infra.models.packs import (
    ModelPack,
    find_pack,
    installed_names,
    models_home,
    short,
    usual_fingerprint,
)
from infra.models.registry import KNOWN_PACKS
from ironmask.errors import ModelError, ModelNotFoundError

_FINGERPRINT: Final = re.compile("[0-9a-f]{64}")


def find_fingerprint(fingerprint: str) -> ModelPack:
    """Find the pack of a fingerprint among those in `models_home()`.

    Raise `ModelNotFoundError` where none of them has it: a damaged pack has no fingerprint.
    """
    known = _known_name(fingerprint)
    for name in sorted(installed_names(), key=lambda name: name != known):
        try:
            pack = find_pack(str(models_home() / name))
        except ModelError:
            continue
        if pack.fingerprint == fingerprint:
            return pack
    pulled = f"run `ironmask models pull {known}`" if known else "pull it"
    raise ModelNotFoundError(
        f"no model pack in {models_home()} has the fingerprint {short(fingerprint)}: {pulled}, or "
        "name the folder that holds it with --model; `ironmask models list` shows what is here"
    )


def find_installed(name: str) -> ModelPack:
    """Find a pack by its name in `models_home()` alone, never in a folder that the name means.

    Raise as `find_pack`.
    """
    if name not in installed_names():
        raise ModelNotFoundError(
            f"no model pack {name!r} in {models_home()}, by which stored embeddings are said to "
            "be made: pull it, or name a folder of that name that holds its ONNX files with --model"
        )
    return find_pack(str(models_home() / name))


def label_of(model: str) -> str:
    """What people see of a model that a table names by its fingerprint, or as it was declared."""
    known = _known_name(model)
    shown = short(model) if _FINGERPRINT.fullmatch(model) else model
    return f"{known} ({shown})" if known else shown


def _known_name(fingerprint: str) -> str | None:
    """The name of the known pack that has a fingerprint in its usual form."""
    usual = {usual_fingerprint(pack): pack.name for pack in KNOWN_PACKS.values()}
    return usual.get(fingerprint)
