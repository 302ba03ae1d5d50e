"""Bytes of a row of scheme version 2: the helper encrypted, and its tags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infra.keys.key_file import KeyFile
from ironmask import PRESETS, Params, preset, protect
from ironmask.template import row_bytes

KIB = 1024
WIDE = Params(512, 16, 3, 1024, "quaternionic")


def stored(folder: Path, params: Params, encoding: str) -> int:
    """As many bytes as a real row takes."""
    file = KeyFile.create(folder / "keys.json", "table")
    file.add_generation(1)
    keys = file.generation(1)
    template = np.random.default_rng(1).standard_normal(params.n)
    row = protect(template, params, keys.row_key("id"), encoding=encoding)
    assert len(row.helper) + len(row.digests) == row_bytes(params, encoding)
    return len(keys.encrypt(row.helper, b"bound")) + len(row.digests)


@pytest.mark.parametrize(
    ("params", "encoding", "most"),
    [
        (WIDE, "int8", 134),
        (WIDE, "bits6", 102),
        (Params(512, 16, 4, 512, "quaternionic"), "int8", 79),
        (Params(512, 16, 0, 512, "quaternionic"), "int8", 65),
    ],
    ids=lambda value: str(getattr(value, "code_width", value)),
)
def test_a_row_of_version_2_is_small(params, encoding, most, tmp_path):
    found = stored(tmp_path, params, encoding)
    assert (most - 8) * KIB < found <= most * KIB


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "paper"])
def test_no_preset_but_the_papers_takes_more_than_140_kib(name, tmp_path):
    assert stored(tmp_path, preset(name), "int8") <= 140 * KIB


def test_a_wide_row_takes_half_of_a_square_real_one_of_version_1(tmp_path):
    (tmp_path / "before").mkdir()
    before = stored(tmp_path / "before", Params(512, 16, 4, version=1), "int8")
    assert stored(tmp_path, WIDE, "int8") < before / 2
