"""Evaluations of the templates that a table holds, by who has its keys and the embeddings again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.command import ironmask
from support.enrolling import request, run, unit_vectors, write_embeddings
from support.table import keys_of

from infra.settings import StorageSettings
from infra.store.delta import DeltaTables
from infra.store.objects import FsspecStore
from ironmask.template import verify_batch
from pipelines.evaluation import job
from pipelines.evaluation.job import CheckedEvaluation
from pipelines.evaluation.request import EvaluateRequest
from pipelines.evaluation.results import Results
from pipelines.report import page
from pipelines.report.headline import headline
from pipelines.setup import ports
from pipelines.spec.options import assembled
from pipelines.table.row_cipher import open_row

SUBJECTS, EACH, ENROLLED = 24, 5, 3
NOISE = 0.9
SEED = "6b" * 32


def gallery(folder: Path, seed: int = 0) -> Path:
    """All faces of everybody, with names; some are hard to recognise."""
    vectors = np.repeat(unit_vectors(SUBJECTS, seed), EACH, axis=0)
    vectors = vectors + NOISE * unit_vectors(len(vectors), seed + 1)
    subjects = [f"s{number:03d}" for number in range(SUBJECTS) for _ in range(EACH)]
    columns = {
        "subject_id": subjects,
        "image": [f"{name}/{place % EACH}.jpg" for place, name in enumerate(subjects)],
        "embedding": list(vectors),
    }
    path = folder / "gallery.parquet"
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def source(tmp_path) -> Path:
    """Embeddings of all faces; the table holds templates of the first rows of each person."""
    return gallery(tmp_path)


@pytest.fixture
def table(tmp_path, source) -> Path:
    rows = pq.read_table(source)
    enrolled = np.arange(len(rows)) % EACH < ENROLLED
    # The same file name and rows: what is not enrolled has no embedding there.
    (tmp_path / "stored").mkdir()
    kept = [v if e else None for v, e in zip(rows["embedding"].to_pylist(), enrolled, strict=True)]
    path = write_embeddings(
        tmp_path / "stored" / "gallery.parquet", rows["subject_id"].to_pylist(), kept
    )
    dest = tmp_path / "table"
    run(request(path, dest))
    return dest


def evaluated(source: Path, out: Path, table: Path, **changes) -> tuple[Results, CheckedEvaluation]:
    flat = {
        "source": str(source), "out": str(out), "table": str(table), "seed": SEED,
        "keys": str(keys_of(table)), "executor": "local", **changes,
    }  # fmt: skip
    asked = assembled(EvaluateRequest, flat)
    prepared = job.prepare(asked)
    with job.opened(asked, prepared) as executor:
        return job.run(prepared, executor), prepared


def verdicts(source: Path, table: Path) -> tuple[int, int]:
    """Genuine refusals and accepted impostors, by verifying every probe against every row."""
    tables = DeltaTables(str(table), {})
    keys = ports.keys(keys_of(table), tables.table_id, 1)
    rows = pq.read_table(source)
    subject = np.array(rows["subject_id"].to_pylist())
    vectors = np.array(rows["embedding"].to_pylist())
    probes = np.arange(len(rows)) % EACH >= ENROLLED
    refused = accepted = 0
    for row in tables.table("templates").rows().to_pylist():
        protected = open_row(tables.table_id, row, keys)
        answers = verify_batch(protected, vectors[probes], keys.row_key(row["template_id"]))
        own = subject[probes] == row["subject_id"]
        refused += int((~answers[own]).sum())
        accepted += int(answers[~own].sum())
    return refused, accepted


def test_the_stored_templates_are_compared(source, table, tmp_path):
    """The same verdicts as verification gives, row by row and probe by probe."""
    found, _ = evaluated(source, tmp_path / "out", table)
    (case,) = found.cases
    (row,) = case.protected
    probes = SUBJECTS * (EACH - ENROLLED)
    assert (case.templates, case.genuine) == (SUBJECTS, probes)
    assert row.fmr.trials == probes * (SUBJECTS - 1)
    assert (row.fnmr.errors, row.fmr.errors) == verdicts(source, table)
    assert found.missing == case.lost == 0
    assert f"{row.setting} with tolerance 1 (" in headline(found)
    assert ", as enrolled, accepts " in headline(found)
    assert 0 < row.fnmr.errors < probes


def test_what_enrolment_lost_is_folded_in(source, table, tmp_path):
    """Rows without an embedding failed there, for a reason that is no failure to acquire."""
    found, _ = evaluated(source, tmp_path / "out", table)
    failed = found.failures
    assert failed.reasons == {"wrong_width": SUBJECTS * (EACH - ENROLLED)}
    assert (failed.fta, failed.fte) == (0, 0)
    assert failed.subjects == SUBJECTS


def test_the_rates_go_into_the_table_once(source, table, tmp_path):
    found, prepared = evaluated(source, tmp_path / "out", table)
    for _ in range(2):
        job.write_rates(prepared, found)
    rows = DeltaTables(str(table), {}).table("metrics").rows().to_pylist()
    (row,) = found.cases[0].protected
    stored = [one for one in rows if one["label"] == f"table, mean: {row.setting} tolerance 1"]
    told = {one["name"]: (one["numerator"], one["denominator"]) for one in stored}
    assert told == {
        "FMR": (row.fmr.errors, row.fmr.trials), "FNMR": (row.fnmr.errors, row.fnmr.trials)
    }  # fmt: skip
    assert len(stored) == 2
    answer = ironmask("check", table, "--deep", "--keys", keys_of(table))
    assert answer.code == 0, answer.err


def test_names_of_images_find_what_was_enrolled(tmp_path, source):
    """Inputs were rows of a file of another name: nothing is found by row, and it says so."""
    rows, some = pq.read_table(source), [0, 1, 2, EACH]
    subjects, vectors = (rows[name].take(some).to_pylist() for name in ("subject_id", "embedding"))
    dest = tmp_path / "other"
    run(request(write_embeddings(tmp_path / "moved.parquet", subjects, vectors), dest))
    answer = ironmask("evaluate", source, tmp_path / "out", "--table", dest, "--keys",
                      keys_of(dest), "--executor", "local")  # fmt: skip
    assert (answer.code, len(answer.errors)) == (1, 1)
    assert "the faces of no template" in answer.errors[0]
    images = [
        f"x/moved.parquet#row={row}" if row < 5 else f"face {row}" for row in range(len(rows))
    ]
    named = tmp_path / "named.parquet"
    pq.write_table(
        rows.set_column(1, "image", pa.array([i.removeprefix("x/") for i in images])), named
    )
    found, _ = evaluated(named, tmp_path / "out2", dest)
    # What the second person's template was made from has another name here.
    assert (found.cases[0].templates, found.missing) == (1, 1)


def test_other_embeddings_are_not_confirmed(tmp_path, table):
    """Those of another model in the same rows give no codeword, and nothing can be said."""
    shutil.move(gallery(tmp_path, seed=9), tmp_path / "gallery.parquet")
    answer = ironmask("evaluate", tmp_path / "gallery.parquet", tmp_path / "out", "--table", table,
                      "--keys", keys_of(table), "--executor", "local")  # fmt: skip
    assert (answer.code, len(answer.errors)) == (1, 1), answer.err
    assert "gives back its codeword" in answer.errors[0]


@pytest.mark.slow
def test_some_other_embeddings_leave_their_templates_out(tmp_path, source, table):
    rows = pq.read_table(source)
    vectors = np.array(rows["embedding"].to_pylist(), dtype=np.float32)
    vectors[:ENROLLED] = -vectors[:ENROLLED] + 1
    changed = tmp_path / "changed" / "gallery.parquet"
    changed.parent.mkdir()
    pq.write_table(rows.set_column(2, "embedding", pa.array(list(vectors))), changed)
    found, _ = evaluated(changed, tmp_path / "out", table)
    (case,) = found.cases
    assert (case.templates, case.lost) == (SUBJECTS - 1, 1)
    assert case.genuine == (SUBJECTS - 1) * (EACH - ENROLLED)
    assert case.protected[0].fmr.trials == (SUBJECTS - 1) ** 2 * (EACH - ENROLLED)


def test_what_cannot_be_is_refused(source, table, tmp_path):
    other = tmp_path / "table.other.json"
    second = tmp_path / "second"
    run(request(write_embeddings(tmp_path / "e.parquet", ["a"], unit_vectors(1, 3)), second))
    shutil.copyfile(keys_of(second), other)
    cases = [
        (("--alpha", 8), 2, "leave out"),
        (("--protocol", "first:2"), 2, "leave out"),
        (("--keys", other), 1, "table.other.json"),
        (("--keys", tmp_path / "none.json"), 1, "none.json"),
    ]
    for number, (options, code, says) in enumerate(cases):
        given = (
            "evaluate",
            source,
            tmp_path / f"o{number}",
            "--executor",
            "local",
            "--table",
            table,
        )
        keys = () if "--keys" in options else ("--keys", keys_of(table))
        answer = ironmask(*given, *keys, *options)
        assert (answer.code, len(answer.errors)) == (code, 1), (options, answer.err)
        assert says in answer.errors[0]
        assert not (tmp_path / f"o{number}").exists()
    inside = ironmask("evaluate", source, table / "out", "--table", table, "--keys", keys_of(table))
    assert (inside.code, "inside the table" in inside.errors[0]) == (2, True)


def test_a_changed_row_ends_it(source, table, tmp_path):
    """Whoever changes a row is found out before a rate is stated."""
    (path,) = list(table.glob("templates/*/*.parquet"))[:1]
    rows = pq.read_table(path)
    digests = [bytes(len(value)) for value in rows["digests"].to_pylist()]
    place = rows.schema.get_field_index("digests")
    changed = rows.set_column(place, rows.schema.field(place), pa.array(digests, pa.binary()))
    pq.write_table(changed, path)
    answer = ironmask("evaluate", source, tmp_path / "out", "--table", table, "--keys",
                      keys_of(table), "--executor", "local")  # fmt: skip
    assert (answer.code, len(answer.errors)) == (1, 1)
    assert "is not what was written" in answer.errors[0]
    assert not (tmp_path / "out" / "report.html").exists()


@pytest.mark.slow
def test_a_table_that_grew_is_not_the_one_that_was_frozen(source, table, tmp_path):
    evaluated(source, tmp_path / "out", table)
    run(request(write_embeddings(tmp_path / "new.parquet", ["n"], unit_vectors(1, 5)), table))
    answer = ironmask("evaluate", source, tmp_path / "out", "--table", table, "--keys",
                      keys_of(table), "--executor", "local")  # fmt: skip
    assert answer.code == 1
    assert "issued" in answer.errors[0]


def test_nothing_secret_is_written(source, table, tmp_path):
    """Neither helpers nor keys nor codewords; the report names table and generation."""
    found, prepared = evaluated(source, tmp_path / "out", table)
    page.write(found, job.measure(prepared), FsspecStore(StorageSettings()))
    for path in (tmp_path / "out").rglob("*.parquet"):
        assert not any(pa.types.is_binary(kind) for kind in pq.read_schema(path).types)
    text = (tmp_path / "out" / "report.html").read_text()
    assert f"templates of {table}" in text
    assert "inputs/s" in text
