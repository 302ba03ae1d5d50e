"""Failed inputs as lines of text, CSV or JSON. Only a part of them is in memory at a time."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, fields
from itertools import chain, islice
from typing import IO, Final, TextIO

from pipelines.operations.failures import FailedInput, Failures
from pipelines.spec.texts import visible

_SHOWN: Final = ("reason", "subject", "address", "detail")
# The first lines set the widths of columns; longer cells below run over.
_LOOKED_AT: Final = 500
_WIDEST: Final = 48
# A cell that begins with one of these is a formula for spreadsheets.
_FORMULA: Final = ("=", "+", "-", "@")
_PAGER: Final = "less"


def as_text(found: Failures) -> Iterator[str]:
    """One line for each input, after a line of names. The last line counts them."""
    yield f"{found.dest}, {found.seal}" + (f" ({found.note})" if found.note else "")
    inputs = iter(found.inputs)
    first = [_cells(one) for one in islice(inputs, _LOOKED_AT)]
    widths = [min(_WIDEST, max(map(len, column))) for column in zip(_SHOWN, *first, strict=True)]
    count = 0
    if first:
        yield _line(_SHOWN, widths)
    for cells in chain(first, map(_cells, inputs)):
        yield _line(cells, widths)
        count += 1
    yield f"{count:,} failed inputs"


def _cells(one: FailedInput) -> tuple[str, ...]:
    return tuple(visible(getattr(one, name)) for name in _SHOWN)


def _line(cells: Iterable[str], widths: Iterable[int]) -> str:
    return "  ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip()


def as_csv(found: Failures) -> Iterator[str]:
    """Lines of CSV. The first one holds names.

    Control characters are escaped. A cell that a spreadsheet would compute gets an apostrophe in
    front; `as_json` gives texts as they are.
    """
    names = [field.name for field in fields(FailedInput)]
    yield _csv_line(names)
    for one in found.inputs:
        yield _csv_line([_harmless(getattr(one, name)) for name in names])


def _csv_line(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def _harmless(text: str) -> str:
    shown = visible(text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def as_json(found: Failures) -> Iterator[str]:
    """Lines that form one JSON object, one input on each line."""
    head = {"dest": found.dest, "seal": found.seal, "note": found.note}
    yield json.dumps(head)[:-1] + ', "failures": ['
    count, last = 0, ""
    for one in found.inputs:
        if last:
            yield last + ","
        last = json.dumps(asdict(one))
        count += 1
    if last:
        yield last
    yield f'], "count": {count}}}'


def page(lines: Iterable[str], out: TextIO) -> None:
    """Write lines; through a pager (`PAGER`, or less) if they do not fit on the terminal."""
    lines = iter(lines)
    first = list(islice(lines, shutil.get_terminal_size().lines)) if out.isatty() else []
    command = shlex.split(os.environ.get("PAGER") or _PAGER)
    is_long = out.isatty() and len(first) == shutil.get_terminal_size().lines
    if not (is_long and command and shutil.which(command[0])):
        _write(chain(first, lines), out)
        return
    options = {"LESS": os.environ.get("LESS", "FRX"), "LESSSECURE": "1"}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        encoding=out.encoding,
        errors="backslashreplace",
        env={**os.environ, **options},
    ) as pager:
        assert pager.stdin is not None  # noqa: S101
        # A reader may leave the pager before the end.
        with suppress(BrokenPipeError):
            _write(chain(first, lines), pager.stdin)
        with suppress(BrokenPipeError):
            pager.stdin.close()


def _write(lines: Iterable[str], out: IO[str]) -> None:
    for line in lines:
        out.write(f"{line}\n")
