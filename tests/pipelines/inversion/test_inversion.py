"""Template inversion of people who do not exist: fitted, shown to recognisers, reported."""

from __future__ import annotations

import json
import re
import shutil
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.command import ironmask
from support.made_faces import SIDE, names, write_folder, write_pack, write_zip

PEOPLE, EACH = 120, 3
LOCAL = "--executor=local"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Faces, two models, and a linear inverter of the first one."""
    folder = tmp_path_factory.mktemp("inversion")
    write_zip(folder / "faces.zip", PEOPLE, EACH)
    for number, name in enumerate(("pack", "other")):
        write_pack(folder / name, seed=number)
    answer = fitted(folder, folder / "linear")
    assert answer.code == 0, answer.err
    return folder


def fitted(folder, out, *more, faces="faces.zip"):
    return ironmask("invert", "fit", folder / faces, out, "--model", folder / "pack", LOCAL, *more)


def evaluated(folder, out, *more, faces="faces.zip", inverter="linear"):
    return ironmask(
        "invert", "evaluate", folder / faces, out, "--inverter", folder / inverter,
        "--model", folder / "pack", LOCAL, "--photos=2", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(folder):
    """An evaluation with all that there is."""
    out = folder / "report"
    answer = evaluated(folder, out, "--other-model", folder / "other", "--contact-sheet", "--json")
    assert answer.code == 0, answer.err
    return out, answer.json()


def rates(report):
    """Acceptance by input, recogniser's role and type, at a FAR of 1 %."""
    rows = pq.read_table(report[0] / "inversion.parquet").to_pylist()
    return {
        (row["input"], row["attacked"], row["type"]): row["tar"]
        for row in rows
        if row["far"] == 1e-2
    }


def test_stored_embeddings_are_faces_and_helpers_are_not(report):
    found = rates(report)
    for stored in ("stored embedding", "stored template of several photos"):
        assert found[stored, True, 1] == 1.0
        assert found[stored, True, 2] >= 0.9
    assert found["readable helper, random codeword", True, 1] <= 0.2
    assert found["readable helper, searched", True, 1] == found["stored embedding", True, 1]
    assert found["face of somebody else", True, 1] <= 0.2


def test_another_recogniser_is_shown_the_same_faces(report):
    assert rates(report)["stored embedding", False, 1] >= 0.9


def test_a_search_gives_the_template_itself(report):
    rows = pq.read_table(report[0] / "likeness.parquet").to_pylist()
    found = {row["input"]: row for row in rows}
    searched = found["readable helper, searched"]
    assert searched["found"] == searched["asked"] == found["stored embedding"]["asked"]
    assert searched["cosine"] > 0.99
    assert abs(found["readable helper, random codeword"]["cosine"]) < 0.3


def test_the_sentence_says_what_a_thief_gets(report):
    text = (report[0] / "report.html").read_text()
    told = report[1]["headline"]
    assert told in text
    assert re.search(
        r"as they lie, encrypted: nothing .* With the keys, by a search .* 12 of 12", told
    )
    for title in ("Beside the published table", "Accepted reconstructions", "Thresholds"):
        assert f"<h2>{title}</h2>" in text
    assert "97.74 %" in text
    assert "Not drawn" not in text


def test_thresholds_that_rest_on_too_few_strangers_say_so(report):
    rows = pq.read_table(report[0] / "inversion.parquet").to_pylist()
    assert not any(row["supported"] for row in rows if row["far"] < 1e-2)


def test_faces_are_in_the_contact_sheet_alone(report, folder):
    out = report[0]
    pictures = {path.relative_to(out).as_posix() for path in out.rglob("*.png")}
    assert pictures == {"contact-sheet/faces.png"}
    warning = (out / "contact-sheet" / "WARNING.txt").read_text()
    assert "personal data" in warning
    columns = re.findall(r"^  \d+\. ", warning, re.MULTILINE)
    with Image.open(out / "contact-sheet" / "faces.png") as picture:
        assert picture.width == len(columns) * SIDE
    assert not list((folder / "linear").rglob("*.png"))


