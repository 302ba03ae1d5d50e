"""Sources and lists that people really have: read as enrolment reads them, or refused in a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import cases
from support.command import Answer, ironmask
from support.enrolling import captures, request, run, several, unit_vectors, write_embeddings
from support.table import keys_of

from infra.store.objects import FsspecStore
from ironmask.errors import ProtocolError, SourceError
from pipelines.auditing import request as auditing_request
from pipelines.auditing.request import AuditRequest
from pipelines.evaluation.comparisons import Comparisons, Uncompared
from pipelines.evaluation.protocol import comparisons
from pipelines.plan import labelled_faces
from pipelines.plan.labelled_faces import Labels
from pipelines.spec.workplace import Workplace

PEOPLE, EACH = 5, 4
IMAGES = [f"p{who}/p{who}_{which:04d}.jpg" for who in range(PEOPLE) for which in range(1, EACH + 1)]
SUBJECTS: list[Any] = [image.partition("/")[0] for image in IMAGES]
VECTORS = captures(unit_vectors(PEOPLE), EACH)


def stored(path: Path, subjects: Sequence[Any], vectors: Sequence[Any], **more: Any) -> Path:
    values = [None if v is None else list(map(float, v)) for v in vectors]
    column = pa.array(values, pa.list_(pa.float32()))
    pq.write_table(pa.table({"subject_id": pa.array(subjects), "embedding": column, **more}), path)
    return path


def labels(path: Path, *exclusions: str, **more: Any) -> Labels:
    columns = {"subjects": SUBJECTS, "vectors": VECTORS, "image": IMAGES, **more}
    source = stored(path / "e.parquet", **columns)
    return labelled_faces.load(str(source), FsspecStore(), exclusions, ()).labels


def evaluate(source: Path, out: Path, *options: object) -> Answer:
    return ironmask(
        "evaluate", source, out, "--executor", "local", "--alpha", 16, "--tolerance", 0, "--json",
        *options,
    )  # fmt: skip


def told(answer: Answer) -> tuple[dict[str, Any], dict[str, int]]:
    """The protected row, and the counts of failures."""
    assert answer.code == 0, answer.err
    found = answer.json()
    return found["protected"][0], {row["what"]: row["count"] for row in found["failures"]}


class TestSubjects:
    @pytest.mark.slow
    def test_a_case_without_subjects(self, face_data, tmp_path):
        folder = cases.make(face_data, "01", tmp_path / "case")
        for name, without in (("clean", 0), ("null", 6), ("empty", 6)):
            answer = evaluate(folder / f"{name}.parquet", tmp_path / name)
            row, counts = told(answer)
            assert (row["fnmr_trials"], row["fmr_trials"]) == (36, 240)
            assert [one["fnmr_errors"] for one in answer.json()["recogniser"]] == [0] * 5
            assert counts["without a subject"] == without
            assert (counts["faces to acquire"], counts["subjects to enrol"]) == (24, 6)

    @pytest.mark.parametrize("nobody", [None, "", "  "])
    def test_nobody_is_no_subject(self, tmp_path, nobody):
        found = labels(tmp_path, subjects=[nobody if row % 4 == 3 else s for row, s in _numbered()])
        assert (found.unlabelled, len(found.subject), len(found.subjects)) == (5, 15, 5)
        assert found.left_out["p0/p0_0004.jpg"].reason == "no_subject"

    def test_numbers_that_are_missing_are_nobody(self, tmp_path):
        numbers = [np.nan if row % 4 == 3 else float(row // 4) for row in range(len(SUBJECTS))]
        found = labels(tmp_path, subjects=numbers)
        assert (found.unlabelled, found.subjects) == (5, ["0", "1", "2", "3", "4"])

    def test_people_of_unusual_names_are_people(self, tmp_path):
        assert labels(tmp_path, subjects=["None", *["nan"] * 3, *SUBJECTS[4:]]).unlabelled == 0

    def test_a_face_without_a_name_is_not_called_none(self, tmp_path):
        images = [None, "None", "p0#2", *IMAGES[3:]]
        assert labels(tmp_path, image=images).images[:3] == ["None", "p0#0", "p0#2"]
        with pytest.raises(ProtocolError, match="'p0#0' is in the source twice"):
            labels(tmp_path, image=[None, "p0#0", *IMAGES[2:]])

    def test_pictures_are_no_names(self, tmp_path):
        pictures = pa.array([{"bytes": b"\xff\xd8", "path": "x"}] * len(IMAGES))
        assert labels(tmp_path, image=pictures).images[0] == "p0#0"


def _numbered() -> list[tuple[int, str]]:
    return list(enumerate(SUBJECTS))


class TestColumns:
    REFUSED = (
        "decimal", "list_view", "nested", "null_type", "numpy_bytes", "struct", "text", "all_null",
        "list_subject", "struct_subject", "twice_subject", "twice_embedding", "f64_overflow",
    )  # fmt: skip

    def test_a_case_of_columns(self, face_data, tmp_path):
        """By the command for those that are refused; the others are read alike."""
        folder = cases.make(face_data, "05", tmp_path / "case")
        dest = tmp_path / "table"
        run(request(several(tmp_path / "g.parquet", 4), dest))
        refusals: dict[str, str] = {}
        for name in self.REFUSED:
            answer = evaluate(folder / f"{name}.parquet", tmp_path / "out")
            assert (answer.code, len(answer.errors)) == (1, 1), answer.err
            refusals[name] = answer.errors[0].removeprefix("error: ")
            with pytest.raises(SourceError) as refused:
                auditing_request.prepare(_audit(folder / f"{name}.parquet", dest))
            assert str(refused.value) == refusals[name]
        assert not (tmp_path / "out").exists()
        sound = {path.stem for path in folder.glob("*.parquet")} - set(self.REFUSED)
        sizes = {}
        for name in sorted(sound):
            found = labelled_faces.load(
                str(folder / f"{name}.parquet"), FsspecStore(), (), ()
            ).labels
            sizes[name] = len(found.subject), len(found.subjects)
        assert sizes.pop("mixed_width") == (8, 4)
        assert sizes.pop("null_elements") == (11, 4)
        assert set(sizes.values()) == {(12, 4)}
        assert len(sizes) == 14

    @pytest.mark.parametrize("name", ["image", "reason"])
    def test_a_column_that_is_there_twice(self, tmp_path, name):
        table = pq.read_table(stored(tmp_path / "a.parquet", SUBJECTS, VECTORS))
        for _ in range(2):
            table = table.append_column(name, pa.array(IMAGES))
        pq.write_table(table, tmp_path / "a.parquet")
        with pytest.raises(SourceError, match=f"{name} more than once"):
            labelled_faces.load(str(tmp_path / "a.parquet"), FsspecStore(), (), ())


def _audit(source: Path, dest: Path) -> AuditRequest:
    return AuditRequest(
        (str(dest),), str(source), str(dest.with_name("audit")), (str(keys_of(dest)),),
        workplace=Workplace("local"),
    )  # fmt: skip


class TestExclusions:
    @pytest.mark.slow
    def test_a_case_of_names_with_a_number_sign(self, face_data, tmp_path):
        folder = cases.make(face_data, "02", tmp_path / "case")
        for name, listed in (("noimage", "row"), ("hash", "image")):
            options = ("--exclude", folder / f"ex-{listed}.txt")
            row, counts = told(evaluate(folder / f"{name}.parquet", tmp_path / name, *options))
            assert (counts["excluded"], counts["faces to acquire"]) == (1, 29)
            assert (row["fnmr_trials"], row["fmr_trials"]) == (56, 350)

    def test_what_names_a_face_leaves_out_that_face_alone(self, tmp_path):
        images = ["p1", *IMAGES[1:]]
        found = labels(tmp_path, "p1", "p2", image=images)
        assert (found.excluded, set(found.subjects)) == (1 + EACH, {"p0", "p1", "p3", "p4"})

    def test_what_reads_as_a_comment_and_is_a_face_is_refused(self, tmp_path):
        source = stored(tmp_path / "e.parquet", SUBJECTS, VECTORS, image=["#1.jpg", *IMAGES[1:]])
        listed = tmp_path / "list.txt"
        listed.write_text(f"# wrong\n#1.jpg\n{IMAGES[1]}\n")
        answer = evaluate(source, tmp_path / "out", "--exclude", listed)
        assert answer.code == 1
        assert "line 2: it begins with # like a comment" in answer.errors[0]
        listed.write_text(f'# wrong\n"#1.jpg"\n{IMAGES[1]}\n')
        _, counts = told(evaluate(source, tmp_path / "out", "--exclude", listed))
        assert counts["excluded"] == 2

    def test_a_comment_behind_a_name_is_no_comment(self, tmp_path):
        with pytest.raises(ProtocolError, match="a comment needs a line of its own"):
            labels(tmp_path, f"{IMAGES[0]} # wrong")


def pairs(found: Labels, *lines: str) -> Comparisons:
    return comparisons("pairs.txt", found, "\n".join(lines))


SOME = ("p0 1 2", "p1 1 2", "p0 1 p1 1")


class TestPairs:
    @pytest.mark.slow
    def test_a_case_of_pairs_that_cannot_be_compared(self, face_data, tmp_path):
        folder = cases.make(face_data, "03", tmp_path / "case")
        options = ("--protocol", folder / "pairs.txt")
        for name, reason in (("absent", "not in the source"), ("noemb", "no_face")):
            out = tmp_path / name
            row, counts = told(evaluate(folder / f"{name}.parquet", out, *options))
            assert counts["pairs of the list"] == 92
            assert counts[f"genuine pairs not compared: {reason}"] == 24
            assert counts[f"impostor pairs not compared: {reason}"] == 22
            assert (row["fnmr_trials"], row["fmr_trials"]) == (24, 22)
            assert row["frr"] == pytest.approx((24 + row["fnmr_errors"]) / 48)
            said = "46 of 92 pairs of the list could not be compared (24 genuine, 22 impostor)"
            page = (out / "report.html").read_text()
            assert said in page
            assert f"{100 * row['gfrr']:.1f} % are rejected (GFRR)" in page
        again = ("evaluate", folder / "noemb.parquet", out, "--executor", "local", *options)
        shown = ironmask(*again, "--alpha", 16, "--tolerance", 0)
        assert said in " ".join(shown.out.split())
        answer = evaluate(folder / "twice.parquet", tmp_path / "twice", *options)
        assert (answer.code, len(answer.errors)) == (1, 1)
        assert "line 2: image 1 of 'Abdullah_Gul' may be 'orig/" in answer.errors[0]

    @pytest.mark.slow
    def test_a_case_of_quirks(self, face_data, tmp_path):
        folder = cases.make(face_data, "09", tmp_path / "case")
        for source, listed, genuine, impostor in (
            ("e", "plain", 6, 5), ("e", "bom_nohead", 6, 5), ("dots", "dots", 6, 6),
            ("upper", "plain", 6, 5), ("png5", "plain", 6, 5),
        ):  # fmt: skip
            options = ("--protocol", folder / f"{listed}.txt")
            out = tmp_path / f"{source}-{listed}"
            row, _ = told(evaluate(folder / f"{source}.parquet", out, *options))
            assert (row["fnmr_trials"], row["fmr_trials"]) == (genuine, impostor)
        answer = evaluate(folder / "e.parquet", tmp_path / "o", "--protocol", folder / "self.txt")
        assert (answer.code, len(answer.errors)) == (1, 1)
        assert (
            "line 12: image 1 of 'Abdullah_Gul' would be compared with itself" in answer.errors[0]
        )

    def test_each_reason_is_counted_apart(self, tmp_path):
        vectors = [None if row in (2, 7) else v for row, v in enumerate(VECTORS)]
        reasons = ["no_face" if row == 2 else None for row in range(len(IMAGES))]
        found = labels(
            tmp_path, IMAGES[-1], vectors=vectors, reason=reasons,
            subjects=[None if row == 8 else s for row, s in _numbered()],
        )  # fmt: skip
        made = pairs(
            found, *SOME, "p0 1 3", "p0 3 p1 4", "p1 1 4", "p2 1 2", "p9 1 2", "p4 1 4",
            "p0 1 p4 4", "p0 1 2", "p0 1 3", "p9 1 p0 1",
        )  # fmt: skip
        assert made.uncompared == Uncompared(
            genuine={"no_face": 1, "no_embedding": 1, "no_subject": 1, "not in the source": 1},
            impostor={"no_face": 1, "not in the source": 1},
            excluded=2,
            repeated=2,
        )
        assert made.pairs is not None
        assert len(made.pairs) == len(SOME)

    def test_all_of_one_class_lost(self, tmp_path):
        vectors = [v if row % EACH < 2 else None for row, v in enumerate(VECTORS)]
        found = labels(tmp_path, vectors=vectors)
        with pytest.raises(ProtocolError, match=r"no pair is impostor of those .*\(2 cannot\)"):
            pairs(found, "p0 1 2", "p0 3 p1 1", "p0 1 p1 3")

    def test_a_face_without_an_embedding_answers_to_its_name_as_well(self, tmp_path):
        images = [*IMAGES[:-1], "crops/p0_1.png"]
        found = labels(tmp_path, image=images, vectors=[*VECTORS[:-1], None])
        with pytest.raises(ProtocolError, match=r"line 1: image 1 of 'p0' may be"):
            pairs(found, *SOME)
        assert pairs(found, "p1 1 2", "p1 1 p2 1").uncompared == Uncompared()

    def test_what_reads_as_a_comment_and_is_a_pair_is_refused(self, tmp_path):
        found = labels(tmp_path, image=["#Ann_1.jpg", "#Ann_2.jpg", *IMAGES[2:]])
        with pytest.raises(ProtocolError, match="line 4: it begins with # like a comment"):
            pairs(found, *SOME[1:], "#p0 1 2", "#Ann 1 2")
        assert pairs(found, '"#Ann",1,2', "# Ann 1 2", "p1 1 p2 1").uncompared == Uncompared()


class TestRoles:
    def test_what_has_no_embedding_is_counted(self, tmp_path):
        """A template of p0, p1 and, lost, p2; two probes of p0, one of them lost, and one of p1."""
        lost = {3: "no_face", 8: "no_embedding"}
        vectors = [None if row in lost else v for row, v in enumerate(VECTORS)]
        found = labels(
            tmp_path, IMAGES[7], vectors=vectors, reason=[lost.get(r) for r in range(len(IMAGES))]
        )
        lines = [f"{IMAGES[row]},enrol" for row in (0, 1, 4, 5, 8)]
        lines += [f"{IMAGES[row]},probe" for row in (2, 3, 6, 7, 6)]
        made = comparisons("roles.csv", found, "\n".join(["image,role", *lines]))
        assert [len(faces) for faces in made.templates] == [2, 2]
        assert len(made.probes) == 2
        assert made.uncompared == Uncompared(
            genuine={"no_face": 1}, impostor={"no_embedding": 2, "no_face": 2}, excluded=1,
            repeated=1,
        )  # fmt: skip

    def test_whom_nobody_knows_is_refused(self, tmp_path):
        found = labels(tmp_path, subjects=[None, *SUBJECTS[1:]])
        with pytest.raises(ProtocolError, match=r"line 2: image .* has no subject"):
            comparisons("roles.csv", found, f"image,role\n{IMAGES[0]},probe")


class TestNamesOfRows:
    @pytest.mark.slow
    @pytest.mark.parametrize("pseudonymous", [False, True])
    def test_a_table_of_rows_is_found_by_the_names_of_its_images(self, tmp_path, pseudonymous):
        """In a file of another name and order; the names lie in no file if they are not to."""
        some = [row for row in range(len(IMAGES)) if row % EACH < 2]
        names = pa.array([IMAGES[row] for row in some])
        source = stored(
            tmp_path / "enrolled.parquet", [SUBJECTS[r] for r in some], VECTORS[some], image=names
        )
        dest = tmp_path / "table"
        run(request(source, dest, pseudonymous=pseudonymous))
        files = b"".join(path.read_bytes() for path in dest.rglob("*") if path.is_file())
        assert (b"p0_0001" in files) is not pseudonymous
        order = np.random.default_rng(1).permutation(len(IMAGES))
        shuffled = stored(
            tmp_path / "all.parquet", [SUBJECTS[r] for r in order], VECTORS[order],
            image=[IMAGES[r] for r in order],
        )  # fmt: skip
        answer = ironmask("evaluate", shuffled, tmp_path / "out", "--table", dest, "--keys",
                          keys_of(dest), "--executor", "local", "--json")  # fmt: skip
        row, counts = told(answer)
        assert counts["templates without their faces"] == 0
        assert counts["templates left out: table, mean"] == 0
        assert row["fnmr_trials"] == PEOPLE * 2

    def test_a_name_never_leads_to_another_row(self, tmp_path):
        """Its name is gone from a file whose rows moved: the template has not its faces."""
        source = stored(tmp_path / "e.parquet", SUBJECTS, VECTORS, image=IMAGES)
        dest = tmp_path / "table"
        kept = [v if row % EACH < 2 else None for row, v in enumerate(VECTORS)]
        run(request(stored(source, SUBJECTS, kept, image=IMAGES), dest))
        stored(source, SUBJECTS, VECTORS, image=["renamed.jpg", *IMAGES[1:]])
        answer = ironmask("evaluate", source, tmp_path / "out", "--table", dest, "--keys",
                          keys_of(dest), "--executor", "local", "--json")  # fmt: skip
        _, counts = told(answer)
        assert counts["templates without their faces"] == 1

    def test_a_failure_of_before_is_taken_again(self, tmp_path):
        """Releases of before did not keep the names."""
        source, dest = tmp_path / "e.parquet", tmp_path / "table"
        write_embeddings(source, SUBJECTS[:8], [*VECTORS[:4], *[None] * 4])
        run(request(source, dest))
        stored(source, SUBJECTS[:8], VECTORS[:8], image=IMAGES[:8])
        found = run(request(source, dest, retry=("wrong_width",)))
        assert (found.inputs, found.subjects_enrolled) == (4, 1)


class TestReport:
    @pytest.mark.slow
    def test_a_case_of_perfect_and_hopeless_rates(self, face_data, tmp_path):
        folder = cases.make(face_data, "06", tmp_path / "case")
        for source in sorted(folder.glob("*.parquet")):
            out = tmp_path / source.stem
            told(evaluate(source, out))
            assert (out / "report.html").read_text().count("<svg") == 5
            rows = pq.read_table(out / "protected.parquet").to_pylist()
            for name in ("fmr", "fnmr"):
                for kind in ("low", "bootstrap_low"):
                    assert all(row[f"{name}_{kind}"] <= row[name] for row in rows)
                for kind in ("high", "bootstrap_high"):
                    assert all(row[name] <= row[f"{name}_{kind}"] for row in rows)

    @pytest.mark.slow
    def test_a_plot_that_fails_costs_itself(self, tmp_path, monkeypatch):
        """The numbers are there before anything is drawn, and the page says what is not."""
        out, seen = tmp_path / "out", []

        def fail(axes: object, found: object) -> None:
            seen.extend(path.name for path in out.glob("*.parquet"))
            raise ValueError("<no> such axis\nand more")

        monkeypatch.setattr("pipelines.report.plots._det", fail)
        source = stored(tmp_path / "e.parquet", SUBJECTS, VECTORS, image=IMAGES)
        answer = evaluate(source, out)
        told(answer)
        assert {"protected.parquet", "failures.parquet", "cost.parquet"} <= set(seen)
        text = (out / "report.html").read_text()
        assert text.count("<svg") == 4
        assert "Not drawn. ValueError: &lt;no&gt; such axis</figcaption>" in text
