"""Lists that people write: names to leave out, roles, pairs. Any program may have written the file.

The text is UTF-8, with or without a byte-order mark, with line ends of any system. Tabs, commas,
semicolons or, in pairs, blanks separate cells. A line that begins with `#` is a comment. A name in
quotation marks is taken as it is; two quotation marks inside it mean one.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ironmask.errors import ProtocolError, SourceError

Numbered = tuple[str, str]
"""The person of an image, and the image's number without leading zeros."""

_ENDS: Final = re.compile(r"\r\n|\r|\n")
_QUOTED: Final = re.compile(r'"((?:[^"]|"")*)"')
_NUMBER: Final = re.compile("[0-9]+")
_NUMBERED: Final = re.compile("(.+)_([0-9]+)")
_IMAGE, _ROLE, _TEMPLATE = "image", "role", "template"


@dataclass(frozen=True, slots=True)
class Pair:
    """A line of a list of pairs. is_comment: it begins with `#`, but would be a pair without."""

    line: int
    first: Numbered
    second: Numbered
    genuine: bool
    is_comment: bool


@dataclass(frozen=True, slots=True)
class Role:
    """A line of a list of roles. template: empty where none is named. is_comment: see `Pair`."""

    line: int
    image: str
    is_probe: bool
    template: str
    is_comment: bool


def decoded(address: str, data: bytes) -> str:
    """The text of a file. Raises `SourceError` where it is not UTF-8."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SourceError(f"{address} is UTF-16 text: save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(_ENDS.findall(data[: error.start].decode(errors="replace"))) + 1
        raise SourceError(f"{address}, line {line}: this is no UTF-8 text: save it so") from None
    if "\0" in text:
        raise SourceError(f"{address} holds NUL characters, so it is no UTF-8 text: save it so")
    return text


def names(text: str) -> list[str]:
    """The names in a list, one a line, in order and each once."""
    return sorted({_unquoted(line) for _, line in _lines(text) if not line.startswith("#")})


def comments(text: str) -> list[tuple[int, str]]:
    """The comments, with their line numbers."""
    return [(number, line) for number, line in _lines(text) if line.startswith("#")]


def is_roles(text: str) -> bool:
    """Whether its heading says that a list is one of roles."""
    return _heading(text) is not None


def roles(name: str, text: str) -> Iterator[Role]:
    """The lines of a list with the columns image and role, and perhaps template.

    Raises `ProtocolError` for an invalid line.
    """
    heading = _heading(text)
    if heading is None:
        raise ProtocolError(f"{name}: the first line does not name the columns image and role")
    start, delimiter, columns = heading
    if len(set(columns)) < len(columns):
        raise ProtocolError(f"{name}, line {start}: a column is named twice")
    for number, line in _lines(text):
        is_comment = line.startswith("#")
        if number <= start:
            continue
        cells = _cells(line, delimiter)
        if cells is None or len(cells) > len(columns):
            if is_comment:
                continue
            raise ProtocolError(
                f"{name}, line {number}: it has other cells than the heading; a name that holds "
                f"{delimiter!r} or quotation marks must be in quotation marks"
            )
        row = dict(zip(columns, cells, strict=False))
        role = row.get(_ROLE)
        if role not in ("enrol", "probe"):
            if is_comment:
                continue
            raise ProtocolError(f"{name}, line {number}: role {role!r} is neither enrol nor probe")
        template = row.get(_TEMPLATE, "")
        yield Role(number, row[_IMAGE], role == "probe", template, is_comment)


def pairs(name: str, text: str) -> Iterator[Pair]:
    """The lines of LFW's pairs.txt: `name i j` is genuine, `name i other j` is not.

    A first line of counts or of column names is left out. Raises `ProtocolError` for a line that is
    no pair, and for an image with itself.
    """
    is_first = True
    for number, line in _lines(text):
        is_comment = line.startswith("#")
        found = _pair(line)
        if found is None and not is_comment and not (is_first and _is_top(line)):
            raise ProtocolError(
                f"{name}, line {number}: {line!r} is neither `name i j` nor `name i other j` with "
                "image numbers i and j"
            )
        is_first = is_first and is_comment
        if found is None:
            continue
        first, second, genuine = found
        if first == second and not is_comment:
            raise ProtocolError(
                f"{name}, line {number}: image {first[1]} of {first[0]!r} would be compared with "
                "itself: remove the line"
            )
        yield Pair(number, first, second, genuine, is_comment)


def numbered(image: str) -> Numbered | None:
    """The name of an image in a list of pairs: `Ann_0012.jpg` in any folder is Ann's image 12.

    None where its name has no such number. An extension is cut off only if a number comes last
    without it, so that `St.Ann_0012` keeps its dot.
    """
    stem = re.split(r"[/\\]", image)[-1]
    while stem:
        if found := _NUMBERED.fullmatch(stem):
            return found[1], _plain(found[2])
        stem = stem.rpartition(".")[0]
    return None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with text in a cell, without the blanks around them, and their numbers."""
    for number, line in enumerate(_ENDS.split(text), 1):
        if line.strip(" \t,;"):
            yield number, line.strip()


def _unquoted(line: str) -> str:
    found = _QUOTED.fullmatch(line)
    return found[1].replace('""', '"') if found else line


def _heading(text: str) -> tuple[int, str, list[str]] | None:
    """The heading of a list of roles: line number, delimiter and columns."""
    number, line = next((one for one in _lines(text) if not one[1].startswith("#")), (0, ""))
    for delimiter in ",;\t":
        cells = [cell.lower() for cell in _cells(line, delimiter) or []]
        if {_IMAGE, _ROLE} <= set(cells):
            return number, delimiter, cells
    return None


def _cells(line: str, delimiter: str) -> list[str] | None:
    """The cells of a line. None where a quotation mark is not closed."""
    aside = delimiter != " "
    try:
        (cells,) = csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=aside)
    except csv.Error:
        return None
    return [cell.strip() for cell in cells]


def _pair(line: str) -> tuple[Numbered, Numbered, bool] | None:
    for delimiter in "\t,; ":
        cells = _cells(line, delimiter) or []
        if delimiter == " ":
            cells = [cell for cell in cells if cell]
        while cells and not cells[-1]:
            cells.pop()
        if len(cells) not in (3, 4):
            continue
        genuine = len(cells) == 3
        who, which = cells[0], cells[1]
        other, other_which = cells[0] if genuine else cells[2], cells[-1]
        if who and other and _NUMBER.fullmatch(which) and _NUMBER.fullmatch(other_which):
            return (who, _plain(which)), (other, _plain(other_which)), genuine
    return None


def _is_top(line: str) -> bool:
    """Whether a line counts sets and pairs, or names columns (`name,imagenum1,imagenum2`)."""
    words = [word for word in re.split(r"[\s,;]+", line) if word]
    if all(_NUMBER.fullmatch(word) for word in words):
        return len(words) < 3
    return words[0].lower() == "name" and not any(_NUMBER.fullmatch(word) for word in words)


def _plain(number: str) -> str:
    return number.lstrip("0") or "0"
