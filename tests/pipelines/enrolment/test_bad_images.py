"""Folders and manifests full of what people put there, through the command line."""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.command import Answer, ironmask
from support.enrolling import enroll
from support.pictures import (
    animated,
    blurred,
    bomb,
    claimed_size,
    file_bytes,
    noise,
    photos,
    shrunk,
    side_by_side,
    sideways,
)
from support.table import assert_sound, keys_of, open_tables, rows, told

from pipelines.spec.faces import FaceSettings
from pipelines.spec.outcomes import Reason
from pipelines.spec.texts import visible
from pipelines.table import read

CANARY = b"canary-7f31-in-the-content"
USED = ("used", "")
FAILED, SKIPPED, DUPLICATE = "failed", "skipped", "duplicate"

ODD_NAMES = [
    "Zoë Müller",
    "李雷",
    "e\u0301 decomposed",
    "é composed",
    "a=b",
    "generation=9",
    "100%41 %2F %",
    'it\'s "quoted"',
    "two\nlines\r\ttab",
    "[red] [bold]",
    "{braces} $HOME `id`",
    "-rf",
    "#?&;|*",
    "back\\slash",
    "C:",
    "trailing ",
    "😀",
    "right\u202eleft",
    "n" * 255,
    "é" * 127,
]


@dataclass
class Tree:
    """A folder of subjects, and what must become of each address in it."""

    root: Path
    expected: dict[str, tuple[str, str]] = field(default_factory=dict)
    subjects: set[str] = field(default_factory=set)

    def put(self, name: str, content: bytes, outcome: tuple[str, str]) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.expect(path, outcome)
        return path

    def expect(self, path: Path, outcome: tuple[str, str]) -> None:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        self.expected[shown] = outcome
        if outcome == USED:
            self.subjects.add(path.relative_to(self.root).parts[0])


def sound_subjects(tree: Tree, faces: Iterator[Path]) -> None:
    for name in ODD_NAMES:
        tree.put(f"{name}/1.jpg", next(faces).read_bytes(), USED)
    for number, name in enumerate(ODD_NAMES):
        stem = name if len(name.encode()) > 200 else f"{name}.jpg"
        tree.put(f"odd files/{stem}", noise(100 + number), (FAILED, Reason.NO_FACE))
    tree.put("odd files/album.jpg/deep/er/1.jpg", next(faces).read_bytes(), USED)
    tree.put("sideways/1.png", sideways(next(faces)), USED)
    tree.put("no ending/photo", next(faces).read_bytes(), USED)
    tree.put("wrong ending/photo.txt", next(faces).read_bytes(), USED)


