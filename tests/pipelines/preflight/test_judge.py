"""Helpers in the clear: refused where a stolen row gives its template away, unless by name."""

from __future__ import annotations

import numpy as np
import pytest
from support.destinations import DEST, WIDTH, Place, job, vectors
from support.memory import MemoryStore

from ironmask.attacks import Foretold
from ironmask.centring import Centring
from ironmask.errors import ParameterError, RiskError, SourceError, TableError
from ironmask.spectrum import Spectrum
from pipelines.preflight import calibrate
from pipelines.preflight.calibrate import Judged, judge, keep, kept_profile, write_forecast
from pipelines.preflight.judge import FLOOR_BITS, Preflight, check
from pipelines.preflight.profile import Photos, Profile, calibrated
from pipelines.table import layout

ENOUGH = 4 * WIDTH


def preflight(bits: float, people: int = ENOUGH, *, is_bound: bool = False) -> Preflight:
    """A forecast of so many bits, measured on so many people."""
    space = Spectrum(people, np.eye(WIDTH) * people / WIDTH)
    profile = Profile("declared:m", "/memory/e.parquet", space, people)
    return Preflight(profile, "m", 10.0, Foretold(1, 2.0**bits, 1.0, is_bound))


class TestCheck:
    def test_encrypted_helpers_need_no_forecast(self):
        check(job(), None, "m")
        check(job(), preflight(1), "m")

    def test_in_the_clear_they_do(self):
        with pytest.raises(RiskError, match=f"embeddings of {ENOUGH} people by m are needed"):
            check(job(sealed=False), None, "m")

    def test_of_too_few_people_it_says_nothing(self):
        with pytest.raises(RiskError, match=f"and only {ENOUGH - 1} are at hand"):
            check(job(sealed=False), preflight(999, ENOUGH - 1), "m")

    @pytest.mark.parametrize("bits", [0, FLOOR_BITS - 0.1])
    def test_too_few_bits_are_refused(self, bits):
        with pytest.raises(RiskError, match="64 bits are the least"):
            check(job(sealed=False), preflight(bits), "m")

    def test_enough_bits_are_taken(self):
        check(job(sealed=False), preflight(FLOOR_BITS), "m")

    def test_the_risk_can_be_taken_by_name(self):
        asked = job(sealed=False, accepted_risk="stolen-rows")
        check(asked, None, "m")
        check(asked, preflight(0), "m")


def test_a_bound_is_said_to_be_one():
    assert "after about 1,024 guesses (10.0 bits)" in preflight(10).describe()
    assert "after at least 1,024 guesses" in preflight(10, is_bound=True).describe()


class TestProfiles:
    """The profile of a table decides where noise fills, for all its life."""

    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()

    def measured(self, seed: int) -> bytes:
        faces = vectors(ENOUGH + 40, seed)
        photos = Photos(faces, np.array([f"s{n}" for n in range(len(faces))]))
        return calibrated("declared:m", "/e", photos, Centring.MEAN).profile.to_bytes()

    @pytest.fixture(scope="class")
    def whole(self) -> bytes:
        return self.measured(0)

    def test_the_first_of_a_model_stays(self, store, whole):
        for profile in (whole, whole, self.measured(1)):
            keep(Judged(None, profile), job(), store)
        assert len(list(store.entries(DEST))) == 1
        assert kept_profile(job(), "m", store) == whole

    def test_of_nothing_nothing_is_kept(self, store):
        keep(Judged(), job(), store)
        assert list(store.entries(DEST)) == []

    def test_of_another_model_is_another(self, store, whole):
        keep(Judged(None, whole), job(), store)
        assert kept_profile(job(model="declared:other"), "other", store) is None

    def test_one_that_was_changed_is_refused(self, store, whole):
        keep(Judged(None, whole), job(), store)
        (entry,) = store.entries(DEST)
        store.write(entry.uri, whole[:-1] + b"\0")
        with pytest.raises(TableError, match="is not the profile that it was"):
            kept_profile(job(), "m", store)

    def test_other_files_beside_it_are_none(self, store, whole):
        store.write(layout.join(DEST, layout.PRIVATE, "seal.json"), b"{}")
        assert kept_profile(job(), "m", store) is None

    def test_what_is_filled_goes_on_by_it(self, store, whole):
        keep(Judged(None, whole), job(), store)
        asked, judged = judge(job(filling=0.5), None, None, store)
        assert judged.profile == whole
        assert layout.profile_file(DEST, asked.profile) == next(store.entries(DEST)).uri

    def test_filling_without_one_is_refused(self, store):
        with pytest.raises(ParameterError, match="filling needs to know which directions"):
            judge(job(filling=0.5, source="/photos", kind="folder"), None, None, store)


class TestCalibrated:
    def test_of_hardly_anybody_nothing_is_said(self):
        photos = Photos(vectors(10), np.array([f"s{n}" for n in range(10)]))
        with pytest.raises(SourceError, match="embeddings of 10 people: too few"):
            calibrated("m", "/e", photos, Centring.MEAN)

    def test_embeddings_that_are_none_are_left_out(self):
        faces = vectors(ENOUGH + 16)
        faces[0], faces[1] = np.nan, 0
        photos = Photos(faces, np.array([f"s{n}" for n in range(len(faces))]))
        found = calibrated("m", "/e", photos, Centring.MEAN)
        assert found.profile.space.count == ENOUGH - 2
        assert found.others.shape == (16, WIDTH)
        assert np.allclose(np.linalg.norm(found.others, axis=1), 1)

    def test_several_photos_are_one_template(self):
        faces = np.repeat(vectors(ENOUGH + 16), 2, axis=0)
        people = np.repeat([f"s{n:04d}" for n in range(ENOUGH + 16)], 2)
        found = calibrated("m", "/e", Photos(faces, people), Centring.MEAN)
        assert (found.profile.space.count, found.profile.photos) == (ENOUGH, 2 * ENOUGH)
        assert found.profile.is_enough


def test_a_forecast_is_written_once_a_model():
    dest = Place().held()
    for bits in (70, 80):
        write_forecast(Judged(preflight(bits)), dest)
    found = dest.tables.table("metrics").rows(["name", "value"]).to_pylist()
    values = {one["name"]: one["value"] for one in found}
    assert len(found) == 3
    assert values["preflight_row_bits"] == 70
    write_forecast(Judged(), dest)
    assert len(dest.tables.table("metrics").rows()) == 3


def test_a_calibration_of_another_width_is_refused(monkeypatch):
    wide = Photos(np.ones((40, WIDTH + 1), np.float32), np.array([f"s{n}" for n in range(40)]))
    monkeypatch.setattr(calibrate, "sample", lambda address, store: wide)
    with pytest.raises(ParameterError, match=f"width {WIDTH + 1}, the model's are {WIDTH}"):
        judge(job(), "/calibration.parquet", None, MemoryStore())
