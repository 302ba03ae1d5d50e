"""Texts that came from elsewhere, as a terminal may show them."""

from __future__ import annotations

import unicodedata
from typing import Final

# Control characters, among them escape; marks that turn the direction of writing; separators that
# end a line; halves of a surrogate pair, which no terminal can be sent.
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# These join letters of some scripts, and the parts of an emoji.
_JOINERS: Final = frozenset("\u200c\u200d")


def visible(text: str, keep: str = "") -> str:
    r"""A text whose control characters are written out, as `\x1b`, so that none takes effect.

    keep: characters that are left as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or not _is_hidden(c) else _written(c) for c in text)


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN and character not in _JOINERS


def _written(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