def damaged_files(tree: Tree, photo: Path) -> None:
    """Beside one sound photo; `wreck` has nothing else."""
    sound = photo.read_bytes()
    tree.put("mixed/0 sound.jpg", sound, USED)
    commented = file_bytes(Image.open(photo), "JPEG", comment=CANARY)
    bad = {
        "truncated.jpg": (commented[: len(commented) // 2], Reason.TRUNCATED),
        "headless.jpg": (sound[:20], Reason.TRUNCATED),
        "truncated.png": (noise()[:-4_000], Reason.TRUNCATED),
        "zero.jpg": (b"", Reason.EMPTY_FILE),
        "text.jpg": (b"no picture, but a " + CANARY, Reason.NOT_AN_IMAGE),
        "page.jpg": (b"<!DOCTYPE html><html>" + CANARY, Reason.NOT_AN_IMAGE),
        "nulls.jpg": (bytes(5_000), Reason.NOT_AN_IMAGE),
        "claim.png": (claimed_size(60_000, 60_000), Reason.TOO_MANY_PIXELS),
        "claim all.png": (claimed_size(2**31 - 1, 2**31 - 1), Reason.TOO_MANY_PIXELS),
        "bomb.png": (bomb(), Reason.TOO_MANY_PIXELS),
        "still.gif": (file_bytes(Image.open(photo), "GIF"), Reason.FORMAT_NOT_ALLOWED),
        "moving.gif": (animated("GIF"), Reason.FORMAT_NOT_ALLOWED),
        "scan.jpg": (file_bytes(Image.open(photo), "TIFF"), Reason.FORMAT_NOT_ALLOWED),
        "paper.jpg": (b"%PDF-1.7 " + CANARY, Reason.FORMAT_NOT_ALLOWED),
        "moving.png": (animated("PNG"), Reason.ANIMATED),
        "moving.webp": (animated("WEBP"), Reason.ANIMATED),
        "broken.png": (claimed_size(300, 300), Reason.DECODE_FAILED),
    }
    for name, (content, reason) in bad.items():
        tree.put(f"mixed/{name}", content, (FAILED, reason))
    tree.put("wreck/1.jpg", commented[:-3_000], (FAILED, Reason.TRUNCATED))
    tree.put("wreck/2.jpg", b"\xff\xd8\xff" + CANARY + b"\xff\xd9", (FAILED, Reason.DECODE_FAILED))


def unusable_faces(tree: Tree, faces: Iterator[Path]) -> None:
    left, right = next(faces), next(faces)
    tree.put("faces/two.png", side_by_side(left, right), (FAILED, Reason.SEVERAL_FACES))
    tree.put("faces/none.png", noise(1), (FAILED, Reason.NO_FACE))
    tree.put("faces/dot.png", file_bytes(Image.new("RGB", (1, 1))), (FAILED, Reason.NO_FACE))
    tree.put("faces/strip.png", file_bytes(Image.new("L", (5_000, 1))), (FAILED, Reason.NO_FACE))
    tree.put("faces/tiny.png", shrunk(left), (FAILED, Reason.FACE_TOO_SMALL))
    tree.put("faces/blurred.png", blurred(left), (FAILED, Reason.FACE_BLURRED))


def duplicates(tree: Tree, faces: Iterator[Path]) -> None:
    first, second = next(faces).read_bytes(), next(faces).read_bytes()
    tree.put("twice/1.jpg", first, USED)
    tree.put("twice/2.jpg", first, (DUPLICATE, Reason.DUPLICATE_CONTENT))
    tree.put("under two a/1.jpg", second, USED)
    tree.put("under two b/1.jpg", second, (DUPLICATE, Reason.DUPLICATE_OTHER_SUBJECT))


def no_inputs(tree: Tree, faces: Iterator[Path]) -> None:
    photo = next(faces).read_bytes()
    tree.put("stray.jpg", photo, (SKIPPED, Reason.NO_SUBJECT))
    tree.put(".hidden at the top", photo, (SKIPPED, Reason.HIDDEN_FILE))
    tree.put("mixed/.DS_Store", b"x", (SKIPPED, Reason.HIDDEN_FILE))
    tree.put("mixed/.thumbs/1.jpg", photo, (SKIPPED, Reason.HIDDEN_FILE))
    tree.put(".hidden/1.jpg", photo, (SKIPPED, Reason.HIDDEN_FILE))
    (tree.root / "empty").mkdir()
    tree.expect(tree.root / "empty", (SKIPPED, Reason.EMPTY_SUBJECT))
    (tree.root / "only folders" / "1.jpg").mkdir(parents=True)
    tree.expect(tree.root / "only folders", (SKIPPED, Reason.EMPTY_SUBJECT))


def unreadable_files(tree: Tree) -> None:
    folder = tree.root / "mixed"
    (folder / "dangling.jpg").symlink_to("nowhere")
    tree.expect(folder / "dangling.jpg", (FAILED, Reason.UNREADABLE))
    if os.geteuid() != 0:  # root may read everything
        locked = tree.put("mixed/locked.jpg", b"x", (FAILED, Reason.UNREADABLE))
        locked.chmod(0)
    # A pipe is no file, and reading one would never end.
    os.mkfifo(folder / "pipe.jpg")
    tree.expect(folder / "pipe.jpg", (FAILED, Reason.NOT_A_REGULAR_FILE))
    limit = FaceSettings().max_bytes
    large = tree.put("mixed/large.jpg", b"", (FAILED, Reason.TOO_LARGE))
    os.truncate(large, limit + 1)


def names_that_are_not_utf8(tree: Tree, faces: Iterator[Path]) -> None:
    photo = next(faces).read_bytes()
    for name in (b"latin \xe9.jpg", b"mangled \xff/1.jpg"):
        path = Path(os.fsdecode(os.fsencode(tree.root) + b"/" + name))
        if b"/" not in name:
            path = tree.root / "mixed" / path.name
        try:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(photo)
        except OSError:
            continue  # this file system takes UTF-8 alone
        tree.expect(path, (FAILED, Reason.NAME_NOT_UTF8))


def build(root: Path, face_data: Path) -> Tree:
    faces = photos(face_data)
    tree = Tree(root)
    sound_subjects(tree, faces)
    damaged_files(tree, next(faces))
    unusable_faces(tree, faces)
    duplicates(tree, faces)
    no_inputs(tree, faces)
    unreadable_files(tree)
    names_that_are_not_utf8(tree, faces)
    return tree


@dataclass(frozen=True)
class Enrolled:
    tree: Tree
    dest: Path
    model: str
    answer: Answer
    summary: dict[str, Any]
    settled: list[dict[str, Any]]


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory, face_data: Path) -> Enrolled:
    folder = tmp_path_factory.mktemp("bad")
    tree = build(folder / "tree", face_data)
    dest = folder / "dest"
    model = f"--model={face_data / 'models' / 'buffalo_sc'}"
    answer = enroll(tree.root, dest, model, "--shard-size=20", "--json")
    assert answer.code == 3, answer.err
    return Enrolled(tree, dest, model, answer, json.loads(answer.out), rows(dest, "inputs"))


class TestFolder:
    def test_every_input_has_the_one_row_it_deserves(self, enrolled):
        found = {row["uri"]: (row["outcome"], row["reason"]) for row in enrolled.settled}
        assert found == enrolled.tree.expected
        assert len(enrolled.settled) == len(enrolled.tree.expected)
        assert_sound(enrolled.dest, len(enrolled.tree.expected))

    def test_reasons_come_from_the_closed_list(self, enrolled):
        assert {row["reason"] for row in enrolled.settled} <= set(Reason)

    def test_every_sound_subject_is_enrolled(self, enrolled):
        found = {row["subject_id"]: row["images_used"] for row in rows(enrolled.dest, "templates")}
        assert found == dict.fromkeys(enrolled.tree.subjects, 1)
        assert set(ODD_NAMES) <= set(found)

    def test_odd_names_are_found(self, enrolled):
        for name in ODD_NAMES:
            row = read.find_row(open_tables(enrolled.dest), name)
            assert row["source_uris"] == [str(enrolled.tree.root / name / "1.jpg")]

    def test_the_summary_adds_up(self, enrolled):
        summary = enrolled.summary
        expected = Counter(outcome for outcome, _ in enrolled.tree.expected.values())
        assert {name: summary[name] for name in expected} == expected
        assert summary["inputs"] == expected.total() == len(enrolled.tree.expected)
        reasons = Counter(str(reason) for _, reason in enrolled.tree.expected.values() if reason)
        assert summary["reasons"] == reasons
        assert summary["subjects_enrolled"] == len(enrolled.tree.subjects)

    def test_subjects_with_nothing_usable_are_counted(self, enrolled):
        tried = {r["subject_id"] for r in enrolled.settled if r["outcome"] != "skipped"}
        missed = tried - enrolled.tree.subjects
        assert {"wreck", "faces"} <= missed
        assert enrolled.summary["subjects_not_enrolled"] == len(missed)

    def test_details_tell_people_and_quote_nothing(self, enrolled):
        for row in enrolled.settled:
            detail = told(enrolled.dest, row).get("detail", "")
            assert row["detail"] == ""
            assert (detail != "") or row["reason"] in ("", Reason.HIDDEN_FILE), row
            assert detail.isprintable()
            assert len(detail) < 600
            assert "\\x" not in detail or row["reason"] == Reason.NAME_NOT_UTF8

    def test_no_content_is_kept_or_printed(self, enrolled):
        said = (enrolled.answer.out + enrolled.answer.err).encode()
        kept = [path.read_bytes() for path in enrolled.dest.rglob("*") if path.is_file()]
        assert not any(CANARY in text for text in [said, *kept])

    def test_what_was_seen_of_a_face_is_kept(self, enrolled):
        for row in enrolled.settled:
            facts = told(enrolled.dest, row)
            if row["outcome"] == "used":
                assert facts["faces"] >= 1
                assert facts["box"][0] < facts["box"][2]
                assert facts["quality"] > 0
            if row["reason"] in ("unreadable", "too_large", "name_not_utf8", "hidden_file"):
                assert row["identities"] is None
                assert "contents" not in facts

    def test_failures_below_the_limit_are_no_failure_of_the_run(self, enrolled):
        answer = enroll(
            enrolled.tree.root,
            enrolled.dest,
            enrolled.model,
            "--max-failures=1000",
            "--shard-size=20",
        )
        assert answer.code == 0, answer.err
        again = [row for row in rows(enrolled.dest, "inputs") if row not in enrolled.settled]
        assert {row["outcome"] for row in again} == {"failed", "skipped", "duplicate"}
        assert len(again) == len(enrolled.tree.expected)
        assert f"failed {sum(row['outcome'] == 'failed' for row in again)}" in plain(answer.out)
        assert len(rows(enrolled.dest, "templates")) == len(enrolled.tree.subjects)

    def test_probes_of_the_same_kinds_get_no_answer(self, enrolled):
        folder = enrolled.tree.root
        names = ["mixed/bomb.png", "mixed/zero.jpg", "mixed/text.jpg", "faces/two.png"]
        sound = folder / "[red] [bold]" / "1.jpg"
        answer = ironmask(
            "verify",
            enrolled.dest,
            "--subject=[red] [bold]",
            f"--keys={keys_of(enrolled.dest)}",
            enrolled.model,
            "--json",
            sound,
            *(folder / name for name in names),
        )
        assert answer.code == 3, answer.err
        found = [(verdict["accepted"], verdict["reason"]) for verdict in json.loads(answer.out)]
        reasons = [enrolled.tree.expected[str(folder / name)][1] for name in names]
        assert found == [(True, ""), *((None, reason) for reason in reasons)]

    @pytest.mark.parametrize("name", ["[red] [bold]", "two\nlines\r\ttab", "-rf", "n" * 255])
    def test_odd_names_are_verified_and_shown(self, enrolled, name):
        probe = enrolled.tree.root / name / "1.jpg"
        keys = f"--keys={keys_of(enrolled.dest)}"
        answer = ironmask("verify", enrolled.dest, f"--subject={name}", keys, enrolled.model, probe)
        assert answer.code == 0, answer.err
        assert "accepted" in answer.out
        assert plain(visible(name, keep="\n"))[:20] in plain(answer.out)


def plain(text: str) -> str:
    """A table's words without its lines."""
    return " ".join(word for word in text.split() if word not in "│┃|")


def write_manifest(path: Path, pairs: list[tuple[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["subject_id", "uri"])
        writer.writerows(pairs)
    return path


class TestManifest:
    def test_bad_rows_beside_sound_ones(self, tmp_path, face_data):
        faces = photos(face_data)
        folder = tmp_path / "folder.jpg"
        folder.mkdir()
        long = "x" * 1_000
        listed = [
            ("ann", next(faces)),
            ("", next(faces)),
            ("nobody", ""),
            (long, next(faces)),
            ("é" * 1_000, next(faces)),
            ("folder", folder),
            ("absent", tmp_path / "absent.jpg"),
            ("too long", f"/{'d' * 300}.jpg"),
            ("longer than any path", f"/{'d/' * 3_000}"),
            ("unknown scheme", "gopher://host/photo.jpg"),
        ]
        source = write_manifest(tmp_path / "m.csv", listed)
        dest = tmp_path / "dest"
        model = f"--model={face_data / 'models' / 'buffalo_sc'}"
        answer = enroll(source, dest, model, "--allow-root=/")
        assert answer.code == 3, answer.err
        found = {row["subject_id"]: (row["outcome"], row["reason"]) for row in rows(dest, "inputs")}
        unreadable = (FAILED, Reason.UNREADABLE)
        assert found == {
            "ann": USED,
            "": (FAILED, Reason.NO_SUBJECT),
            "nobody": (FAILED, Reason.BAD_ADDRESS),
            long: USED,
            "é" * 1_000: USED,
            "folder": (FAILED, Reason.NOT_A_REGULAR_FILE),
            "absent": unreadable,
            "too long": unreadable,
            "longer than any path": unreadable,
            "unknown scheme": (FAILED, Reason.BAD_ADDRESS),
        }
        assert_sound(dest, len(listed))
        assert read.find_row(open_tables(dest), long)["subject_id"] == long

    def test_an_id_like_markup_is_shown_as_it_is(self, tmp_path, face_data):
        photo = next(photos(face_data))
        source = write_manifest(tmp_path / "m.csv", [("[/b] [red]", photo)])
        dest = tmp_path / "dest"
        model = f"--model={face_data / 'models' / 'buffalo_sc'}"
        assert enroll(source, dest, model, f"--allow-root={face_data}").code == 0
        keys = f"--keys={keys_of(dest)}"
        answer = ironmask("verify", dest, "--subject=[/b] [red]", keys, model, photo)
        assert answer.code == 0, answer.err
        assert "[/b] [red]" in answer.out

    def test_an_address_that_no_file_can_have(self, tmp_path, face_data):
        photo = next(photos(face_data))
        source = write_manifest(tmp_path / "m.csv", [("ann", photo), ("nul", "/tmp/a\0b.jpg")])
        dest = tmp_path / "dest"
        model = f"--model={face_data / 'models' / 'buffalo_sc'}"
        answer = enroll(source, dest, model, f"--allow-root={face_data}")
        assert answer.code == 3, answer.err
        found = {row["subject_id"]: row["reason"] for row in rows(dest, "inputs")}
        assert found == {"ann": "", "nul": Reason.BAD_ADDRESS}

    def test_a_pipe_is_unreadable_and_not_waited_for(self, tmp_path, local_store):
        pipe = tmp_path / "pipe.jpg"
        os.mkfifo(pipe)
        found = settled_within(5, lambda: next(local_store.read_many([str(pipe)], 1_000)), pipe)
        assert isinstance(found, OSError)


def settled_within(seconds: float, work: Any, pipe: Path) -> Any:
    """What `work` returns; the pipe is opened for it where it hangs."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        os.close(os.open(pipe, os.O_WRONLY))
        thread.join(seconds)
        pytest.fail("reading a pipe waited for somebody to write into it")
    return found[0]


def test_a_link_to_itself_is_one_unreadable_input(tmp_path, face_data):
    tree = Tree(tmp_path / "tree")
    tree.put("ann/1.jpg", next(photos(face_data)).read_bytes(), USED)
    for link in (tree.root / "ann" / "circle.jpg", tree.root / "circle"):
        link.symlink_to(link.name)
    tree.expect(tree.root / "ann" / "circle.jpg", (FAILED, Reason.UNREADABLE))
    tree.expect(tree.root / "circle", (SKIPPED, Reason.NO_SUBJECT))
    dest = tmp_path / "dest"
    answer = enroll(tree.root, dest, f"--model={face_data / 'models' / 'buffalo_sc'}")
    assert answer.code == 3, answer.err
    found = {row["uri"]: (row["outcome"], row["reason"]) for row in rows(dest, "inputs")}
    assert found == tree.expected


HUGE = """
import resource, sys
from pipelines import cli
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv.pop(1)),) * 2)
cli.main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS"), reason="memory cannot be limited here")
def test_a_file_larger_than_memory_is_too_large(tmp_path, face_data):
    """It is neither held whole to tell its content from others' nor to be decoded."""
    tree = Tree(tmp_path / "tree")
    tree.put("ann/1.jpg", next(photos(face_data)).read_bytes(), USED)
    huge = tree.put("huge/1.jpg", b"", (FAILED, Reason.TOO_LARGE))
    os.truncate(huge, 8 << 30)
    dest = tmp_path / "dest"
    command = [sys.executable, "-c", HUGE, str(6 << 30), "enroll", str(tree.root), str(dest)]
    command += ["--executor=local", f"--keys={keys_of(dest)}"]
    command += [f"--model={face_data / 'models' / 'buffalo_sc'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3, done.stderr
    found = {row["uri"]: (row["outcome"], row["reason"]) for row in rows(dest, "inputs")}
    assert found == tree.expected
