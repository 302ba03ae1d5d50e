"""Folders that are not laid out as they should be: links, flat ones, one level too high, tables."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import cases
from support.command import Answer, ironmask
from support.enrolling import enroll, unit_vectors, write_embeddings
from support.pictures import photos
from support.table import checked, outcomes, rows

from infra.store.objects import FsspecStore
from ironmask.errors import SourceError
from pipelines.plan import census, sources
from pipelines.plan.census import Census
from pipelines.spec.template_job import SourceKind

ELSEWHERE = ("skipped", "link_elsewhere")
OPEN = (None, "")
OUTSIDE = ("failed", "outside_roots")
_NOBODY = 65534


def put(path: Path, content: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.fsencode(path) if content is None else content)
    return path


def listed(source: Path, *roots: Path, own: tuple[Path, ...] = ()) -> dict[str, tuple[Any, str]]:
    """Outcome and reason of each input of a folder, by its path in it."""
    read = sources.read(
        str(source),
        SourceKind.FOLDER,
        FsspecStore(),
        allow_roots=tuple(map(str, roots)),
        own=tuple(map(str, own)),
    )
    found = pa.concat_tables([sources.COLUMNS.empty_table(), *read]).to_pylist()
    return {os.path.relpath(r["uri"], source): (r["outcome"], r["reason"]) for r in found}


@pytest.fixture
def model(face_data: Path) -> str:
    return f"--model={face_data / 'models' / 'buffalo_sc'}"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two people, and somebody else beside the source."""
    for name in ("tree/bob/1.jpg", "tree/bob/deep/2.jpg", "tree/cid/3.jpg", "out/eve/4.jpg"):
        put(tmp_path / name)
    put(tmp_path / "out" / "tom" / "5.jpg")
    return tmp_path / "tree"


REAL = {"bob/1.jpg": OPEN, "bob/deep/2.jpg": OPEN, "cid/3.jpg": OPEN}


class TestLinks:
    @pytest.mark.parametrize("name", ["faces", "alias"])
    def test_the_case(self, face_data, tmp_path, model, name):
        source = cases.make(face_data, "31", tmp_path / "case") / name
        link = {"faces": "faces", "alias": "current"}[name]
        answer = enroll(source, tmp_path / "dest", model, "--alpha=16", "--tolerance=4", "--json")
        assert answer.code == 0, answer.err
        assert answer.json()["reasons"] == {"link_elsewhere": 1}
        people = {path.name for path in source.iterdir()} - {link}
        assert {row["subject_id"] for row in rows(tmp_path / "dest", "templates")} == people

    @pytest.mark.parametrize("name", ["aaa", "zzz"])
    @pytest.mark.parametrize("target", [".", "..", "bob", "bob/deep", "bob/../cid"])
    def test_a_link_for_a_person_leads_to_another_place_of_the_tree_or_above(
        self, tree, name, target
    ):
        (tree / name).symlink_to(target)
        assert listed(tree, tree.parent) == {**REAL, name: ELSEWHERE}

    @pytest.mark.parametrize("target", ["..", "../..", "../cid", "deep", "../cid/3.jpg", "1.jpg"])
    def test_a_link_in_a_persons_folder(self, tree, target):
        (tree / "bob" / "a").symlink_to(target)
        (tree / "bob" / "z").symlink_to(target)
        found = {**REAL, "bob/a": ELSEWHERE, "bob/z": ELSEWHERE}
        assert listed(tree, tree.parent) == found

    def test_a_source_that_is_named_by_a_link(self, tree):
        (tree / "aaa").symlink_to("bob")
        (tree.parent / "alias").symlink_to("tree")
        assert listed(tree.parent / "alias") == {**REAL, "aaa": ELSEWHERE}

    def test_loops_end(self, tree):
        (tree / "bob" / "loop").symlink_to("loop")
        (tree / "cid" / "x").symlink_to("y")
        (tree / "cid" / "y").symlink_to("x")
        (tree / "cid" / "gone").symlink_to("../bob/gone.jpg")
        (tree.parent / "out" / "eve" / "up").symlink_to("..")
        (tree / "eve").symlink_to("../out/eve")
        found = listed(tree, tree.parent / "out")
        dangling = dict.fromkeys(["bob/loop", "cid/gone", "cid/x", "cid/y"], OPEN)
        assert found == {**REAL, **dangling, "eve/4.jpg": OPEN, "eve/up": ELSEWHERE}

    def test_what_is_kept_beside_the_people_is_read_through_links(self, tree):
        """Stores of large files keep them in a hidden folder, or hold them all in one place."""
        put(tree / ".git" / "annex" / "ab" / "6.jpg")
        put(tree / "pool.jpg")
        (tree / "dan").mkdir()
        (tree / "dan" / "6.jpg").symlink_to("../.git/annex/ab/6.jpg")
        (tree / "dan" / "7.jpg").symlink_to("../pool.jpg")
        (tree / "fay").symlink_to(".git/annex/ab")
        for name, target in {"fay2": "ab", "all": "", "ann": "../../bob"}.items():
            (tree / name).symlink_to(Path(".git/annex") / target)
        assert listed(tree) == {
            **REAL,
            ".git/annex/ab/6.jpg": ("skipped", "hidden_file"),
            "pool.jpg": ("skipped", "no_subject"),
            **dict.fromkeys(["dan/6.jpg", "dan/7.jpg", "fay/6.jpg"], OPEN),
            **dict.fromkeys(["all", "ann", "fay2"], ELSEWHERE),
        }

    def test_links_to_one_place_outside_are_one_person(self, tree):
        targets = {".eve": "eve", "all": "", "eve": "eve", "eve2": "eve", "tom": "tom"}
        for name, target in targets.items():
            (tree / name).symlink_to(Path("../out") / target)
        alone = dict.fromkeys(["all", "eve", "eve2", "tom"], OUTSIDE)
        hidden = {".eve": ("skipped", "hidden_file")}
        assert listed(tree) == {**REAL, **alone, **hidden}
        assert listed(tree, tree.parent / "out") == {
            **REAL,
            **hidden,
            "all": ELSEWHERE,
            "eve/4.jpg": OPEN,
            "eve2": ELSEWHERE,
            "tom/5.jpg": OPEN,
        }

    def test_hard_links_are_one_content(self, tree, tmp_path, face_data, model):
        photo = next(photos(face_data)).read_bytes()
        source = tmp_path / "hard"
        for name in ("ann/1.jpg", "bob/1.jpg"):
            (source / name).parent.mkdir(parents=True)
        put(source / "ann" / "1.jpg", photo)
        os.link(source / "ann" / "1.jpg", source / "ann" / "2.jpg")
        os.link(source / "ann" / "1.jpg", source / "bob" / "1.jpg")
        answer = enroll(source, tmp_path / "dest", model, "--alpha=16", "--tolerance=4", "--json")
        assert answer.code == 0, answer.err
        assert (answer.json()["subjects_enrolled"], answer.json()["subjects_not_enrolled"]) == (
            1,
            1,
        )
        assert outcomes(tmp_path / "dest") == {
            ("used", ""): 1,
            ("duplicate", "duplicate_content"): 1,
            ("duplicate", "duplicate_other_subject"): 1,
        }