@pytest.mark.slow
def test_without_asking_there_is_no_contact_sheet(folder, tmp_path):
    answer = evaluated(folder, tmp_path / "out", "--people=10")
    assert answer.code == 0, answer.err
    assert not (tmp_path / "out" / "contact-sheet").exists()
    assert "10 people are tested" in answer.out


def test_nobody_is_named_and_nothing_is_left_of_embeddings(report, folder):
    for out in (report[0], folder / "linear"):
        for path in filter(lambda path: path.is_file(), out.rglob("*")):
            assert not re.search(rb"person_\d", path.read_bytes()), path
        assert not list((out / "embedded").iterdir())
    keys = folder.parent / "config"
    assert not list(keys.rglob("*.json"))


@pytest.mark.slow
def test_the_same_command_again_changes_nothing(report, folder):
    before = pq.read_table(report[0] / "inversion.parquet")
    answer = evaluated(folder, report[0], "--other-model", folder / "other", "--contact-sheet")
    assert answer.code == 0, answer.err
    assert pq.read_table(report[0] / "inversion.parquet").equals(before)


def test_a_finished_fit_is_looked_up(folder):
    before = (folder / "linear" / "inverter.npz").stat()
    answer = fitted(folder, folder / "linear")
    assert answer.code == 0, answer.err
    assert (folder / "linear" / "inverter.npz").stat() == before


@pytest.mark.slow
def test_a_folder_gives_what_its_zip_gives(folder, tmp_path):
    write_folder(tmp_path / "faces", PEOPLE, EACH)
    shutil.copytree(folder / "pack", tmp_path / "pack")
    answer = fitted(tmp_path, tmp_path / "out", faces="faces")
    assert answer.code == 0, answer.err
    both = [np.load(place / "inverter.npz") for place in (folder / "linear", tmp_path / "out")]
    for name in both[0].files:
        assert np.array_equal(both[0][name], both[1][name]), name


class TestPeopleWhoWereTrainedOn:
    def test_are_left_out(self, folder, report):
        learnt = json.loads((folder / "linear" / "fit.json").read_text())["people"]
        assert len(learnt) == PEOPLE * 4 // 5
        text = (report[0] / "report.html").read_text()
        assert f"{len(learnt)} people were left out" in text

    def test_are_refused_where_nobody_else_is_left(self, folder, tmp_path):
        with zipfile.ZipFile(folder / "faces.zip") as archive:
            some = [name for name in archive.namelist() if name.split("/")[0] in trained(folder)]
            with zipfile.ZipFile(tmp_path / "trained.zip", "w") as copy:
                for name in some:
                    copy.writestr(name, archive.read(name))
        answer = evaluated(folder, tmp_path / "out", faces=tmp_path / "trained.zip")
        assert answer.code == 1
        assert "96 were trained on, and 0 are left" in answer.errors[0]
        assert not (tmp_path / "out").exists()


def trained(folder):
    from pipelines.inversion import people

    fit = json.loads((folder / "linear" / "fit.json").read_text())
    return {name for name in names(PEOPLE) if people.digest(name, fit["name"]) in fit["people"]}


