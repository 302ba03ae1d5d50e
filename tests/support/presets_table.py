"""The table of presets in `enrol.md`, from the presets themselves: `make docs`."""

from __future__ import annotations

import re
from typing import Final

from ironmask.helper import DEFAULT_ENCODING
from ironmask.params import DEFAULT_PRESET, PRESETS, preset
from ironmask.template import row_bytes
from support.documents import ROOT

PLACE: Final = "deploy/docs/enrol.md"
_HEAD: Final = "| preset | N | alpha | tolerance | helper | bits against guessing | KiB a row |"
_TABLE: Final = re.compile(rf"^{re.escape(_HEAD)}\n(?:\|.*\n)*", re.MULTILINE)


def table() -> str:
    """A row a preset, for embeddings of the usual width."""
    rule = "| " + " | ".join(["---"] * (_HEAD.count("|") - 1)) + " |"
    return "\n".join([_HEAD, rule, *map(_row, PRESETS), ""])


def _row(name: str) -> str:
    params = preset(name)
    usual = " (default)" if name == DEFAULT_PRESET else ""
    cells = (
        f"`{name}`{usual}",
        params.code_width,
        params.alpha,
        params.tolerance,
        params.structure,
        f"{params.bits:.1f}",
        f"{row_bytes(params, DEFAULT_ENCODING) / 1024:.0f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def written_into(text: str) -> str:
    """A document with the table in the place of the one that it has."""
    found, count = _TABLE.subn(table(), text)
    assert count == 1
    return found


if __name__ == "__main__":
    path = ROOT / PLACE
    path.write_text(written_into(path.read_text(encoding="utf-8")), encoding="utf-8")
