"""Text that a flipped bit has made no UTF-8: damage is said by whoever reads, and as damage."""

from __future__ import annotations

import pyarrow as pa
import pytest
from support.enrolling import request, run, several
from support.table import open_tables

from infra.store.delta import DeltaTableHandle
from ironmask.errors import TableError
from pipelines.table import generations


def damaged(text: str) -> bytes:
    content = bytearray(text.encode())
    content[2] |= 0x80
    return bytes(content)


@pytest.fixture
def dest(tmp_path):
    made = tmp_path / "table"
    run(request(several(tmp_path / "e.parquet", 2), made))
    return made


def flip(folder, text: str) -> None:
    """Flip a bit of a text wherever it lies in the data files of a table."""
    met = 0
    for path in folder.rglob("*.parquet"):
        content = path.read_bytes()
        if "_delta_log" not in path.parts and text.encode() in content:
            path.write_bytes(content.replace(text.encode(), damaged(text)))
            met += 1
    assert met


def test_a_generation_that_says_no_text(dest):
    key_id = generations.read(open_tables(dest))[1].key_id
    flip(dest / "generations", key_id)
    with pytest.raises(TableError, match="missing or damaged"):
        generations.read(open_tables(dest))


def test_batches_say_so_as_well(dest):
    flip(dest / "inputs", "used")
    table = open_tables(dest).table("inputs")
    assert isinstance(table, DeltaTableHandle)
    with pytest.raises(TableError, match="missing or damaged"):
        list(table.batches(["outcome"]))


def test_the_bits_of_this_test_are_no_text():
    raw = pa.array([damaged("used")], pa.binary()).cast(pa.string(), safe=False)
    with pytest.raises(pa.ArrowInvalid):
        raw.validate(full=True)
