"""Files of templates that can be checked a row group at a time: what is read, and refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from support.command import ironmask
from support.enrolling import (
    captures,
    enroll,
    request,
    run,
    several,
    unit_vectors,
    write_embeddings,
)
from support.table import data_files, keys_of, open_tables, rows, verified

from infra.keys.key_file import KeyFile
from infra.store.objects import FsspecStore
from ironmask.errors import TamperedError
from pipelines.operations import check_files, job
from pipelines.reprotection import losses
from pipelines.setup import ports
from pipelines.shard.protect import write_rows
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
    assert layout.parse_shard_file(inputs.name) is None
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


@pytest.mark.parametrize(("tail", "parts"), [(16 << 10, 2), (128 << 10, 1)])
def test_a_look_up_reads_the_footer_and_one_group(kept, content, monkeypatch, tail, parts):
    """A file that is no larger than what is read for its footer is read once."""
    monkeypatch.setattr(grouped_files, "_TAIL", tail)
    store = Counting()
    tables = sealed(kept, store)
    where = (pads.field("subject_id") == "s017") & (pads.field("generation") == 1)
    found = tables.table("templates").rows(where=where)
    assert found["subject_id"].to_pylist() == ["s017"]
    assert len(store.read_parts) == parts
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


@pytest.fixture
def misled(kept, tmp_path) -> Path:
    """A copy of the table whose column of ids says s016 instead of s017, by one changed byte."""
    dest = tmp_path / "dest"
    shutil.copytree(kept, dest)
    shutil.copy(keys_of(kept), keys_of(dest))
    (path,) = data_files(dest, "templates")
    sound = path.read_bytes()
    parquet = pq.ParquetFile(path)
    names = parquet.read(["subject_id"])["subject_id"].to_pylist()
    wanted = ["s016" if name == "s017" else name for name in names]
    column = parquet.metadata.row_group(2).column(parquet.schema_arrow.names.index("subject_id"))
    for place in range(column.total_compressed_size):
        other = bytearray(sound)
        other[column.data_page_offset + place] ^= ord("6") ^ ord("7")
        if _ids_in(bytes(other)) == wanted:
            path.write_bytes(other)
            assert grouped_files.footer_of(other) == grouped_files.footer_of(sound)
            return dest
    raise AssertionError("no byte of the page does it")


def _ids_in(content: bytes) -> list[str]:
    try:
        found = pq.read_table(pa.BufferReader(content), columns=["subject_id"])
        found.validate(full=True)
        return found["subject_id"].to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return []


def test_a_changed_id_gets_nobody_a_second_template(misled, tmp_path):
    other = captures(unit_vectors(SUBJECTS), 1, seed=9)[17:18]
    answer = enroll(write_embeddings(tmp_path / "other.parquet", ["s017"], other), misled)
    assert "already_enrolled" in answer.out, answer
    assert len(open_tables(misled).table("templates").files()) == 1


def test_a_changed_id_hides_nobody_who_would_lose_their_template(misled, tmp_path):
    whole = several(tmp_path / "e.parquet", SUBJECTS)
    found = pq.read_table(whole)
    others = [name != "s017" for name in found["subject_id"].to_pylist()]
    pq.write_table(found.filter(pa.array(others)), whole)
    answer = ironmask(
        "reprotect", misled, f"--source={whole}", f"--keys={keys_of(misled)}", "--executor=local"
    )
    assert answer.code == 1, answer
    assert "1 people of generation 1" in answer.errors[0]
    assert "'s017'" in answer.errors[0]


def test_whose_the_rows_are_is_read_from_the_footer(kept):
    store = Counting()
    templates = sealed(kept, store).table("templates")
    names = [f"s{number:03d}" for number in range(SUBJECTS)]
    columns = ["subject_id", "generation"]
    wanted = [{"subject_id": name, "generation": 1} for name in names]
    assert pa.Table.from_batches(templates.batches(columns)).to_pylist() == wanted
    assert len(store.read_parts) == 1
    known = pads.field("subject_id").isin(["s003", "s030"]) & (pads.field("generation") == 1)
    assert templates.rows(["subject_id"], known)["subject_id"].to_pylist() == ["s003", "s030"]
    assert len(templates.rows(["subject_id"], pads.field("generation") == 2)) == 0
    assert len(store.read_parts) == 2
    # Which rows are wanted is for the rows to say.
    several_of_them = pads.field("images_used") == 2
    assert templates.rows(["subject_id"], several_of_them)["subject_id"].to_pylist() == names


def test_other_columns_that_tell_which_rows_are_checked(misled):
    templates = sealed(misled, FsspecStore()).table("templates")
    with pytest.raises(TamperedError, match="is not what was written"):
        templates.rows(["subject_id"], pads.field("images_used") == 2)


def _as_templates(content: bytes, said: Any) -> bytes:
    """A file whose footer says something else of its groups: `said` of end, digest and owners."""
    sink = pa.BufferOutputStream()
    table = pq.read_table(pa.BufferReader(content))
    dumps = json.dumps
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouped_files.json, "dumps", lambda all: dumps([said(*one) for one in all]))
        write_rows(sink, (part.to_pylist() for part in table.to_batches(max_chunksize=8)))
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    "said",
    [
        lambda end, digest, owners: (end, digest),
        lambda end, digest, owners: (end, digest, owners[1:]),
        lambda end, digest, owners: (end, digest, [*owners, "x"]),
        lambda end, digest, owners: (end, digest, "".join(owners)[:8]),
        lambda end, digest, owners: (end, digest, [None, *owners[1:]]),
    ],
)
def test_a_footer_names_one_owner_a_row(content, said):
    whole = _as_templates(content, lambda *one: one)
    assert grouped_files.is_whole(whole, grouped_files.footer_of(whole).digest)
    other = _as_templates(content, said)
    with pytest.raises(ValueError, match=r"footer|unpack"):
        grouped_files.footer_of(other)
    assert not grouped_files.is_whole(other, "")


def test_ids_of_any_text_come_back_as_they_are(content):
    odd = ['a"], ["b', "c,d", "\n\x00", "\U0001f600é", "s1", "s2", "s3", "s4"]
    rows = pq.read_table(pa.BufferReader(content)).slice(0, 8).to_pylist()
    sink = pa.BufferOutputStream()
    write_rows(sink, [[{**row, "subject_id": name} for row, name in zip(rows, odd, strict=True)]])
    assert grouped_files.footer_of(sink.getvalue()).owners == [odd]


def test_a_footer_that_names_others_than_its_rows_is_found(kept, content, tmp_path):
    other = _as_templates(content, lambda end, digest, owners: (end, digest, owners[::-1]))
    (path,) = data_files(kept, "templates")
    folder = tmp_path / "templates" / "generation=1"
    folder.mkdir(parents=True)
    target = folder / named(layout.parse_shard_file(path.name), other).name
    target.write_bytes(other)
    tables = open_tables(tmp_path)
    scope = check_files.Scope(tables, "", FsspecStore(), lambda _: None, deep=False)
    seen = check_files.check_file(scope, "templates", f"generation=1/{target.name}")
    assert [text.partition(": ")[2] for text in seen.findings] == [
        "its footer names other people than its rows do"
    ]


def test_a_person_without_a_row_is_no_sound_generation(kept, monkeypatch):
    tables = sealed(kept, FsspecStore())
    keys = KeyFile.open(keys_of(kept), tables.table_id).generation(1)
    losses.open_some(tables, 1, keys)
    monkeypatch.setattr(losses, "_some_subjects", lambda *_: iter(["s001", "nobody"]))
    with pytest.raises(TamperedError, match="'nobody', and it has no such row"):
        losses.open_some(tables, 1, keys)


@pytest.mark.parametrize("place", [-1, -6, -40, -2000])
def test_a_changed_footer_is_refused(kept, changed, content, place):
    changed(len(content) + place)
    with pytest.raises(TamperedError, match="is not what was written"):
        verified(kept, "s001", captures(unit_vectors(SUBJECTS), 1)[1:2])


@pytest.mark.slow
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
    assert ironmask("erase", "--yes", dest, "--subject=s003", f"--keys={keys_of(dest)}").code == 0
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