class TestOwnFiles:
    def test_they_are_no_inputs_of_a_folder(self, tree):
        keys, dest = put(tree / "bob" / "keys.json"), tree.parent / "out"
        (tree / "cid" / "link.json").symlink_to(keys)
        (tree / "eve").symlink_to(dest / "eve")
        own = ("failed", "own_file")
        found = listed(tree, dest, own=(dest, keys))
        assert found == {**REAL, **dict.fromkeys(["bob/keys.json", "cid/link.json", "eve"], own)}

    @pytest.mark.parametrize("given", [True, False])
    def test_they_are_no_inputs_of_a_manifest(self, tmp_path, model, face_data, given, monkeypatch):
        """Those of the table, of the vault, and where they lie when nobody says it."""
        put(tmp_path / "in" / "a.jpg", next(photos(face_data)).read_bytes())
        dest, source = tmp_path / "in" / "dest", tmp_path / "in" / "m.csv"
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "in" / "config"))
        source.write_text("subject_id,uri\nann,a.jpg\n")
        keys = tmp_path / "in" / "k.json"
        common = [model, "--alpha=16", "--tolerance=4", "--vault", "--json"]
        common += [f"--keys={keys}"] if given else []
        first = enroll_as_it_is(source, dest, *common)
        assert first.code == 0, first.err
        kept = [keys, keys.with_name("k.vault.json")] if given else []
        kept = kept or sorted((tmp_path / "in" / "config").rglob("*.json"))
        assert [path.is_file() for path in kept] == [True, True]
        log = next((dest / "templates" / "_delta_log").glob("*.json"))
        own = [*kept, log, next(dest.rglob("part-*.parquet"))]
        lines = [f"own{place},{path}" for place, path in enumerate(own)]
        source.write_text("\n".join(["subject_id,uri", "ann,a.jpg", *lines, ""]))
        forecast = enroll_as_it_is(source, dest, *common, "--dry-run")
        assert forecast.json()["reasons"]["own_file"] == len(own)
        again = enroll_as_it_is(source, dest, *common)
        assert again.code == 3, again.err
        assert again.json()["reasons"] == {"already_enrolled": 1, "own_file": len(own)}
        assert not any(r["identities"] for r in rows(dest, "inputs") if r["outcome"] == "failed")


