"""A plan is read as it was frozen, or not at all: also while its run is under way."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from support.enrolling import request, run, several
from support.table import rows

from ironmask.errors import TableError
from pipelines.plan import plans


def swapped(path: Path) -> None:
    """Two people of a part change places."""
    table = pq.ParquetFile(path).read()
    subjects = table["subject_id"].to_pylist()
    first, second = subjects[0], subjects[-1]
    exchange = {first: second, second: first}
    names = pa.array([exchange.get(name, name) for name in subjects], table["subject_id"].type)
    place = table.schema.get_field_index("subject_id")
    changed = table.set_column(place, table.schema.field(place), names)
    groups = pq.ParquetFile(path).num_row_groups
    assert pc.sum(pc.not_equal(changed["subject_id"], table["subject_id"])).as_py()
    with pq.ParquetWriter(path, table.schema, write_page_checksum=True) as writer:
        for number in range(groups):
            part = changed.filter(pc.equal(changed["shard"], number))
            writer.write_table(part, row_group_size=len(part))


def test_a_part_that_is_changed_after_it_was_frozen(tmp_path, monkeypatch) -> None:
    dest = tmp_path / "dest"
    write = plans.write

    def then_changed(*arguments, **named):
        frozen = write(*arguments, **named)
        (part,) = Path(frozen.uri).glob("part-*.parquet")
        swapped(part)
        return frozen

    monkeypatch.setattr(plans, "write", then_changed)
    with pytest.raises(TableError, match=r"part-00000.parquet is not what was frozen"):
        run(request(several(tmp_path / "e.parquet", 6), dest))
    assert rows(dest, "templates") == []


def test_a_header_that_names_other_parts(tmp_path, monkeypatch) -> None:
    dest = tmp_path / "dest"
    write = plans.write

    def then_changed(*arguments, **named):
        frozen = write(*arguments, **named)
        header = Path(frozen.uri) / "plan.json"
        header.write_text(header.read_text().replace('"shards": ', '"shards": 1'))
        return frozen

    monkeypatch.setattr(plans, "write", then_changed)
    with pytest.raises(TableError, match=r"plan.json is not what was frozen"):
        run(request(several(tmp_path / "e.parquet", 6), dest))
    assert rows(dest, "templates") == []
