"""The command line enrols a real dataset; readers, owners and thieves then meet its table."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from support.command import Answer, command, ironmask
from support.enrolling import write_manifest
from support.faces import photographs
from support.table import (
    Row,
    generation_keys,
    keys_of,
    listed_files,
    rewrite,
    rows,
    table_id_of,
    templates,
)

from infra.keys.key_file import KeyFile
from infra.models.packs import find_pack
from ironmask.errors import TamperedError
from ironmask.helper import encode, nbytes
from ironmask.params import Params
from pipelines.spec.outcomes import ACQUISITION
from pipelines.table.row_cipher import open_row

pytestmark = pytest.mark.slow

SUBJECTS, IMAGES = 423, 3241
# What Tink adds to a plaintext: its prefix, the nonce and the tag.
PREFIX, NONCE, TAG = 5, 12, 16


@pytest.fixture(scope="module")
def lfw(faces, model, tmp_path_factory) -> tuple[Path, Answer]:
    """Everybody enrolled on Ray, as a user would."""
    folder = tmp_path_factory.mktemp("lfw")
    dest = folder / "out"
    more = ("--model", model, "--keys", keys_of(dest), "--json")
    return dest, command(folder, "enroll", faces, dest, *more)


@pytest.fixture(scope="module")
def again(lfw, faces, model) -> tuple[int, Answer]:
    """The same command once more, and how many files the templates lay in before it."""
    dest, _ = lfw
    before = len(listed_files(dest, "templates"))
    more = ("--model", model, "--keys", keys_of(dest), "--json", "--executor=local")
    return before, ironmask("enroll", faces, dest, *more, "--max-failures=10")


@pytest.fixture
def settled(lfw) -> list[Row]:
    """The outcomes of the first run."""
    dest, answer = lfw
    return [row for row in rows(dest, "inputs") if row["run_id"] == answer.json()["run_id"]]


class TestEverybody:
    def test_every_subject_has_one_template(self, lfw, faces):
        dest, _ = lfw
        owners = [row["subject_id"] for row in rows(dest, "templates")]
        assert sorted(owners) == sorted(folder.name for folder in faces.iterdir())
        assert len(owners) == SUBJECTS

    def test_every_image_has_one_outcome(self, settled, faces):
        listed = [str(path) for images in photographs(faces).values() for path in images]
        assert len(listed) == IMAGES
        assert sorted(row["uri"] for row in settled) == sorted(listed)
        assert all(Path(row["uri"]).parent.name == row["subject_id"] for row in settled)

    def test_counts_agree_with_the_table(self, lfw, settled):
        summary = lfw[1].json()
        outcomes = Counter(row["outcome"] for row in settled)
        assert set(outcomes) == {"used", "failed"}
        assert {name: summary[name] for name in outcomes} == dict(outcomes)
        assert summary["inputs"] == IMAGES
        assert summary["reasons"] == Counter(row["reason"] for row in settled if row["reason"])
        used = Counter(row["subject_id"] for row in settled if row["outcome"] == "used")
        found = templates(lfw[0])
        assert {subject: row["images_used"] for subject, row in found.items()} == used

    def test_failed_inputs_decide_the_exit_code(self, lfw, settled):
        failed = sum(row["outcome"] == "failed" for row in settled)
        assert failed > 0
        assert lfw[1].code == 3
        assert f"{failed:,} inputs failed" in lfw[1].err

    def test_a_second_run_finds_nothing_to_do(self, lfw, again):
        dest, _ = lfw
        files, answer = again
        summary = answer.json()
        assert answer.code == 0
        assert (summary["used"], summary["failed"], summary["subjects_enrolled"]) == (0, 0, 0)
        assert summary["skipped"] == summary["reasons"]["already_enrolled"] == IMAGES
        assert len(rows(dest, "templates")) == SUBJECTS
        assert len(listed_files(dest, "templates")) == files

    @pytest.mark.parametrize("name", ["templates", "inputs"])
    def test_duckdb_reads_the_tables(self, lfw, name):
        dest, _ = lfw
        listed = DeltaTable(str(dest / name)).file_uris()
        subjects = f"{dest}/{name}/**/*-*.parquet"
        counts = [
            duckdb.sql(
                "select run_id, count(*), count(distinct subject_id) "
                f"from read_parquet({source}, hive_partitioning = true) group by run_id"
            ).fetchall()
            for source in (repr(subjects), listed)
        ]
        assert sorted(counts[0]) == sorted(counts[1])
        size = {"templates": SUBJECTS, "inputs": IMAGES}[name]
        assert (lfw[1].json()["run_id"], size, SUBJECTS) in counts[0]

    def test_no_row_opens_without_its_key(self, lfw, tmp_path):
        dest, _ = lfw
        table_id = table_id_of(dest)
        right, stranger = generation_keys(dest), _stranger_keys(tmp_path / "k.json", table_id)
        for row in templates(dest).values():
            helper = open_row(table_id, row, right).helper
            assert len(helper) == nbytes(Params.recorded(row), row["encoding"])
            assert len(row["helper"]) == len(helper) + PREFIX + NONCE + TAG
            assert helper[:64] not in row["helper"]
            with pytest.raises(TamperedError):
                open_row(table_id, row, stranger)


def _stranger_keys(path: Path, table_id: str) -> Any:
    """Keys that say they are of this table, and are not."""
    made = KeyFile.create(path, table_id)
    made.add_generation(1)
    return made.generation(1)


@pytest.fixture(scope="module")
def small(lfw, faces, model, tmp_path_factory) -> tuple[Path, Answer]:
    """Six subjects with two images each, one of which fails."""
    folder = tmp_path_factory.mktemp("small")
    failed = next(Path(r["uri"]) for r in rows(lfw[0], "inputs") if r["reason"] in ACQUISITION)
    people = [n for n in photographs(faces) if n != failed.parent.name][:5]
    entries = [(name, path) for name in people for path in photographs(faces)[name][:2]]
    sound = next(path for path in sorted(failed.parent.iterdir()) if path != failed)
    entries += [(failed.parent.name, failed), (failed.parent.name, sound)]
    source, dest = write_manifest(folder / "m.csv", entries), folder / "dest"
    more = ("--model", model, "--keys", keys_of(dest), "--executor=local", "--max-failures=1")
    more += ("--allow-root", faces)
    return dest, ironmask("enroll", source, dest, *more, "--json")


def test_as_many_failures_as_allowed_are_a_success(small):
    _, answer = small
    assert answer.json()["failed"] == 1
    assert answer.code == 0


@pytest.fixture
def ask(small, model, tmp_path) -> Callable[..., Answer]:
    """Ask whether the first subject's third image matches, of a copy that may be changed first."""
    dest, _ = small
    copy = tmp_path / "copy"
    shutil.copytree(dest, copy)
    subject = min(templates(dest))
    probe = photographs(model.parents[1] / "faces" / "lfw_dev")[subject][2]

    def verify(
        change: Callable[[list[Row]], None] | None = None,
        keys: Path | None = None,
        subject: str = subject,
        with_model: Path = model,
        run: Callable[..., Answer] = ironmask,
    ) -> Answer:
        (path,) = listed_files(copy, "templates")
        if change:
            rewrite(path, change)
        settings = ("--model", with_model, "--keys", keys or keys_of(dest))
        return run("verify", copy, probe, "--subject", subject, *settings)

    return verify


