"""What a destination on a local disk holds, as its owner reads it, and what must hold of it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra.keys.key_file import KeyFile
from infra.store.delta import DeltaTables
from pipelines.ports import GenerationKeys
from pipelines.setup import ports
from pipelines.table.details import decrypted
from pipelines.verification.verifier import Verifier
from support.command import Answer, ironmask

Row = dict[str, Any]


def keys_of(dest: Path) -> Path:
    return dest.with_name(f"{dest.name}.keys.json")


def copied(made: Path, dest: Path) -> Path:
    """A copy of a destination and of the keyset files beside it."""
    shutil.copytree(made, dest)
    for path in made.parent.glob(f"{made.name}.keys*.json"):
        shutil.copy2(path, dest.with_name(path.name.replace(made.name, dest.name, 1)))
    return dest


def open_tables(dest: Path) -> DeltaTables:
    return DeltaTables(str(dest), {})


def table_id_of(dest: Path) -> str:
    return open_tables(dest).table_id


def rows(dest: Path, name: str) -> list[Row]:
    """The rows that the log lists."""
    found: list[Row] = open_tables(dest).table(name).rows().to_pylist()
    return found


def templates(dest: Path) -> dict[str, Row]:
    """The row of each subject."""
    found = rows(dest, "templates")
    by_subject = {row["subject_id"]: row for row in found}
    assert len(by_subject) == len(found), "two live issues of one person"
    return by_subject


def data_files(dest: Path, name: str) -> list[Path]:
    """Every Parquet file under a table, listed by its log or not."""
    return sorted(p for p in (dest / name).rglob("*.parquet") if "_delta_log" not in p.parts)


def listed_files(dest: Path, name: str) -> list[Path]:
    """The data files that the log lists."""
    return sorted(dest / name / path for path in open_tables(dest).table(name).files())


def outcomes(dest: Path) -> Counter[tuple[str, str]]:
    return Counter((row["outcome"], row["reason"]) for row in rows(dest, "inputs"))


def generation_keys(dest: Path, generation: int = 1) -> GenerationKeys:
    return ports.keys(keys_of(dest), table_id_of(dest), generation)


def told(dest: Path, row: Row) -> Row:
    """What a row of inputs keeps encrypted."""
    table_id = table_id_of(dest)
    return decrypted(table_id, row, KeyFile.open(keys_of(dest), table_id).table())


def verified(dest: Path, subject: str, probes: Any) -> list[bool]:
    """Whether probes, (k, n), match what is live of a person."""
    return verifier(dest).verify_embeddings(subject, probes)


def verifier(dest: Path) -> Verifier:
    """What answers from the sealed tables of a destination."""
    return Verifier(str(dest), str(keys_of(dest)))


def checked(dest: Path) -> Answer:
    """What a deep check says."""
    return ironmask("check", dest, "--deep", f"--keys={keys_of(dest)}")


def assert_sound(dest: Path, inputs: int | None = None) -> None:
    """What must hold of every destination after a run that ended well."""
    templates, settled = rows(dest, "templates"), rows(dest, "inputs")
    owners = [row["subject_id"] for row in templates]
    assert len(owners) == len(set(owners)), "two live issues of one person"
    assert len({row["template_id"] for row in templates}) == len(templates)
    used = {row["subject_id"] for row in settled if row["outcome"] == "used"}
    assert used == set(owners)
    counted = Counter((row["run_id"], row["uri"]) for row in settled)
    assert set(counted.values()) <= {1}, "an input has two rows"
    if inputs is not None:
        assert len(settled) == inputs
    for name in ("templates", "inputs"):
        assert data_files(dest, name) == listed_files(dest, name), "an orphan survives"


def rewrite(path: Path, change: Callable[[list[Row]], None]) -> None:
    """Change the rows of one data file in place, as somebody with write access could."""
    table = pq.ParquetFile(path).read()
    content = table.to_pylist()
    change(content)
    pq.write_table(pa.Table.from_pylist(content, table.schema), path)
