"""Before an enrolment: what a stolen row would be worth is measured, said, kept, and can refuse."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.command import ironmask
from support.enrolling import WIDTH, enroll, unit_vectors, write_embeddings
from support.table import keys_of, rows

from infra.keys.key_file import KeyFile
from infra.settings import StorageSettings
from infra.store.delta import DeltaTables
from ironmask.attacks import codeword_cosines
from ironmask.centring import Centring
from ironmask.errors import TableError
from ironmask.helper import decode
from ironmask.spectrum import Spectrum
from pipelines.preflight.profile import Photos, Profile, calibrated, sample
from pipelines.setup import ports
from pipelines.table.read import find_row
from pipelines.table.row_cipher import open_row
from pipelines.verification.probe import verify_embeddings

RANK = 24
PLAINTEXT = "--plaintext-helpers"
SQUARE = f"--code-width={WIDTH}"


def of_rank(count, rank, seed):
    """Embeddings of a model that uses so many of 64 directions."""
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((WIDTH, WIDTH)))[0]
    vectors = np.random.default_rng(seed).standard_normal((count, rank)) @ basis[:rank]
    return vectors + 0.01 * unit_vectors(count, seed)


@pytest.fixture
def source(tmp_path):
    """Three people, one embedding each."""
    return write_embeddings(tmp_path / "e.parquet", ["a", "b", "c"], of_rank(3, RANK, 1))


@pytest.fixture
def narrow(tmp_path):
    names = [f"x{i}" for i in range(400)]
    return write_embeddings(tmp_path / "narrow.parquet", names, of_rank(400, RANK, 2))


@pytest.fixture
def full(tmp_path):
    names = [f"x{i}" for i in range(6000)]
    return write_embeddings(tmp_path / "full.parquet", names, unit_vectors(6000, 3))


def test_a_model_that_fills_little_is_refused_in_the_clear(source, narrow, tmp_path):
    answer = enroll(
        source, tmp_path / "d", SQUARE, PLAINTEXT, "--calibration", narrow, "--model=tiny"
    )
    (line,) = answer.errors
    assert answer.code == 1
    assert "refused: embeddings of tiny use about 2" in line
    assert "of 64 directions (measured on 384 people)" in line
    assert "guesses (" in line
    assert "64 bits are the least" in line
    assert "--accept-risk stolen-rows" in line
    assert not (tmp_path / "d").exists()


def test_where_nothing_is_known_it_is_refused_too(source, tmp_path):
    answer = enroll(source, tmp_path / "d", SQUARE, PLAINTEXT)
    assert answer.code == 1
    assert (
        "embeddings of 256 people by unknown are needed, and none are at hand" in answer.errors[0]
    )
    assert "--calibration" in answer.errors[0]


def test_the_risk_can_be_taken_by_name(source, narrow, tmp_path):
    dest = tmp_path / "d"
    some = (SQUARE, PLAINTEXT, "--calibration", narrow)
    answer = enroll(source, dest, *some, "--accept-risk=stolen-rows")
    assert answer.code == 0, answer.err
    (run, *_) = rows(dest, "runs")
    assert json.loads(run["config"])["job"]["accepted_risk"] == "stolen-rows"
    wrong = enroll(source, tmp_path / "e", *some, "--accept-risk=yes")
    assert (wrong.code, "what can be accepted is stolen-rows" in wrong.errors[0]) == (2, True)


def test_with_encryption_it_is_said_and_kept(source, narrow, tmp_path):
    dest = tmp_path / "d"
    for _ in range(2):
        answer = enroll(source, dest, "--calibration", narrow)
        assert answer.code == 0, answer.err
        assert "NOTE: embeddings of unknown use about 2" in answer.err
        assert "its keys are what protects this table" in answer.err
    kept = {row["name"]: row for row in rows(dest, "metrics") if "preflight" in row["name"]}
    assert set(kept) == {
        "preflight_row_bits", "preflight_bits_left", "preflight_effective_rank"
    }  # fmt: skip
    assert 20 < kept["preflight_effective_rank"]["value"] < 25
    assert kept["preflight_row_bits"]["value"] < 20
    assert kept["preflight_bits_left"]["value"] == 0
    assert len([row for row in rows(dest, "metrics") if "preflight" in row["name"]]) == 3
    stored = profile_of(dest).read_bytes()
    assert Profile.from_bytes(stored, "here").model == "declared:unknown"
    assert ironmask("check", dest, "--keys", keys_of(dest), "--deep").code == 0


@pytest.mark.slow
def test_of_a_model_that_fills_its_space_only_a_bound_is_known(source, full, tmp_path):
    settings = (SQUARE, "--alpha=20", "--tolerance=4", "--calibration", full)
    answer = enroll(source, tmp_path / "d", *settings)
    assert answer.code == 0, answer.err
    assert "about 64 of 64 directions" in answer.err
    assert "after at least" in answer.err


def test_a_wide_code_gives_its_rows_away_whatever_the_model(source, full, tmp_path):
    settings = ("--code-width=192", "--alpha=8", "--tolerance=0", "--calibration", full)
    answer = enroll(source, tmp_path / "d", *settings)
    assert answer.code == 0, answer.err
    assert "by the width of its code alone. So its keys are what protects" in answer.err


def test_stored_embeddings_calibrate_themselves(narrow, tmp_path):
    answer = enroll(narrow, tmp_path / "d", SQUARE, PLAINTEXT)
    assert answer.code == 1
    assert "of 64 directions (measured on 384 people)" in answer.errors[0]


def test_embeddings_of_another_width_are_refused(source, tmp_path):
    names = [f"o{i}" for i in range(40)]
    other = write_embeddings(tmp_path / "o.parquet", names, unit_vectors(40, 5, 72))
    answer = enroll(source, tmp_path / "d", "--calibration", other)
    assert answer.code == 2
    assert "width 72, the model's are 64" in answer.errors[0]
    none = enroll(source, tmp_path / "d", "--calibration", source)
    assert (none.code, "too few to calibrate by" in none.errors[0]) == (1, True)


def test_a_sample_is_as_large_as_can_be_however_a_file_is_cut(tmp_path):
    """Of many small row groups, and of one that is larger than the sample."""
    column = pa.array(list(np.ones((50_000, 8), dtype=np.float32)))
    store = ports.open_store(StorageSettings())
    for group in (1_000, 50_000):
        path = tmp_path / f"{group}.parquet"
        pq.write_table(pa.table({"embedding": column}), path, row_group_size=group)
        assert len(sample(str(path), store).vectors) == 20_000


def of_people(path, photos, noise, seed):
    """Photos of 300 people of a model that uses some directions more than others."""
    rng = np.random.default_rng(seed)
    scale = np.linspace(3, 0.3, WIDTH)
    own = np.repeat(rng.standard_normal((300, WIDTH)) * scale, photos, axis=0)
    vectors = own + noise * rng.standard_normal(own.shape)
    names = [f"p{i}" for i in range(300) for _ in range(photos)]
    return write_embeddings(path, names, vectors), names, vectors


def test_people_are_counted_and_their_templates_measured(tmp_path):
    """One person with a thousand photos is one person, and a mean is judged as a mean."""
    path, names, vectors = of_people(tmp_path / "p.parquet", 4, 1.5, 1)
    store = ports.open_store(StorageSettings())
    many = calibrated("m", "s", sample(str(path), store), Centring.MEAN)
    assert (many.profile.space.count, many.profile.photos) == (284, 1136)
    assert many.profile.of == "284 people, 1,136 photos"
    crowd = np.repeat(vectors[:1], 1000, axis=0)
    other = write_embeddings(
        tmp_path / "q.parquet", names + ["p0"] * 1000, np.concatenate([vectors, crowd])
    )
    again = calibrated("m", "s", sample(str(other), store), Centring.MEAN)
    assert again.profile.space.known_bits() == pytest.approx(
        many.profile.space.known_bits(), abs=0.5
    )
    single = Photos(vectors.astype(np.float32), np.arange(len(vectors)).astype(str))
    photos = calibrated("m", "s", single, Centring.MEAN)
    # Means lie nearer to the directions that people differ in.
    assert many.profile.space.known_bits() > photos.profile.space.known_bits() + 1


def test_a_large_group_of_rows_gives_whole_people(tmp_path):
    names = np.repeat([f"p{i}" for i in range(10_000)], 4).tolist()
    column = pa.array(list(np.ones((40_000, 8), dtype=np.float32)))
    path = tmp_path / "g.parquet"
    pq.write_table(
        pa.table({"subject_id": names, "embedding": column}), path, row_group_size=40_000
    )
    found = sample(str(path), ports.open_store(StorageSettings()))
    assert set(np.unique(found.people, return_counts=True)[1]) == {4}
    assert len(found.vectors) == 20_000


def test_a_profile_of_before_stays_what_it_was(tmp_path):
    """Two columns fewer; its digest names it in the runs of its table."""
    space = Spectrum.of(of_rank(300, RANK, 2), WIDTH)
    new = Profile("m", "s", space, 900)
    told = pq.read_table(io.BytesIO(new.to_bytes()))
    sink = io.BytesIO()
    pq.write_table(told.drop_columns(["version", "photos"]), sink)
    old = Profile.from_bytes(sink.getvalue(), "here")
    assert (old.version, old.photos, old.is_enough) == (1, 300, True)
    np.testing.assert_array_equal(old.space.moments, space.moments)
    assert Profile.from_bytes(new.to_bytes(), "here").photos == 900
    later = replace(new, version=3).to_bytes()
    with pytest.raises(TableError, match="version 3: upgrade"):
        Profile.from_bytes(later, "here")


def profile_of(dest):
    (found,) = (dest / "_ironmask").glob("profile-*.parquet")
    return found


class TestFilling:
    def fill(self, source, dest, narrow, *more):
        return enroll(source, dest, "--fill=0.1", "--calibration", narrow, *more)

    def test_rows_are_filled_and_still_verify(self, source, narrow, tmp_path):
        dest = tmp_path / "d"
        answer = self.fill(source, dest, narrow)
        assert answer.code == 0, answer.err
        assert "filled 0.1" in answer.err
        found = rows(dest, "templates")
        assert {round(row["filling"], 6) for row in found} == {0.1}
        stored = profile_of(dest).read_bytes()
        assert Profile.from_bytes(stored, "here").space.count == 384
        tables = DeltaTables(str(dest), {})
        keys = KeyFile.open(keys_of(dest), tables.table_id).generation(1)
        vectors = of_rank(3, RANK, 1).astype(np.float32)
        row = find_row(tables, "a")
        answers = verify_embeddings(tables.table_id, row, vectors, keys)
        assert answers == [True, False, False]
        protected = open_row(tables.table_id, row, keys)
        (p,) = decode([protected.helper], protected.params, protected.encoding)
        cosine = codeword_cosines(p, vectors[:1], 12)[0]
        assert cosine == pytest.approx(np.sqrt(0.9), abs=0.02)
        assert ironmask("check", dest, "--keys", keys_of(dest), "--deep").code == 0

    def test_a_table_keeps_its_profile(self, source, narrow, full, tmp_path):
        """More people later are filled alike, whatever else could be calibrated by."""
        dest = tmp_path / "d"
        assert self.fill(source, dest, narrow).code == 0
        before = profile_of(dest).read_bytes()
        more = write_embeddings(tmp_path / "m.parquet", ["d"], of_rank(1, RANK, 9))
        answer = enroll(more, dest, "--fill=0.1", "--calibration", full)
        assert answer.code == 0, answer.err
        assert profile_of(dest).read_bytes() == before
        assert len(rows(dest, "templates")) == 4
        other = enroll(more, dest, "--fill=0.2")
        assert (other.code, "filling is 0.1 there and 0.2 here" in other.errors[0]) == (1, True)
        plain = enroll(more, dest, "--fill=0")
        assert (plain.code, "filling is 0.1 there and 0.0 here" in plain.errors[0]) == (1, True)
        last = write_embeddings(tmp_path / "l.parquet", ["e"], of_rank(1, RANK, 10))
        assert enroll(last, dest).code == 0
        assert {round(row["filling"], 6) for row in rows(dest, "templates")} == {0.1}

    def test_another_profile_is_not_taken(self, source, narrow, tmp_path):
        dest = tmp_path / "d"
        assert self.fill(source, dest, narrow).code == 0
        profile = profile_of(dest)
        found = Profile.from_bytes(profile.read_bytes(), "here")
        profile.write_bytes(Profile("another", found.source, found.space, 400).to_bytes())
        more = write_embeddings(tmp_path / "m.parquet", ["d"], of_rank(1, RANK, 9))
        answer = enroll(more, dest, "--fill=0.1")
        assert answer.code == 1
        assert "is not the profile that it was" in answer.errors[0]

    def test_it_needs_embeddings_to_know_where(self, source, tmp_path):
        answer = enroll(source, tmp_path / "d", "--fill=0.1")
        assert answer.code == 2
        assert "--calibration" in answer.errors[0]
        assert not (tmp_path / "d").exists()