def assert_refused(answer: Answer, *words: str) -> None:
    assert answer.code == 1
    assert "Traceback" not in answer.err + answer.out
    assert answer.out == ""
    (line,) = answer.err.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


def flip(field: str, position: int) -> Callable[[list[Row]], None]:
    """Flip one bit of the first row's binary field."""

    def change(found: list[Row]) -> None:
        data = bytearray(found[0][field])
        data[position] ^= 1
        found[0][field] = bytes(data)

    return change


def put(field: str, value: Any) -> Callable[[list[Row]], None]:
    def change(found: list[Row]) -> None:
        assert found[0][field] != value
        found[0][field] = value

    return change


def exchange(*fields: str) -> Callable[[list[Row]], None]:
    """Swap fields of the first two rows."""

    def change(found: list[Row]) -> None:
        for name in fields:
            found[0][name], found[1][name] = found[1][name], found[0][name]

    return change


NOT_WRITTEN = "is not what was written"


def assert_no_row(
    small: Any, change: Callable[[list[Row]], None], why: str = "does not authenticate"
) -> None:
    """A changed row does not open, though its file should say that it is what was written."""
    dest, _ = small
    (path,) = listed_files(dest, "templates")
    found = [{**row, "generation": 1} for row in pq.ParquetFile(path).read().to_pylist()]
    change(found)
    with pytest.raises(TamperedError, match=why):
        open_row(table_id_of(dest), found[0], generation_keys(dest))


