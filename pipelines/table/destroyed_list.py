"""The list of a destroyed generation's files, stored beside the tables. Its last line is a MAC.

Lists of older releases have no MAC. Then nothing tells whether their lines were changed.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import Final

from pipelines.ports import TableKeys
from pipelines.table import layout

_LINE: Final = re.compile(r"(?:0|[1-9]\d{0,17}) (?P<sha256>[0-9a-f]{64}) (?P<path>\S+)")
_MAC: Final = re.compile(rb"mac (?P<mac>[0-9a-f]{64})\n\Z")


def of_files(files: Mapping[str, int]) -> bytes:
    """The list of some files, given as bytes by path."""
    lines = (f"{size} {layout.digest_in(path)} {path}\n" for path, size in sorted(files.items()))
    return "".join(lines).encode()


def authenticated(listed: bytes, number: int, keys: TableKeys) -> bytes:
    """A list with its MAC, as it is stored."""
    return listed + f"mac {_mac(listed, number, keys).hex()}\n".encode()


def without_mac(stored: bytes) -> bytes:
    """The list without its MAC."""
    found = _MAC.search(stored)
    return stored[: found.start()] if found else stored


def has_mac(stored: bytes) -> bool:
    return _MAC.search(stored) is not None


def is_authentic(stored: bytes, number: int, keys: TableKeys | None) -> bool:
    """Whether these keys authenticated a stored list for a generation."""
    found = _MAC.search(stored)
    if found is None or keys is None:
        return False
    expected = _mac(stored[: found.start()], number, keys)
    return hmac.compare_digest(found["mac"].decode(), expected.hex())


def is_well_formed(listed: bytes, number: int) -> bool:
    """Whether this can be a list of a generation's files: size, digest and name on each line."""
    try:
        text = listed.decode("ascii")
    except UnicodeDecodeError:
        return False
    lines = text.split("\n")
    return lines.pop() == "" and all(_is_file(line, number) for line in lines)


def _is_file(line: str, number: int) -> bool:
    found = _LINE.fullmatch(line)
    return (
        found is not None
        and layout.digest_in(found["path"]) == found["sha256"]
        and layout.generation_of(found["path"]) == number
    )


def _mac(listed: bytes, number: int, keys: TableKeys) -> bytes:
    point = f"ironmask destroyed files\0{number}\0".encode()
    return hmac.digest(keys.destruction_key(), point + listed, "sha256")
