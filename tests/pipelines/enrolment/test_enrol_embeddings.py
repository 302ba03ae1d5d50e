"""Enrolment from stored embeddings: outcomes, counts, and the files that come out."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from support.enrolling import (
    ALPHA,
    TOLERANCE,
    WIDTH,
    captures,
    changed,
    request,
    run,
    several,
    unit_vectors,
    write_embeddings,
)
from support.table import (
    assert_sound,
    data_files,
    generation_keys,
    open_tables,
    outcomes,
    rows,
    told,
)

from ironmask import rotation
from ironmask.errors import CountError, ParameterError, SourceError, TableError
from pipelines.operations import inventory
from pipelines.run.summary import Summary
from pipelines.spec.outcomes import Outcome, Reason
from pipelines.table import read
from pipelines.table.schemas import INPUTS, TEMPLATES
from pipelines.verification import probe as verification_probe

SUBJECTS = 21


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """21 subjects, two embeddings each, in shards of about ten subjects."""
    folder = tmp_path_factory.mktemp("enrolled")
    source = several(folder / "e.parquet", SUBJECTS)
    dest = folder / "dest"
    return dest, run(request(source, dest, shard_size=20))


class TestRows:
    def test_summary_and_table_agree(self, enrolled):
        dest, summary = enrolled
        assert (summary.inputs, summary.used) == (2 * SUBJECTS, 2 * SUBJECTS)
        assert (summary.failed, summary.duplicate, summary.skipped) == (0, 0, 0)
        assert (summary.subjects_enrolled, summary.subjects_not_enrolled) == (SUBJECTS, 0)
        assert outcomes(dest) == {("used", ""): 2 * SUBJECTS}
        assert_sound(dest, 2 * SUBJECTS)
        written = [
            path.stat().st_size for n in ("templates", "inputs") for path in data_files(dest, n)
        ]
        assert summary.bytes_written == sum(written)

    def test_a_template_tells_what_made_it(self, enrolled):
        dest, summary = enrolled
        for row in rows(dest, "templates"):
            assert row["n"] == WIDTH
            assert (row["alpha"], row["tolerance"]) == (ALPHA, TOLERANCE)
            assert (row["generation"], row["run_id"]) == (1, summary.run_id)
            assert row["sealed"] is True
            assert row["key_id"] == generation_keys(dest).key_id
            assert row["images_used"] == len(row["source_uris"]) == 2
            number = int(row["subject_id"][1:])
            assert sorted(uri.rpartition("=")[2] for uri in row["source_uris"]) == sorted(
                [str(2 * number), str(2 * number + 1)]
            )

    def test_every_template_verifies_and_none_for_another(self, enrolled):
        dest, _ = enrolled
        vectors, keys = unit_vectors(SUBJECTS), generation_keys(dest)
        table_id = open_tables(dest).table_id
        for row in rows(dest, "templates"):
            number = int(row["subject_id"][1:])
            others = (number + np.arange(1, 6)) % SUBJECTS
            probes = np.concatenate(
                [captures(vectors, 2)[2 * number :][:2].mean(0)[None], vectors[others]]
            )
            accepted = verification_probe.verify_embeddings(table_id, row, probes, keys)
            assert accepted == [True, *[False] * 5]

    def test_runs_record_start_and_end(self, enrolled):
        dest, summary = enrolled
        assert [row["state"] for row in sorted(rows(dest, "runs"), key=lambda r: r["at"])] == [
            "running",
            "complete",
        ]
        found = inventory.inventory(open_tables(dest))
        assert found.runs[0]["counts"]["used"] == summary.used
        assert [g.templates for g in found.generations] == [SUBJECTS]
        assert found.outcomes == {"used": 2 * SUBJECTS}

    def test_metrics_hold_both_failure_rates(self, enrolled):
        dest, _ = enrolled
        found = {
            row["name"]: (row["numerator"], row["denominator"]) for row in rows(dest, "metrics")
        }
        assert found == {
            "failure_to_acquire": (0, 2 * SUBJECTS),
            "failure_to_enrol": (0, SUBJECTS),
        }


class TestFiles:
    @pytest.fixture(scope="class")
    def parquets(self, enrolled) -> list[pq.ParquetFile]:
        dest, _ = enrolled
        files = data_files(dest, "templates")
        assert len(files) == 3
        return [pq.ParquetFile(path) for path in files]

    def test_rows_are_sorted_by_subject(self, parquets):
        for parquet in parquets:
            subjects = parquet.read(columns=["subject_id"])["subject_id"].to_pylist()
            assert subjects == sorted(subjects)
            assert parquet.metadata.row_group(0).sorting_columns[0].column_index == (
                parquet.schema_arrow.get_field_index("subject_id")
            )

    def test_row_groups_are_small(self, parquets):
        sizes = [
            [parquet.metadata.row_group(n).num_rows for n in range(parquet.num_row_groups)]
            for parquet in parquets
        ]
        assert sorted(sizes) == [[1], [8, 2], [8, 2]]

    def test_noise_is_stored_as_it_is(self, parquets):
        for column in columns(parquets, "helper") + columns(parquets, "digests"):
            assert column.physical_type == "BYTE_ARRAY"
            assert column.compression == "UNCOMPRESSED"
            assert not any("DICTIONARY" in encoding for encoding in column.encodings)
        for parquet in parquets:
            assert parquet.schema_arrow.field("helper").type == pa.binary()
            assert parquet.schema_arrow.field("digests").type == pa.binary()

    def test_statistics_tell_ids_only(self, parquets):
        with_statistics = {
            name
            for name in parquets[0].schema_arrow.names
            for column in columns(parquets, name)
            if column.is_stats_set
        }
        assert with_statistics == {"template_id", "subject_id"}

    def test_the_log_tells_the_bounds_of_the_ids(self, enrolled):
        dest, _ = enrolled
        actions = DeltaTable(str(dest / "templates")).get_add_actions(flatten=True)
        for place, path in enumerate(actions["path"].to_pylist()):
            subjects = pq.ParquetFile(dest / "templates" / path).read(["subject_id"])
            found = subjects["subject_id"].to_pylist()
            assert actions["min.subject_id"][place].as_py() == found[0]
            assert actions["max.subject_id"][place].as_py() == found[-1]
            assert actions["num_records"][place].as_py() == len(found)

    def test_schemas(self, enrolled):
        dest, _ = enrolled
        for name, schema in (("templates", TEMPLATES), ("inputs", INPUTS)):
            logged = pa.schema(DeltaTable(str(dest / name)).schema().to_arrow())
            assert logged.names == schema.names

    def test_duckdb_reads_the_same(self, enrolled):
        dest, _ = enrolled
        db = duckdb.connect()
        found = db.sql(
            f"select generation, count(*), count(distinct subject_id), min(octet_length(helper)), "
            f"any_value(typeof(helper)) from read_parquet('{dest}/templates/**/*.parquet', "
            "hive_partitioning = true) group by generation"
        ).fetchall()
        ((generation, count, subjects, shortest, kind),) = found
        listed = open_tables(dest).table("templates").rows()
        assert (int(generation), count, subjects) == (1, len(listed), SUBJECTS)
        assert kind == "BLOB"
        # Of 2 WIDTH / 4 rows of quaternions, encrypted.
        assert shortest > WIDTH * WIDTH // 2
        settled = db.sql(
            f"select outcome, reason, count(*) from read_parquet('{dest}/inputs/*.parquet') "
            "group by all"
        ).fetchall()
        assert {(outcome, reason): n for outcome, reason, n in settled} == outcomes(dest)
        one = db.sql(
            f"select subject_id from read_parquet('{dest}/templates/**/*.parquet') "
            "where subject_id = 's007'"
        )
        assert one.fetchall() == [("s007",)]


def columns(parquets: list[pq.ParquetFile], name: str) -> list[Any]:
    found = []
    for parquet in parquets:
        for number in range(parquet.num_row_groups):
            group = parquet.metadata.row_group(number)
            chunks = [group.column(place) for place in range(group.num_columns)]
            found += [chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] == name]
    assert found
    return found


class TestReasons:
    """Every kind of bad embedding beside good ones, in one enrolment."""

    @pytest.fixture(scope="class")
    def settled(self, tmp_path_factory: pytest.TempPathFactory):
        folder = tmp_path_factory.mktemp("reasons")
        v = unit_vectors(12)
        zero, nan, infinite = np.zeros(WIDTH), np.full(WIDTH, np.nan), v[0] * np.inf
        listed: list[tuple[str | None, Any]] = [
            ("good", v[1]),
            ("half", v[2]),
            ("half", nan),
            ("nan", nan),
            ("infinite", infinite),
            ("zero", zero),
            ("narrow", v[3][:63]),
            ("wide", np.append(v[3], 1.0)),
            ("empty", []),
            ("null", None),
            ("opposed", v[4]),
            ("opposed", -v[4]),
            ("twice", v[5]),
            ("twice", v[5]),
            ("copycat", v[1]),
            ("huge", v[6] * np.float32(1e30)),
            ("minute", v[7] * np.float32(1e-30)),
            (None, v[8]),
            ("", v[9]),
            ("007", v[10]),
            ("odd =%#\n\u674e", v[11]),
        ]
        source = write_embeddings(
            folder / "e.parquet", [name for name, _ in listed], [vector for _, vector in listed]
        )
        dest = folder / "dest"
        summary = run(request(source, dest, shard_size=3))
        return dest, summary, len(listed)

    def test_each_input_has_one_reasoned_row(self, settled):
        dest, _, count = settled
        found: dict[str, list[tuple[str, str]]] = {}
        for row in rows(dest, "inputs"):
            found.setdefault(row["subject_id"], []).append((row["outcome"], row["reason"]))
        used = ("used", "")
        assert {subject: sorted(what) for subject, what in found.items()} == {
            "good": [used],
            "half": [("failed", "not_finite"), used],
            "nan": [("failed", "not_finite")],
            "infinite": [("failed", "not_finite")],
            "zero": [("failed", "zero_norm")],
            "narrow": [("failed", "wrong_width")],
            "wide": [("failed", "wrong_width")],
            "empty": [("failed", "wrong_width")],
            "null": [("failed", "wrong_width")],
            "opposed": [("failed", "faces_disagree")] * 2,
            "twice": [("duplicate", "duplicate_content"), used],
            "copycat": [("duplicate", "duplicate_other_subject")],
            "huge": [used],
            "minute": [used],
            "": [("failed", "no_subject")] * 2,
            "007": [used],
            "odd =%#\n\u674e": [used],
        }
        assert_sound(dest, count)

    def test_the_counts_add_up(self, settled):
        dest, summary, count = settled
        assert summary.inputs == count
        assert summary.used + summary.failed + summary.duplicate + summary.skipped == count
        assert (summary.subjects_enrolled, summary.subjects_not_enrolled) == (7, 9)
        by_outcome = Counter(row["outcome"] for row in rows(dest, "inputs"))
        assert Counter({str(name): getattr(summary, name) for name in Outcome}) == by_outcome
        assert sum(summary.reasons.values()) == count - summary.used

    def test_reasons_come_from_the_closed_list(self, settled):
        dest, _, _ = settled
        for row in rows(dest, "inputs"):
            assert row["reason"] in list(Reason)
            assert (row["reason"] == "") == (row["outcome"] == "used")
            assert row["reason"] != "wrong_width" or str(WIDTH) in told(dest, row)["detail"]

    def test_a_template_is_made_of_its_usable_inputs(self, settled):
        dest, _, _ = settled
        used = {row["subject_id"]: row["images_used"] for row in rows(dest, "templates")}
        assert used["half"] == used["twice"] == 1

    def test_odd_ids_are_found(self, settled):
        dest, _, _ = settled
        for subject in ("007", "odd =%#\n\u674e"):
            assert read.find_row(open_tables(dest), subject)["subject_id"] == subject

    def test_no_embedding_in_the_clear(self, settled):
        """Nothing under the destination holds the bytes of an embedding."""
        dest, _, _ = settled
        wanted = unit_vectors(12)[1].tobytes()[:32]
        files = [path for path in dest.rglob("*") if path.is_file()]
        assert files
        assert not any(wanted in path.read_bytes() for path in files)


@pytest.mark.parametrize("encoding", ["float32", "float16", "bits6"])
@pytest.mark.parametrize("centring", ["mean", "regression"])
def test_encodings_and_centrings(tmp_path, encoding, centring):
    dest = tmp_path / "dest"
    source = several(tmp_path / "e.parquet", 3, each=3)
    summary = run(request(source, dest, encoding=encoding, centring=centring))
    assert summary.subjects_enrolled == 3
    row = read.find_row(open_tables(dest), "s001")
    assert (row["centring"], row["encoding"].startswith(encoding)) == (centring, True)
    probe = unit_vectors(3)[1][None]
    table_id = open_tables(dest).table_id
    verification_probe.verify_embeddings(table_id, row, probe, generation_keys(dest))


def test_rows_that_do_not_verify_fail_each_subject_by_name(tmp_path, monkeypatch):
    source = several(tmp_path / "e.parquet", 6)
    dest = tmp_path / "dest"
    monkeypatch.setattr(rotation.Sampler, "carrying", lambda self, rng, *_: self.haar(rng))
    summary = run(request(source, dest))
    assert summary.reasons == {"protect_failed": 12}
    assert summary.subjects_enrolled == 0
    assert rows(dest, "templates") == []
    assert_sound(dest, 12)


def test_a_lost_inputs_row_fails_the_run(tmp_path):
    """A run that does not add up is not complete."""
    source = several(tmp_path / "e.parquet", 6)
    dest = tmp_path / "dest"
    with pytest.raises(CountError, match=r"planned 12 inputs and has outcomes for 4"):
        run(request(source, dest), executor=changed(lambda results: islice(results, 1)))
    assert [row["state"] for row in rows(dest, "runs")] == ["running"]


def test_a_row_that_somebody_else_deletes_stops_the_run(tmp_path):
    source = several(tmp_path / "e.parquet", 6)
    dest = tmp_path / "dest"

    class Forgetful:
        def __init__(self, inner):
            self._inner, self.standing = inner, inner.standing

        def run(self, job, plan, shards):
            yield from self._inner.run(job, plan, shards)
            # Earlier waves are visible by now; the last one is committed afterwards.
            if (table := DeltaTable(str(dest / "inputs"))).file_uris():
                table.delete()

    from pipelines.run import steps

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "WAVE_SHARDS", 1)
        with pytest.raises(TableError, match="is not what the run that holds the seal"):
            run(request(source, dest), executor=Forgetful)
    assert [row["state"] for row in rows(dest, "runs")] == ["running"]


def test_nothing_to_do_is_no_failure(tmp_path):
    source = several(tmp_path / "e.parquet", 2)
    dest = tmp_path / "dest"
    run(request(source, dest))
    again = run(request(source, dest))
    assert (again.skipped, again.used, again.reasons) == (4, 0, {"already_enrolled": 4})


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 129},
        {"alpha": 0},
        {"tolerance": 12},
        {"encoding": "int7"},
        {"centring": "median"},
        {"preset": "safest"},
        {"kind": "video"},
        {"executor": "slurm"},
    ],
)
def test_what_cannot_be_done_is_refused_by_name(tmp_path, changes):
    source = several(tmp_path / "e.parquet", 2)
    with pytest.raises(ParameterError, match=str(next(iter(changes.values())))):
        run(request(source, tmp_path / "dest", **changes))


def test_a_source_that_is_absent(tmp_path):
    with pytest.raises(SourceError, match=r"nowhere\.parquet does not exist"):
        run(request(tmp_path / "nowhere.parquet", tmp_path / "dest"))
    assert not (tmp_path / "dest").exists()