class TestTampering:
    def test_what_is_untouched_is_answered(self, ask, small):
        assert ask().code == 0
        assert ask(subject=sorted(templates(small[0]))[1]).code == 4

    @pytest.mark.parametrize(
        "position",
        [0, 1, PREFIX, PREFIX + NONCE - 1, PREFIX + NONCE, 60_000, -TAG - 1, -TAG, -1],
    )
    def test_one_bit_of_a_helper(self, ask, small, position):
        assert_refused(ask(flip("helper", position)), NOT_WRITTEN)
        assert_no_row(small, flip("helper", position))

    @pytest.mark.parametrize("position", [0, -1])
    def test_one_bit_of_the_digests(self, small, position):
        assert_no_row(small, flip("digests", position))

    @pytest.mark.parametrize(
        "fields",
        [
            ("helper",),
            ("helper", "digests"),
            ("helper", "digests", "template_id"),
            ("subject_id",),
            ("template_id",),
        ],
        ids="+".join,
    )
    def test_what_belongs_to_another_row(self, ask, small, fields):
        assert_refused(ask(exchange(*fields)), NOT_WRITTEN)
        assert_no_row(small, exchange(*fields))

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("alpha", 12),
            ("tolerance", 5),
            ("n", 256),
            ("scheme_version", 7),
            ("code_width", 512),
            ("structure", "real"),
            ("conditioner", "of somebody"),
            ("own_secret", True),
            ("encoding", "float32.1"),
        ],
    )
    def test_another_setting(self, small, field, value):
        assert_no_row(small, put(field, value))

    def test_another_model_is_named(self, ask, model):
        other = model.with_name("edgeface_s")
        assert_refused(ask(with_model=other), "was enrolled with model")

    def test_another_model_that_is_at_hand(self, small, model):
        other = model.with_name("edgeface_s")
        assert_no_row(small, put("model", find_pack(str(other)).fingerprint))

    def test_a_sealed_row_that_says_it_is_not(self, ask, small):
        assert_refused(ask(put("sealed", False)), NOT_WRITTEN)
        assert_no_row(small, put("sealed", False), "its row was changed")

    def test_a_plain_helper_in_the_place_of_a_sealed_one(self, small):
        def change(found: list[Row]) -> None:
            params = Params(512, 16, 4)
            plain = np.linalg.qr(np.random.default_rng(0).standard_normal((512, 512)))[0]
            (helper,) = encode(plain[None].astype(np.float32), params, "int8")
            found[0] |= {"helper": helper, "sealed": False}

        assert_no_row(small, change, "its row was changed")


class TestKeys:
    def test_no_key_file(self, ask, tmp_path):
        missing = tmp_path / "none.json"
        assert_refused(ask(keys=missing), f"no keyset file at {missing}")

    def test_another_tables_key_file(self, ask, lfw):
        assert_refused(ask(keys=keys_of(lfw[0])), "holds the keys of table")

    def test_another_tables_key_file_renamed(self, ask, lfw, small, tmp_path):
        ids = [table_id_of(dest) for dest, _ in (lfw, small)]
        forged = tmp_path / "forged.json"
        forged.touch(mode=0o600)
        forged.write_text(keys_of(lfw[0]).read_text().replace(*ids))
        assert_refused(ask(keys=forged), "which the seal of its table names")

    def test_fresh_keys_under_the_tables_name(self, ask, small, tmp_path):
        fresh = tmp_path / "fresh.json"
        _stranger_keys(fresh, table_id_of(small[0]))
        assert_refused(ask(keys=fresh), "which the seal of its table names")

    def test_the_installed_command_says_the_same(self, ask, tmp_path):
        answer = ask(flip("helper", -1), run=lambda *said: command(tmp_path, *said))
        assert_refused(answer, NOT_WRITTEN)