def enroll_as_it_is(source: Path, dest: Path, *more: object) -> Answer:
    """`ironmask enroll` where nobody has said where the keys lie."""
    return ironmask("enroll", source, dest, "--executor=local", *more)


class TestShapes:
    @pytest.mark.parametrize("more", [[], ["--dry-run"]])
    def test_a_flat_folder(self, face_data, tmp_path, model, more):
        source = cases.make(face_data, "32", tmp_path / "case") / "flat"
        answer = enroll(source, tmp_path / "dest", model, *more)
        assert answer.code == 1
        (error,) = answer.errors
        assert f"{source}: none of its 8 files lies in a folder of a person" in error
        assert not list((tmp_path / "dest").rglob("part-*"))

    def test_a_level_too_high(self, face_data, tmp_path, model):
        source = cases.make(face_data, "32", tmp_path / "case") / "unzipped"
        answer = enroll(source, tmp_path / "dest", model, "--dry-run", "--json")
        (line,) = answer.json()["warnings"]
        assert f"WARNING: {line}" in answer.err.splitlines()
        assert "1 of 1 subjects have no image in their own folder" in line
        assert "a level too high" in line
        assert "'lfw_dev'" in line

    def test_folders_of_years_below_a_person_are_no_mistake_where_photos_lie_beside(self, tree):
        put(tree / "cid" / "2020" / "6.jpg")
        put(tree / "cid" / "2021" / "7.jpg")
        assert taken(tree).warnings(named=True) == []

    @pytest.mark.parametrize("with_model", [True, False])
    def test_a_table_in_parts(self, tmp_path, face_data, with_model):
        source = tmp_path / "spark"
        source.mkdir()
        pq.write_table(pa.table({"subject_id": ["a"]}), source / "part-00000-1.snappy.parquet")
        (source / "_SUCCESS").touch()
        (source / "._SUCCESS.crc").touch()
        model = [f"--model={face_data / 'models' / 'buffalo_sc'}"] if with_model else []
        answer = enroll(source, tmp_path / "dest", *model)
        assert answer.code == 1
        assert "holds a table in parts" in answer.errors[0]
        (source / "_SUCCESS").unlink()
        answer = enroll(source, tmp_path / "dest", *model)
        assert answer.code == (1 if with_model else 2)
        assert len(answer.errors) == 1

    @pytest.mark.parametrize("names", [[], [".a/b.jpg"], [".hidden", ".a/b.jpg"], ["ann/.x.jpg"]])
    def test_a_folder_of_nothing(self, tmp_path, model, names):
        (tmp_path / "src").mkdir()
        for name in names:
            put(tmp_path / "src" / name)
        answer = enroll(tmp_path / "src", tmp_path / "dest", model)
        assert answer.code == 1
        assert len(answer.errors) == 1

    def test_files_of_whatever_kind_are_one_input_each(self, tree):
        os.mkfifo(tree / "bob" / "pipe.jpg")
        (tree / "bob" / "zero").symlink_to("/dev/zero")
        found = listed(tree, Path("/dev"))
        assert found == {**REAL, "bob/pipe.jpg": OPEN, "bob/zero": OPEN}

    def test_a_folder_that_may_not_be_listed_is_one_failed_input(self):
        with tempfile.TemporaryDirectory() as base, somebody(Path(base)):
            tree = Path(base) / "tree"
            shut = [tree / "ann", tree / "bob" / "deep"]
            for name in ("ann/1.jpg", "bob/1.jpg", "bob/2.jpg", "bob/deep/2.jpg"):
                put(tree / name)
            for place in (*shut, tree / "bob" / "2.jpg"):
                place.chmod(0)
            found = listed(tree)
            for place in shut:
                place.chmod(0o700)
        unreadable = dict.fromkeys(["ann", "bob/deep"], ("failed", "unreadable"))
        assert found == {"bob/1.jpg": OPEN, "bob/2.jpg": OPEN, **unreadable}


@contextmanager
def somebody(base: Path) -> Iterator[None]:
    """Not the superuser, who may list everything; a folder is theirs."""
    if os.geteuid() != 0:
        yield
        return
    os.chown(base, _NOBODY, -1)
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def taken(source: Path) -> Census:
    """What a folder looks like."""
    found = Census(str(source), SourceKind.FOLDER)
    for _ in found.passing(sources.read(str(source), SourceKind.FOLDER, FsspecStore())):
        pass
    return found


