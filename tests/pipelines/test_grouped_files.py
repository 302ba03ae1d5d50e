"""Files of templates that can be checked a row group at a time: what is read, and refused."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pytest
from commandline import ironmask
from enrolling import (
    captures,
    data_files,
    keys_of,
    open_tables,
    request,
    rows,
    run,
    several,
    unit_vectors,
    verified,
)

from infra.keys.key_file import KeyFile
from infra.store.objects import FsspecStore
from ironmask.errors import TamperedError
from pipelines.operations import job
from pipelines.setup import ports
from pipelines.table import grouped_files, layout
from pipelines.table.data_files import is_intact, named

SUBJECTS = 40


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("grouped")
    source = several(folder / "e.parquet", SUBJECTS)
    run(request(source, folder / "dest", shard_size=2 * SUBJECTS))
    return folder / "dest"


@pytest.fixture
def content(kept) -> bytes:
    (path,) = data_files(kept, "templates")
    return path.read_bytes()


@pytest.fixture
def changed(kept):
    """Changes a byte of the one file of templates, for the length of a test."""
    (path,) = data_files(kept, "templates")
    sound = path.read_bytes()

    def change(place: int) -> None:
        other = bytearray(sound)
        other[place] ^= 1
        path.write_bytes(other)

    yield change
    path.write_bytes(sound)


class Counting(FsspecStore):
    """A store that notes what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.read_parts: list[tuple[str, int]] = []

    def part(self, uri: str, start: int, end: int) -> bytes:
        self.read_parts.append((uri.rpartition("/")[2], end - start))
        return super().part(uri, start, end)

    def read(self, uri: str, limit: int | None = None) -> bytes:
        found = super().read(uri, limit)
        if uri.endswith(".parquet"):
            self.read_parts.append((uri.rpartition("/")[2], len(found)))
        return found


def sealed(dest: Path, store: FsspecStore) -> Any:
    tables = open_tables(dest)
    return ports.sealed(tables, store, KeyFile.open(keys_of(dest), tables.table_id))


def test_the_name_tells_the_kind(kept, content):
    (path,) = data_files(kept, "templates")
    file = layout.parse_shard_file(path.name)
    assert file.groups
    assert file.name == path.name
    (inputs,) = data_files(kept, "inputs")
    assert not layout.parse_shard_file(inputs.name).groups
    assert named(file, content) == file
    assert is_intact(path.name, content)
    assert is_intact(inputs.name, inputs.read_bytes())


def test_the_footer_covers_every_group(content):
    footer = grouped_files.footer_of(content)
    assert len(footer.groups) == SUBJECTS / 8
    assert [start for start, _, _ in footer.groups[1:]] == [end for _, end, _ in footer.groups[:-1]]
    assert footer.groups[0][0] == 4
    assert footer.start + len(footer.content) == len(content)


def test_every_bit_counts(kept, content):
    (path,) = data_files(kept, "templates")
    for place in [
        *range(0, 8),
        *range(8, len(content) - 8, 997),
        *range(len(content) - 8, len(content)),
    ]:
        other = bytearray(content)
        other[place] ^= 1
        assert not is_intact(path.name, other)
    assert not is_intact(path.name, content + b"x")
    assert not is_intact(path.name, b"x" + content)
    assert not is_intact(path.name, content[:100])
    assert not is_intact(path.name, b"")


def test_a_look_up_reads_the_footer_and_one_group(kept, content):
    store = Counting()
    tables = sealed(kept, store)
    where = (pads.field("subject_id") == "s017") & (pads.field("generation") == 1)
    found = tables.table("templates").rows(where=where)
    assert found["subject_id"].to_pylist() == ["s017"]
    assert len(store.read_parts) == 2
    whole = [row for row in rows(kept, "templates") if row["subject_id"] == "s017"]
    assert found.to_pylist() == whole


def test_rows_are_those_of_the_plain_reader(kept):
    tables = sealed(kept, FsspecStore())
    for name in ("templates", "inputs", "runs", "generations", "metrics"):
        plain, checked = open_tables(kept).table(name).rows(), tables.table(name).rows()
        assert checked.schema.equals(plain.schema)
        assert sorted(map(repr, checked.to_pylist())) == sorted(map(repr, plain.to_pylist()))
    columns = ["subject_id", "generation"]
    some = pa.Table.from_batches(tables.table("templates").batches(columns))
    assert some.equals(open_tables(kept).table("templates").rows(columns))
    assert tables.table("inputs").rows([]).num_columns == 0


def test_a_changed_group_is_refused_and_the_others_answer(kept, content, changed):
    footer = grouped_files.footer_of(content)
    start, end, _ = footer.groups[2]
    changed((start + end) // 2)
    probes = captures(unit_vectors(SUBJECTS), 1)
    with pytest.raises(TamperedError, match="is not what was written"):
        verified(kept, "s017", probes[17:18])
    assert verified(kept, "s001", probes[1:2]) == [True]
    report = job.check(str(kept), str(keys_of(kept)), deep=False)
    assert any("its content is not what was written" in text for text in report.findings)


@pytest.mark.parametrize("place", [-1, -6, -40, -2000])
def test_a_changed_footer_is_refused(kept, changed, content, place):
    changed(len(content) + place)
    with pytest.raises(TamperedError, match="is not what was written"):
        verified(kept, "s001", captures(unit_vectors(SUBJECTS), 1)[1:2])


def test_files_of_before_are_hashed_whole(tmp_path, monkeypatch):
    """Named as releases did that knew no digests of groups."""
    monkeypatch.setattr(
        "pipelines.shard.protect.named",
        lambda file, content: replace(file, sha256=sha256(content).hexdigest()),
    )
    dest = tmp_path / "dest"
    run(request(several(tmp_path / "e.parquet", 4), dest))
    monkeypatch.undo()
    path, *_ = data_files(dest, "templates")
    assert not layout.parse_shard_file(path.name).groups
    probes = captures(unit_vectors(4), 1)
    assert verified(dest, "s001", probes[1:2]) == [True]
    assert job.check(str(dest), str(keys_of(dest)), deep=True).findings == []
    assert ironmask("erase", dest, "--subject=s003", f"--keys={keys_of(dest)}").code == 0
    assert verified(dest, "s001", probes[1:2]) == [True]
    content = bytearray(path.read_bytes())
    content[4 + len(content) // 8] ^= 1
    path.write_bytes(content)
    with pytest.raises(TamperedError, match="is not what was written"):
        verified(dest, "s000", probes[:1])
    content[4 + len(content) // 8] ^= 1
    path.write_bytes(content)
    assert ironmask("rekey", dest, f"--keys={keys_of(dest)}", "--executor=local").code == 0
    path, *_ = data_files(dest, "templates")
    assert layout.parse_shard_file(path.name).groups
    assert verified(dest, "s001", probes[1:2]) == [True]