class TestRefusals:
    def test_an_inverter_of_another_model(self, folder, tmp_path):
        answer = ironmask(
            "invert", "evaluate", folder / "faces.zip", tmp_path / "out", "--inverter",
            folder / "linear", "--model", folder / "other", LOCAL,
        )  # fmt: skip
        assert answer.code == 1
        assert "is of pack (" in answer.errors[0]
        assert "and the model is other (" in answer.errors[0]

    def test_a_folder_without_an_inverter(self, folder, tmp_path):
        answer = evaluated(folder, tmp_path / "out", inverter="pack")
        assert answer.code == 1
        assert "holds no fitted inverter" in answer.errors[0]

    def test_another_fit_in_the_same_folder(self, folder):
        answer = fitted(folder, folder / "linear", "--seed=3")
        assert answer.code == 1
        assert "holds another job: seed differ" in answer.errors[0]

    def test_an_inverter_that_nobody_knows(self, folder, tmp_path):
        answer = fitted(folder, tmp_path / "out", "--inverter=magic")
        assert answer.code == 2
        assert "it is linear, nbnet, hybrid, ascent" in answer.errors[0]

    def test_too_few_people(self, folder, tmp_path):
        write_zip(tmp_path / "few.zip", 20, 2)
        answer = fitted(folder, tmp_path / "out", faces=tmp_path / "few.zip")
        assert answer.code == 1
        assert "the faces are of 20 people: an inverter needs 25 or more" in answer.errors[0]

    def test_no_model(self, folder, tmp_path):
        answer = ironmask("invert", "fit", folder / "faces.zip", tmp_path / "out", LOCAL)
        assert answer.code == 2
        assert "--model" in answer.errors[0]

    def test_keys_of_no_table(self, folder, tmp_path):
        answer = evaluated(folder, tmp_path / "out", "--keys=k.json")
        assert answer.code == 2
        assert "--table" in answer.errors[0]

    def test_faces_and_output_in_one_another(self, folder):
        answer = fitted(folder, folder / "faces.zip" / "out")
        assert answer.code == 2
        assert "lie in one another" in answer.errors[0]

    @pytest.mark.parametrize("kind", ["nbnet", "hybrid", "ascent"])
    def test_a_trained_inverter_without_pytorch(self, folder, tmp_path, kind, monkeypatch):
        import sys

        monkeypatch.setitem(sys.modules, "torch", None)
        answer = fitted(folder, tmp_path / "out", f"--inverter={kind}")
        assert answer.code == 1
        assert 'pip install "ironmask[attacks]"' in answer.errors[0]
        assert not (tmp_path / "out").exists()


class TestPhotosThatCannotBeUsed:
    @pytest.fixture(scope="class")
    def failed(self, folder, tmp_path_factory):
        """A fit of a zip with a damaged member, a member that is no picture, and one left out."""
        place = tmp_path_factory.mktemp("damaged")
        data = bytearray((folder / "faces.zip").read_bytes())
        with zipfile.ZipFile(folder / "faces.zip") as archive:
            someone = sorted(trained(folder))[0]
            member = archive.getinfo(f"{someone}/1.jpg")
        data[member.header_offset + 30 + len(member.filename) + 40] ^= 0xFF
        (place / "faces.zip").write_bytes(data)
        with zipfile.ZipFile(place / "faces.zip", "a") as archive:
            archive.writestr(f"{someone}/9.jpg", b"no picture")
        (place / "out.txt").write_text(f"{someone}/2.jpg\n")
        answer = ironmask(
            "invert", "fit", place / "faces.zip", place / "fit", "--model", folder / "pack",
            "--exclude", place / "out.txt", LOCAL, "--json",
        )  # fmt: skip
        assert answer.code == 0, answer.err
        return place, someone, answer.json()

    def test_each_is_one_row(self, failed):
        place, someone, told = failed
        rows = pq.read_table(place / "fit" / "failures.parquet").to_pylist()
        found = {row["photo"]: row["reason"] for row in rows}
        assert found == {
            f"{someone}/1.jpg": "unreadable",
            f"{someone}/9.jpg": "not_an_image",
        }
        # Two more for one person: one was left out, one is new and no picture.
        assert told["photos"] == PEOPLE * 4 // 5 * EACH - 2

    def test_a_name_that_is_not_there_is_refused(self, folder, tmp_path):
        (tmp_path / "out.txt").write_text("Nobody\n")
        answer = fitted(folder, tmp_path / "out", "--exclude", tmp_path / "out.txt")
        assert answer.code == 1
        assert "'Nobody'" in answer.errors[0]

    def test_what_is_no_zip_file(self, folder, tmp_path):
        (tmp_path / "faces.zip").write_bytes(b"PK\3\4 and nothing else")
        answer = fitted(folder, tmp_path / "out", faces=tmp_path / "faces.zip")
        assert answer.code == 1
        assert "is no zip file" in answer.errors[0]