class TestNames:
    @pytest.fixture
    def told(self, tmp_path):
        def of(names: list[str], batch: int = 2) -> list[str]:
            found = Census("s", SourceKind.MANIFEST)
            columns = {"subject_id": names, "uri": names, "outcome": [None] * len(names)}
            table = pa.table({**columns, "reason": [""] * len(names)})
            for _ in found.passing(table.slice(at, batch) for at in range(0, len(table), batch)):
                pass
            assert found.people == len(set(names))
            assert not any("'" in line for line in found.warnings(named=False))
            return found.warnings(named=True)

        return of

    @pytest.mark.parametrize(
        ("names", "shown"),
        [
            (["Jos\u00e9", "Jose\u0301"], r"2 subjects .*: 'Jos\\xe9' and 'Jose\\u0301'"),
            (["x", "x", "x", "x "], "2 subjects .*: 'x' and 'x '"),
            ([" x", "x\t"], r"2 subjects .*: ' x' and 'x\\t'"),
            (["\u00a0Zo\u00eb", "a", "Zoe\u0308"], "2 subjects"),
            ([f"{n}{b}" for n in range(9) for b in ("", " ")], "18 subjects .*and 4 more"),
        ],
    )
    def test_those_that_differ_in_blanks_and_forms_alone(self, told, names, shown):
        (line,) = told(names)
        assert re.search(shown, line), line

    @pytest.mark.parametrize(
        "names", [["a", "b"], [" a", "b"], ["Jose\u0301"] * 3, ["Ann", "ANN"], ["a b", "a  b"]]
    )
    def test_others(self, told, names):
        assert told(names) == []

    def test_words_for_no_value(self, told):
        (line,) = told(["nan", "None", "Nanette", "n"])
        assert line.startswith("2 subjects are called as tables call a value that is absent")

    def test_little_is_kept_of_many(self, told, monkeypatch):
        monkeypatch.setattr(census, "_KEPT_CHARACTERS", 10)
        names = [f"{number:04d}{blank}" for number in range(500) for blank in ("", " ")]
        (line,) = told(names)
        assert line.startswith("4 subjects are told from others")

    def test_the_cases_are_told_on_the_terminal_and_in_json(self, face_data, tmp_path):
        folder = cases.make(face_data, "21", tmp_path / "case")
        for name in ("whitespace", "nfc_nfd"):
            source, dest = folder / f"{name}.parquet", tmp_path / name
            for more in (["--dry-run"], []):
                answer = enroll(source, dest, "--no-agreement", "--json", *more)
                assert answer.code == 0, answer.err
                (line,) = answer.json()["warnings"]
                assert "told from others by blanks" in line
                assert f"WARNING: {line}" in answer.err
        kept = [path.read_bytes() for path in (tmp_path / "nfc_nfd").rglob("*") if path.is_file()]
        assert not any(b"told from others" in content for content in kept)

    def test_a_pseudonymous_table_keeps_no_name(self, tmp_path):
        source = write_embeddings(tmp_path / "e.parquet", ["C4NARY", "C4NARY "], unit_vectors(2))
        answer = enroll(source, tmp_path / "dest", "--pseudonymous", "--json")
        assert "'C4NARY' and 'C4NARY '" in answer.json()["warnings"][0]
        kept = [path.read_bytes() for path in (tmp_path / "dest").rglob("*") if path.is_file()]
        assert not any(b"C4NARY" in content for content in kept)


def test_nobody_at_all_is_never_done(tmp_path):
    """Whose inputs all serve another person's template has none."""
    vectors = unit_vectors(2)
    dest = tmp_path / "dest"
    assert enroll(write_embeddings(tmp_path / "e.parquet", ["a"], vectors[:1]), dest).code == 0
    again = write_embeddings(tmp_path / "f.parquet", ["b"], vectors[:1])
    answer = enroll(again, dest, "--json")
    assert answer.code == 3
    assert "nobody could be enrolled" in answer.err
    assert answer.json()["subjects_not_enrolled"] == 1
    # Who has a template already is no such case.
    assert enroll(tmp_path / "e.parquet", dest).code == 0


def test_a_refused_source_leaves_a_table_as_it_was(tmp_path):
    good = write_embeddings(tmp_path / "e.parquet", ["a"], unit_vectors(1))
    dest = tmp_path / "dest"
    assert enroll(good, dest).code == 0
    latin = tmp_path / "m.parquet"
    names = pa.array([b"\xe9"])
    pq.write_table(pa.table({"subject_id": names, "embedding": [unit_vectors(1)[0]]}), latin)
    answer = enroll(latin, dest)
    assert (answer.code, len(answer.errors)) == (1, 1)
    assert "not UTF-8" in answer.errors[0]
    assert checked(dest).code == 0
    assert enroll(good, dest).code == 0


def test_a_census_of_nothing():
    found = Census("s", SourceKind.FOLDER)
    found.refuse_nobody()
    assert found.warnings(named=True) == []
    found.inputs = 1
    with pytest.raises(SourceError, match="hidden, empty or a link"):
        found.refuse_nobody()
