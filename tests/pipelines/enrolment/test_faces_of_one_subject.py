"""One subject, one face: what becomes of subjects that have several, in every job."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.command import Answer, ironmask
from support.enrolling import (
    WIDTH,
    PowerCutError,
    broken_after,
    captures,
    enroll,
    request,
    run,
    several,
    unit_vectors,
    write_embeddings,
)
from support.table import (
    assert_sound,
    checked,
    keys_of,
    open_tables,
    outcomes,
    rows,
    told,
    verified,
)

from ironmask.errors import MismatchError, ParameterError
from pipelines.enrolment.request import prepare
from pipelines.flows.enrol import EnrolRequest
from pipelines.operations.inventory import inventory
from pipelines.preflight.agreement import DEFAULT_FMR
from pipelines.run.begin import fingerprint
from pipelines.spec.options import assembled
from pipelines.spec.outcomes import FAILURES, Reason
from pipelines.spec.template_job import digest, stored
from pipelines.table import run_records

PEOPLE = unit_vectors(8)
# Whose faces a subject has; each letter is one photo of one person.
SUBJECTS = {
    "one": "a",
    "two": "bb",
    "three": "ccc",
    "other": "dde",
    "many": "ddddee",
    "pair": "fg",
    "halves": "fffggg",
    "crowd": "abcdefgh",
}
KEPT = {"one": 1, "two": 2, "three": 3, "other": 2, "many": 4}
REFUSED = {"pair", "halves", "crowd"}
OUTCOMES = {("used", ""): 12, ("failed", "other_face"): 3, ("failed", "faces_disagree"): 16}
PEOPLE_BY_REASON = {"other_face": 2, "faces_disagree": 3}


def mixed(path: Path) -> Path:
    """Everybody of `SUBJECTS`, photos in the order of the letters."""
    names = [name for name, who in SUBJECTS.items() for _ in who]
    who = [ord(letter) - ord("a") for letters in SUBJECTS.values() for letter in letters]
    return write_embeddings(path, names, captures(PEOPLE[who], 1))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return mixed(tmp_path / "mixed.parquet")


def again(dest: Path, *more: object, command: str = "reprotect") -> Answer:
    return ironmask(command, dest, "--executor=local", f"--keys={keys_of(dest)}", *more)


def images_used(dest: Path, generation: int = 1) -> dict[str, int]:
    found = [row for row in rows(dest, "templates") if row["generation"] == generation]
    return {row["subject_id"]: row["images_used"] for row in found}


class TestEnrol:
    @pytest.fixture(scope="class")
    def done(self, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
        folder = tmp_path_factory.mktemp("mixed")
        dest = folder / "table"
        return dest, enroll(mixed(folder / "mixed.parquet"), dest, "--json", "--vault")

    def test_the_majority_is_kept_and_without_one_nobody_is_enrolled(self, done):
        dest, answer = done
        assert answer.code == 3
        assert outcomes(dest) == OUTCOMES
        assert images_used(dest) == KEPT
        assert_sound(dest, sum(map(len, SUBJECTS.values())))
        assert checked(dest).code == 0
        assert {row["subject_id"] for row in rows(dest, "vault")} == set(KEPT)
        assert len(rows(dest, "vault")) == sum(KEPT.values())

    def test_a_template_is_of_one_person(self, done):
        dest, _ = done
        assert verified(dest, "other", PEOPLE[[3, 4]]) == [True, False]
        assert verified(dest, "many", PEOPLE[[3, 4]]) == [True, False]

    def test_it_is_said_in_summary_and_inventory(self, done):
        dest, answer = done
        summary = answer.json()
        assert summary["disagreement"] == PEOPLE_BY_REASON
        assert summary["reasons"] == {"faces_disagree": 16, "other_face": 3}
        assert (summary["subjects_enrolled"], summary["subjects_not_enrolled"]) == (5, 3)
        warned = [line for line in answer.err.splitlines() if line.startswith("WARNING: ")]
        assert any("2 people have faces of somebody else" in line for line in warned)
        assert any("3 people have faces of which no more than half" in line for line in warned)
        assert inventory(open_tables(dest)).disagreement == PEOPLE_BY_REASON
        shown = ironmask("inspect", dest)
        for words in ("subjects with other_face", "subjects with faces_disagree"):
            assert words in shown.out
        ended = run_records.runs(open_tables(dest))[0].counts
        assert ended["disagreement"] == PEOPLE_BY_REASON

    def test_no_similarity_is_kept(self, done):
        """The bar alone, and that is the same for all; what is encrypted holds none either."""
        dest, _ = done
        facts = [told(dest, row) for row in rows(dest, "inputs") if row["reason"] == "other_face"]
        assert facts
        for fact in facts:
            assert fact["detail"].startswith("most of the subject's faces are of somebody else")
            assert {name for name, value in fact.items() if isinstance(value, float)} == {"quality"}

    def test_it_is_said_below_max_failures_too(self, source, tmp_path):
        answer = enroll(source, tmp_path / "d", "--max-failures=19")
        assert answer.code == 0
        assert "WARNING: 3 people have faces of which no more than half" in answer.err
        assert "subjects with faces_disagree" in answer.out

    def test_nobody_is_warned_of_what_is_sound(self, tmp_path):
        answer = enroll(several(tmp_path / "e.parquet", 3), tmp_path / "d", "--json")
        assert answer.code == 0
        assert "people have faces" not in answer.err
        assert answer.json()["disagreement"] == {}

    def test_nobody_asks_without_it(self, source, tmp_path):
        dest = tmp_path / "d"
        answer = enroll(source, dest, "--no-agreement", "--json")
        assert answer.code == 0
        assert answer.json()["disagreement"] == {}
        assert images_used(dest) == {name: len(who) for name, who in SUBJECTS.items()}

    def test_embeddings_that_cancel_are_refused_in_any_case(self, tmp_path):
        opposed = [PEOPLE[0], -PEOPLE[0]]
        source = write_embeddings(tmp_path / "e.parquet", ["x", "x"], opposed)
        for dest, more, reason in (
            (tmp_path / "with", [], "faces_disagree"),
            (tmp_path / "without", ["--no-agreement"], "opposed_embeddings"),
        ):
            assert enroll(source, dest, *more).code == 3
            assert outcomes(dest) == {("failed", reason): 2}

    def test_unusable_embeddings_have_no_say(self, tmp_path):
        """Two are one person's, one another's, and three are none: two of three agree."""
        a, b, c = captures(PEOPLE[[0, 0, 1]], 1)
        bad = [a * np.nan, a * 0, a[:5]]
        source = write_embeddings(tmp_path / "e.parquet", ["x"] * 6, [*bad, c, a, b])
        dest = tmp_path / "d"
        assert enroll(source, dest).code == 3
        assert outcomes(dest) == {
            ("used", ""): 2, ("failed", "other_face"): 1, ("failed", "not_finite"): 1,
            ("failed", "zero_norm"): 1, ("failed", "wrong_width"): 1,
        }  # fmt: skip

    def test_the_same_under_pseudonyms(self, source, tmp_path):
        dest = tmp_path / "d"
        answer = enroll(source, dest, "--pseudonymous", "--json")
        assert (answer.code, answer.json()["disagreement"]) == (3, PEOPLE_BY_REASON)
        assert outcomes(dest) == OUTCOMES

    def test_the_order_of_the_photos_plays_no_part(self, source, tmp_path):
        table = pq.read_table(source)
        order = np.random.default_rng(1).permutation(len(table))
        pq.write_table(table.take(pa.array(order)), source)
        dest = tmp_path / "d"
        assert enroll(source, dest).code == 3
        assert outcomes(dest) == OUTCOMES
        assert images_used(dest) == KEPT

    def test_everybody_in_one_folder(self, tmp_path):
        """The source one level too high: no template of all of them."""
        source = write_embeddings(tmp_path / "e.parquet", ["lfw"] * 40, unit_vectors(40))
        answer = enroll(source, tmp_path / "d", "--json")
        assert answer.code == 3
        assert answer.json()["reasons"] == {"faces_disagree": 40}
        assert rows(tmp_path / "d", "templates") == []


class TestRetry:
    def test_who_was_refused_can_be_taken_all_the_same(self, source, tmp_path):
        dest = tmp_path / "d"
        enroll(source, dest)
        answer = enroll(source, dest, "--retry-failed=faces_disagree", "--no-agreement", "--json")
        assert (answer.code, answer.json()["used"]) == (0, 16)
        assert set(images_used(dest)) == set(SUBJECTS)
        assert images_used(dest)["pair"] == 2

    def test_other_faces_of_somebody_enrolled_stay_out(self, source, tmp_path):
        dest = tmp_path / "d"
        enroll(source, dest)
        answer = enroll(source, dest, "--retry-failed=other_face")
        assert answer.code == 0
        assert "nothing to retry" in answer.err
        assert images_used(dest) == KEPT

    def test_a_corrected_source_enrols_them(self, source, tmp_path):
        dest = tmp_path / "d"
        enroll(source, dest)
        table = pq.read_table(source)
        names = table["subject_id"].to_pylist()
        place = names.index("pair")
        names[place + 1] = "second of the pair"
        pq.write_table(table.set_column(0, "subject_id", pa.array(names)), source)
        answer = enroll(source, dest, "--json")
        assert set(images_used(dest)) == {*KEPT, "pair", "second of the pair"}
        assert answer.json()["subjects_enrolled"] == 2


class TestTheBar:
    def bar(self, source: Path, dest: Path, **changes):
        found = prepare(request(source, dest, **changes))
        assert found.bar is None or found.job.agreement == found.bar.cosine
        return found.bar

    def test_of_a_known_model(self, tmp_path):
        """By its name, whether or not its files are at hand."""
        source = write_embeddings(tmp_path / "e.parquet", ["a"], unit_vectors(1, width=512))
        for name, cosine in (("buffalo_sc", 0.234), ("edgeface_s", 0.345)):
            found = self.bar(source, tmp_path / "d", model=name)
            assert (found.cosine, found.source) == (cosine, "measured on LFW")
        stricter = self.bar(source, tmp_path / "d", model="buffalo_sc", agreement=1e-2)
        assert stricter.cosine == 0.171

    @pytest.mark.slow
    def test_of_an_unknown_model_it_is_the_least_of_any(self, source, tmp_path):
        found = self.bar(source, tmp_path / "d")
        assert found.source.startswith("the least of any model")
        cosines = np.random.default_rng(0).standard_normal((2, 200_000, WIDTH))
        a, b = cosines / np.linalg.norm(cosines, axis=2, keepdims=True)
        assert ((a * b).sum(axis=1) > found.cosine).mean() == pytest.approx(DEFAULT_FMR, rel=0.3)

    def crowd(self, path: Path, people: int, each: int = 1) -> Path:
        """Of a model that uses few directions."""
        narrow = unit_vectors(people, 7) * np.linspace(1.5, 0.1, WIDTH, dtype=np.float32)
        names = [f"p{i}" for i in range(people) for _ in range(each)]
        return write_embeddings(path, names, np.repeat(narrow, each, axis=0))

    def test_measured_on_many_people(self, source, tmp_path):
        calibration = self.crowd(tmp_path / "c.parquet", 1200, 2)
        found = self.bar(source, tmp_path / "d", calibration=str(calibration))
        assert found.source == f"measured on 1,200 people of {calibration}"
        vectors = np.stack(pq.read_table(calibration)["embedding"].to_pylist())[::2]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        above = (vectors @ vectors.T)[np.triu_indices(1200, 1)] > found.cosine
        assert above.mean() == pytest.approx(DEFAULT_FMR, rel=0.1)
        itself = self.bar(calibration, tmp_path / "e")
        assert itself == found

    def test_a_source_does_not_move_the_bar_of_a_known_model(self, tmp_path):
        vectors = unit_vectors(1200, width=512)
        source = write_embeddings(tmp_path / "e.parquet", map(str, range(1200)), vectors)
        assert self.bar(source, tmp_path / "d", model="buffalo_sc").cosine == 0.234

    def test_few_people_tell_of_the_directions_only(self, source, tmp_path):
        calibration = self.crowd(tmp_path / "c.parquet", 600)
        few = self.bar(source, tmp_path / "d", calibration=str(calibration))
        assert few.source == "by the model's profile"
        enroll(source, tmp_path / "d", "--calibration", calibration)
        kept = self.bar(source, tmp_path / "d")
        assert kept == few
        assert few.cosine > self.bar(source, tmp_path / "other").cosine

    def test_nobody_named_in_a_calibration(self, source, tmp_path):
        calibration = self.crowd(tmp_path / "c.parquet", 1200)
        table = pq.read_table(calibration)
        pq.write_table(table.select(["embedding"]), calibration)
        found = self.bar(source, tmp_path / "d", calibration=str(calibration))
        assert found.source == "by the model's profile"

    @pytest.mark.parametrize("fmr", [1e-6, 0.2, 1.0, -1.0])
    def test_rates_that_are_not_supported(self, source, tmp_path, fmr):
        with pytest.raises(ParameterError, match=r"from 1e-05 to 0\.1 can be told"):
            self.bar(source, tmp_path / "d", agreement=fmr)
        answer = enroll(source, tmp_path / "d", f"--agreement={fmr}")
        assert answer.code == 2
        assert not (tmp_path / "d").exists()

    def test_both_options_exclude_each_other(self, source, tmp_path):
        answer = enroll(source, tmp_path / "d", "--agreement=1e-2", "--no-agreement")
        assert answer.code == 2
        assert "exclude each other" in answer.err

    def test_it_is_said_before_anything_is_done(self, source, tmp_path):
        answer = enroll(source, tmp_path / "d", "--dry-run", "--json")
        bar = self.bar(source, tmp_path / "d").cosine
        assert f"agreement: from a cosine of {bar:g}, the least of" in answer.err
        assert f"faces agree from {bar:g}" in answer.json()["settings"]

    def test_flows_take_it_as_a_parameter(self):
        asked = {"source": "a", "dest": "b"}
        assert assembled(EnrolRequest, asked).settings.agreement is None
        assert assembled(EnrolRequest, {**asked, "agreement": 0}).settings.agreement == 0


class TestResume:
    @pytest.fixture
    def half(self, source, tmp_path):
        dest = tmp_path / "d"
        with pytest.raises(PowerCutError):
            run(request(source, dest), broken_after(1))
        return dest

    def test_it_goes_on_with_the_same(self, source, half):
        assert run(request(source, half)).disagreement == PEOPLE_BY_REASON
        assert outcomes(half) == OUTCOMES

    @pytest.mark.parametrize("other", [1e-2, 0.0])
    def test_another_agreement_is_refused_by_name(self, source, half, other):
        then = prepare(request(source, half)).job.agreement
        now = prepare(request(source, half, agreement=other)).job.agreement
        with pytest.raises(MismatchError, match=f"agreement: {then} then, {now} now"):
            run(request(source, half, agreement=other))

    def test_without_any_it_must_stay_so(self, source, tmp_path):
        dest = tmp_path / "d"
        with pytest.raises(PowerCutError):
            run(request(source, dest, agreement=0), broken_after(1))
        with pytest.raises(MismatchError, match="agreement: None then"):
            run(request(source, dest))
        assert run(request(source, dest, agreement=0)).used == len(pq.read_table(source))

    def test_a_run_of_a_release_that_did_not_ask_is_finished_by_its_command(
        self, source, tmp_path, monkeypatch
    ):
        dest = tmp_path / "d"
        with monkeypatch.context() as before:
            before.setattr(run_records, "write", _without(run_records.write))
            with pytest.raises(PowerCutError):
                run(request(source, dest, agreement=0), broken_after(1))
        (begun,) = run_records.runs(open_tables(dest))
        assert stored(begun.config["job"]).agreement is None
        answer = enroll(source, dest, "--shard-size=4", "--json")
        assert answer.code == 0, answer.err
        assert "begun without --agreement" in answer.err
        assert answer.json()["run_id"] == begun.run_id
        assert set(images_used(dest)) == set(SUBJECTS)


def _without(write):
    """`run_records.write` as releases did it that knew nothing of agreement."""

    def older(dest, record):
        for name in ("agreement", "keeps_other_faces"):
            del record.config["job"][name]
        write(dest, record)

    return older


class TestReprotect:
    @pytest.fixture
    def averaged(self, source, tmp_path):
        """A table whose templates average strangers, with a vault."""
        dest = tmp_path / "d"
        assert enroll(source, dest, "--no-agreement", "--vault").code == 0
        return dest

    @pytest.mark.parametrize("more", [[], ["--vault"]])
    def test_it_tells_and_nobody_loses_a_template(self, averaged, more):
        answer = again(averaged, "--json", *more)
        assert answer.code == 0, answer.err
        summary = answer.json()["summary"]
        assert summary["disagreement"] == PEOPLE_BY_REASON
        assert summary["reasons"] == {"faces_disagree": 16, "other_face": 3}
        assert (summary["failed"], answer.json()["lost"], answer.json()["missing"]) == (0, 0, 0)
        assert "used all the same (faces_disagree)" in answer.err
        assert set(images_used(averaged, 2)) == set(SUBJECTS)
        assert images_used(averaged, 2)["many"] == 6
        assert inventory(open_tables(averaged)).disagreement == PEOPLE_BY_REASON
        assert checked(averaged).code == 0

    @pytest.mark.slow
    def test_what_it_told_of_can_be_made_anew_and_erased(self, averaged):
        for more in ([], ["--vault"]):
            assert again(averaged, *more).code == 0
        assert again(averaged, command="rekey").code == 0
        erased = ironmask(
            "erase", "--yes", averaged, "--subject=pair", f"--keys={keys_of(averaged)}"
        )
        assert erased.code == 0, erased.err
        assert checked(averaged).code == 0
        assert inventory(open_tables(averaged)).disagreement == {
            **PEOPLE_BY_REASON, "faces_disagree": len(REFUSED) - 1,
        }  # fmt: skip

    @pytest.mark.parametrize("more", [[], ["--vault"]])
    def test_it_refuses_on_request(self, averaged, more):
        refused = again(averaged, "--refuse-disagreement", *more)
        assert refused.code == 1
        assert "3 people of generation 1 have no template in generation 2" in refused.errors[0]
        assert set(images_used(averaged)) == set(SUBJECTS)
        done = again(averaged, "--refuse-disagreement", "--max-lost=3", "--json", *more)
        assert done.code == 3, done.err
        assert (done.json()["lost"], done.json()["missing"]) == (3, 19)
        assert images_used(averaged, 2) == KEPT
        assert checked(averaged).code == 0

    def test_nobody_asks_without_it(self, averaged):
        answer = again(averaged, "--no-agreement", "--json")
        assert answer.code == 0
        assert answer.json()["summary"]["disagreement"] == {}

    @pytest.mark.slow
    def test_the_bar_stays_as_it_was(self, source, tmp_path):
        dest = tmp_path / "d"
        run(request(source, dest, agreement=1e-2))
        for more in ([], ["--agreement=1e-4"]):
            assert again(dest, "--json", *more).code == 0
        bars = [job.agreement for job in run_records.jobs(open_tables(dest))]
        assert bars[0] == bars[1] < bars[2]

    @pytest.mark.slow
    def test_an_interrupted_one_goes_on(self, averaged, monkeypatch):
        with monkeypatch.context() as cut:
            cut.setattr("pipelines.table.generations.switch", _cut)
            with pytest.raises(PowerCutError):
                again(averaged)
        other = again(averaged, "--refuse-disagreement")
        assert other.code == 1
        assert "keeps_other_faces: True then, False now" in other.errors[0]
        assert again(averaged).code == 0


def _cut(*_):
    raise PowerCutError


def test_the_reasons_are_failures_that_can_be_retried():
    assert {Reason.OTHER_FACE, Reason.FACES_DISAGREE} <= FAILURES


def test_old_jobs_are_read_and_their_fingerprint_is_what_it_was(source, tmp_path):
    job = prepare(request(source, tmp_path / "d", agreement=0)).job
    older = {k: v for k, v in job.as_dict().items() if k not in ("agreement", "keeps_other_faces")}
    assert stored(json.loads(json.dumps(older, default=str))) == job
    del older["model"], older["dest"], older["faces"]["provider"]
    del older["pseudonymous"], older["allow_roots"]
    then = fingerprint(job, "plan")
    assert then["configuration"] == digest(older)
    for change in ({"agreement": 0.3}, {"keeps_other_faces": True}):
        assert fingerprint(replace(job, **change), "plan") != then
