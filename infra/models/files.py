"""Identify model files, and refuse files without a pinned digest."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

from infra.models.registry import BY_DIGEST, BY_NAME, KnownFile
from infra.models.roles import role_of
from ironmask.errors import ModelDigestError

SUMS: Final = "SHA256SUMS"
_OWN_LICENCE: Final = "the operator's own model"


def read_sums(folder: Path) -> dict[str, str]:
    """The digests of a `SHA256SUMS` file, in the format of sha256sum, by file name."""
    path = folder / SUMS
    if not path.is_file():
        return {}
    sums = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        match = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](?:\./)?(\S.*)", line.strip())
        if match:
            sums[match[2]] = match[1].lower()
    return sums


def file_digest(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identify(path: Path, sums: dict[str, str]) -> KnownFile:
    """Hash a file and look it up among the known ones, then in `sums`.

    Raise `ModelDigestError` where it differs from its pin or has none, `ModelError` where an
    operator's model cannot be used.
    """
    digest = file_digest(path)
    known = BY_DIGEST.get(digest)
    expected = sums.get(path.name)
    if known is None and path.name in BY_NAME:  # a known name is never the operator's to pin
        expected = BY_NAME[path.name].sha256
    if expected is not None and expected != digest:
        raise ModelDigestError(
            f"{path}: expected sha256 {expected}, found {digest}. The file is damaged or another "
            "one: remove its folder and pull the pack again, or rename your own model and pin it "
            f"in {path.parent / SUMS}"
        )
    if known is not None:
        return known
    if expected is None:
        raise ModelDigestError(
            f"{path}: unknown model, sha256 {digest}. If it is yours, pin it: run "
            f"`sha256sum {path.name} >> {SUMS}` in {path.parent}"
        )
    return KnownFile(path.name, digest, role_of(path), _OWN_LICENCE, SUMS)
