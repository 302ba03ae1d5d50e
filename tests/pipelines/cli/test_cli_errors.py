"""What the user can put right: one clear line, the right exit code, and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.command import Answer, ironmask
from support.enrolling import enroll, request, run, several, unit_vectors, write_embeddings
from support.pictures import photos
from support.table import (
    assert_sound,
    copied,
    generation_keys,
    keys_of,
    open_tables,
    outcomes,
    rewrite,
    rows,
)

from infra.models.packs import find_pack
from infra.store import delta
from pipelines.run import steps
from pipelines.table import read
from pipelines.verification import probe

ERROR, USAGE = 1, 2


def refused(answer: Answer, code: int, *words: object) -> str:
    """One line that names all the words, the exit code, and no more."""
    assert answer.code == code, (answer.out, answer.err)
    assert len(answer.errors) == 1, answer.err
    assert answer.err.splitlines()[-1] == answer.errors[0]
    assert "Traceback" not in answer.err
    assert answer.out == ""
    for word in words:
        assert str(word) in answer.errors[0]
    return answer.errors[0]


def content(*places: Path) -> dict[str, bytes]:
    """Every file at and under some places."""
    files = [place for place in places if place.is_file()]
    files += [path for place in places for path in place.rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in files}


@pytest.fixture
def source(tmp_path) -> Path:
    return several(tmp_path / "e.parquet", 5)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    assert enroll(several(folder / "e.parquet", 5), folder / "dest").code == 0
    return folder / "dest"


@pytest.fixture
def dest(tmp_path, original) -> Iterator[Path]:
    """A destination with five subjects, which no refusal may change."""
    place = copied(original, tmp_path / "dest")
    before = content(place, keys_of(place))
    yield place
    now = content(place, keys_of(place))
    assert {path: now.get(path) for path in before} == before
    assert_sound(place, 10)


@pytest.fixture
def model(face_data) -> str:
    return f"--model={face_data / 'models' / 'buffalo_sc'}"


def verifies(dest: Path, subjects: int) -> None:
    """The first subjects answer for themselves and for nobody else."""
    table_id, keys, vectors = open_tables(dest).table_id, generation_keys(dest), unit_vectors(50)
    for number in range(subjects):
        row = read.find_row(open_tables(dest), f"s{number:03d}")
        probes = vectors[[number, number + 1]]
        assert probe.verify_embeddings(table_id, row, probes, keys) == [True, False]


class TestSource:
    def test_that_does_not_exist(self, tmp_path):
        absent = tmp_path / "nowhere"
        refused(enroll(absent, tmp_path / "d"), ERROR, absent, "does not exist", "give a folder")
        assert not (tmp_path / "d").exists()

    def test_an_empty_folder(self, tmp_path, model):
        (tmp_path / "empty").mkdir()
        refused(enroll(tmp_path / "empty", tmp_path / "d", model), ERROR, tmp_path / "empty")

    def test_that_is_neither_folder_nor_table(self, tmp_path):
        (tmp_path / "faces.zip").write_bytes(b"PK")
        answer = enroll(tmp_path / "faces.zip", tmp_path / "d")
        refused(answer, ERROR, tmp_path / "faces.zip", ".parquet or .csv")

    def test_an_unknown_address(self, tmp_path):
        answer = ironmask("enroll", "gopher://host/faces", tmp_path / "d", "--executor=local")
        refused(answer, ERROR, "gopher://host/faces", "s3://")

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (b"subject,uri\na,b.jpg\n", ["lacks the column subject_id"]),
            (b"subject_id,file\na,b.jpg\n", ["lacks the column uri"]),
            (b"subject_id,uri\na,b.jpg,c\n", ["cannot be read as CSV"]),
            (b"", ["cannot be read as CSV"]),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01", []),
        ],
    )
    def test_a_bad_csv(self, tmp_path, model, text, words):
        manifest = tmp_path / "m.csv"
        manifest.write_bytes(text)
        refused(enroll(manifest, tmp_path / "d", model), ERROR, manifest, *words)

    def test_no_parquet_under_that_name(self, tmp_path, model):
        manifest = tmp_path / "m.parquet"
        manifest.write_bytes(b"subject_id,uri\na,b.jpg\n")
        answer = enroll(manifest, tmp_path / "d", model)
        refused(answer, ERROR, manifest, "cannot be read as Parquet")

    def test_a_cut_parquet(self, tmp_path, source):
        source.write_bytes(source.read_bytes()[:-100])
        refused(enroll(source, tmp_path / "d"), ERROR, source, "cannot be read as Parquet")

    @pytest.mark.parametrize("kind", ["auto", "embeddings"])
    def test_a_parquet_without_embeddings(self, tmp_path, kind):
        source = tmp_path / "e.parquet"
        pq.write_table(pa.table({"subject_id": ["a"], "vector": [[1.0]]}), source)
        answer = enroll(source, tmp_path / "d", f"--kind={kind}")
        refused(answer, ERROR, source, "embedding")

    @pytest.mark.parametrize("kind", ["manifest", "folder"])
    def test_another_kind_than_said(self, tmp_path, source, model, kind):
        refused(enroll(source, tmp_path / "d", f"--kind={kind}", model), ERROR, source)

    def test_a_folder_said_to_be_embeddings(self, tmp_path):
        (tmp_path / "faces" / "ann").mkdir(parents=True)
        answer = enroll(tmp_path / "faces", tmp_path / "d", "--kind=embeddings")
        refused(answer, ERROR, tmp_path / "faces")

    def test_a_column_that_is_no_list_of_numbers(self, tmp_path):
        source = tmp_path / "e.parquet"
        pq.write_table(pa.table({"subject_id": ["a"], "embedding": ["1, 2, 3"]}), source)
        refused(enroll(source, tmp_path / "d"), ERROR, source, "lists of floats", "string")


class TestSettings:
    """Usage errors: nothing at all is written."""

    @pytest.mark.parametrize(
        ("option", "words"),
        [
            ("--preset=safest", ["'safest'", "paper", "balanced", "strict"]),
            ("--encoding=int7", ["'int7'", "int8", "float32"]),
            ("--centring=median", ["'median'", "mean", "regression"]),
            ("--executor=slurm", ["'slurm'", "ray", "local"]),
            ("--kind=video", ["'video'", "folder", "manifest", "embeddings"]),
            ("--provider=tpu", ["'tpu'", "cpu", "cuda"]),
            ("--face-policy=any", ["'any'", "dominant", "largest", "single"]),
            ("--det-size=100", ["100", "multiples of 32"]),
            ("--tolerance=12", ["tolerance is 12", "11"]),
            ("--tolerance=-1", ["tolerance is -1"]),
            ("--alpha=0", ["alpha is 0", "1..128"]),
            ("--alpha=129", ["alpha is 129", "1..128"]),
            ("--alpha=7", ["bits", "raise alpha"]),
        ],
    )
    def test_values_that_cannot_be_used(self, tmp_path, source, option, words):
        before = content(tmp_path)
        refused(enroll(source, tmp_path / "new", option), USAGE, *words)
        assert not (tmp_path / "new").exists()
        assert content(tmp_path) == before

    def test_too_many_digests(self, tmp_path, source):
        answer = enroll(source, tmp_path / "new", "--alpha=32", "--tolerance=16")
        refused(answer, USAGE, "digests", "lower the tolerance")
        assert not (tmp_path / "new").exists()

    def test_too_few_bits_are_named(self, tmp_path, source):
        answer = enroll(source, tmp_path / "new", "--alpha=6", "--tolerance=0")
        refused(answer, USAGE, "(38.3 bits", "40 bits", "raise alpha")

    @pytest.mark.parametrize(
        "option",
        [
            "--shard-size=0",
            "--workers=0",
            "--max-failures=-1",
            "--alpha=many",
            "--unknown",
            "extra",
        ],
    )
    def test_what_the_parser_refuses(self, tmp_path, source, option):
        answer = enroll(source, tmp_path / "new", option)
        assert answer.code == USAGE
        assert option.removeprefix("--").split("=")[0] in answer.err
        assert "Traceback" not in answer.err
        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize("missing", [["enroll"], ["verify"], ["inspect"], ["models", "pull"]])
    def test_arguments_that_are_missing(self, missing):
        answer = ironmask(*missing)
        assert answer.code == USAGE
        assert "Missing argument" in answer.err

    def test_an_unknown_setting_in_the_file(self, tmp_path, source):
        (tmp_path / "ironmask.toml").write_text('modle = "buffalo_sc"\n')
        refused(enroll(source, tmp_path / "new"), USAGE, "ironmask.toml", "modle")

    def test_a_bad_setting_in_the_environment(self, tmp_path, source, monkeypatch):
        monkeypatch.setenv("IRONMASK_LOG_LEVEL", "loud")
        refused(enroll(source, tmp_path / "new"), USAGE, "log_level")


PLAINTEXT = ["--plaintext-helpers", "--accept-risk=stolen-rows", "--code-width=64"]


class TestDestination:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--alpha=14"], ["alpha is 12 there and 14 here"]),
            (["--tolerance=0"], ["tolerance is 1 there and 0 here"]),
            (["--encoding=float16"], ["encoding is int8", "float16"]),
            (["--centring=regression"], ["centring is mean there and regression here"]),
            (["--model=another"], ["model is declared:unknown there and declared:another here"]),
            (PLAINTEXT, ["sealed is True there and False here"]),
            (["--alpha=14", "--tolerance=2"], ["alpha is 12", "tolerance is 1"]),
        ],
    )
    @pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry run"])
    def test_of_other_settings(self, dest, source, options, words, dry):
        answer = enroll(source, dest, *options, *dry)
        error = refused(answer, ERROR, dest, *words, "run `ironmask reprotect`")
        assert "model" in error or "--model" not in str(options)

    def test_of_another_width(self, dest, tmp_path):
        vectors = unit_vectors(3, width=128)
        wide = write_embeddings(tmp_path / "w.parquet", ["a", "b", "c"], vectors)
        refused(enroll(wide, dest), ERROR, dest, "n is 64 there and 128 here")

    def test_of_another_real_model(self, tmp_path, face_data):
        photo = next(photos(face_data))
        tree, dest = tmp_path / "tree", tmp_path / "d"
        shutil.copytree(photo.parent, tree / "ann")
        models = face_data / "models"
        assert enroll(tree, dest, f"--model={models / 'buffalo_sc'}").code == 0
        before = content(dest)
        other = f"--model={models / 'edgeface_s'}"
        refused(enroll(tree, dest, other), ERROR, dest, "model is")
        keys = f"--keys={keys_of(dest)}"
        answer = ironmask("verify", dest, "--subject=ann", keys, other, photo)
        refused(answer, ERROR, "'ann'", "--model")
        assert content(dest) == before

    @pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry run"])
    @pytest.mark.parametrize("below", ["", "deep/er"])
    def test_that_is_a_file(self, tmp_path, source, below, dry):
        place = tmp_path / "file"
        place.write_text("mine")
        refused(enroll(source, place / below, *dry), ERROR, place / below)
        assert place.read_text() == "mine"

    def test_whose_folders_hold_something_else(self, tmp_path, source):
        """Only what enrolment made is ever destroyed there."""
        mine = [tmp_path / "d" / name / "mine.jpg" for name in ("inputs", "templates/2020")]
        for path in mine:
            path.parent.mkdir(parents=True)
            path.write_bytes(b"precious")
        enroll(source, tmp_path / "d")
        assert [path.read_bytes() for path in mine if path.exists()] == [b"precious"] * 2

    def test_strangers_beside_data_files_survive_a_second_run(self, tmp_path, source):
        place = tmp_path / "d"
        assert enroll(source, place).code == 0
        mine = place / "inputs" / "notes.txt"
        mine.write_text("precious")
        enroll(source, place)
        assert mine.exists()

    @pytest.mark.parametrize("name", ["with space", "100%", "a=b", "é", "#?&*'{}", "d" * 200])
    def test_of_an_odd_name(self, tmp_path, source, name):
        place = tmp_path / name
        answer = enroll(source, place, keys=tmp_path / "keys.json")
        assert answer.code == 0, answer.err
        assert_sound(place, 10)
        there = {path.name for path in tmp_path.iterdir()}
        assert there == {"e.parquet", "keys.json", ".keys.json.lock", name}
        assert ironmask("inspect", place).code == 0

    @pytest.mark.parametrize(
        "name",
        [b"\xff", b"new\nline", b"tab\t", b"100%41", b"[x]", b"x[/b]", b"a|b", b"a^b", b"a\\b"],
    )
    def test_of_a_name_that_deltalake_cannot_use(self, tmp_path, source, name):
        place, before = tmp_path / os.fsdecode(name), content(tmp_path)
        for command in (["enroll", source, place, "--executor=local"], ["inspect", place]):
            answer = ironmask(*command)
            assert answer.code in (ERROR, USAGE), answer.out
            refused(answer, answer.code, tmp_path)
        assert content(tmp_path) == before

    @pytest.mark.parametrize("command", ["inspect", "verify"])
    @pytest.mark.parametrize("name", ["absent", "file", "folder"])
    def test_without_a_table(self, tmp_path, name, command):
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").touch()
        more = ["--subject=s000", "probe.jpg"] if command == "verify" else []
        answer = ironmask(command, tmp_path / name, *more)
        refused(answer, ERROR, tmp_path / name, "holds no table", "enrol")

    def test_held_by_another_process(self, dest, source):
        with held(dest):
            refused(enroll(source, dest), ERROR, dest, "in use", "wait")
            assert ironmask("inspect", dest).code == 0
        assert enroll(source, dest, "--dry-run").code == 0


HOLD = """
import sys
from infra.store.lease import lease
from infra.store.objects import FsspecStore
with lease(sys.argv[1], FsspecStore()):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(dest: Path) -> Iterator[None]:
    command = [sys.executable, "-c", HOLD, str(dest)]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        yield
        holder.communicate("")


class TestKeys:
    def test_that_are_missing(self, dest, source):
        place = keys_of(dest).with_name("moved.json")
        keys_of(dest).rename(place)
        refused(enroll(source, dest), ERROR, "no keyset file", keys_of(dest), "--keys")
        assert not keys_of(dest).exists()
        place.rename(keys_of(dest))

    def test_of_another_table(self, dest, source, tmp_path):
        other = tmp_path / "other"
        assert enroll(source, other).code == 0
        answer = enroll(source, dest, keys=keys_of(other))
        refused(answer, ERROR, keys_of(other), open_tables(dest).table_id, "--keys")

    def test_that_others_may_read(self, dest, source):
        keys_of(dest).chmod(0o644)
        refused(enroll(source, dest), ERROR, f"chmod 600 {keys_of(dest)}")

    @pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[]"])
    def test_that_are_damaged(self, dest, source, damage):
        damaged = keys_of(dest).with_name("damaged.json")
        damaged.write_bytes(damage)
        damaged.chmod(0o600)
        refused(enroll(source, dest, keys=damaged), ERROR, damaged)
        assert damaged.read_bytes() == damage

    def test_that_are_changed_inside(self, dest, source):
        changed = keys_of(dest).with_name("changed.json")
        parts = json.loads(keys_of(dest).read_text())
        sealed = parts["generations"]["1"]["data"]
        parts["generations"]["1"]["data"] = ("B" if sealed[40] == "A" else "A").join(
            [sealed[:40], sealed[41:]]
        )
        changed.write_text(json.dumps(parts))
        changed.chmod(0o600)
        error = refused(enroll(source, dest, keys=changed), ERROR, "was changed")
        assert sealed not in error

    def test_that_are_a_folder(self, dest, source, tmp_path):
        (tmp_path / "folder").mkdir()
        refused(enroll(source, dest, keys=tmp_path / "folder"), ERROR, tmp_path / "folder")

    @pytest.mark.parametrize("below", ["keys.json", "_ironmask/keys.json", "../d/keys.json"])
    def test_inside_the_table(self, tmp_path, source, below):
        place = tmp_path / "d"
        answer = enroll(source, place, keys=place / below)
        refused(answer, USAGE, "inside the table", place, "keep it elsewhere")
        assert not place.exists()

    def test_inside_the_table_through_a_link(self, tmp_path, source):
        place, link = tmp_path / "d", tmp_path / "link"
        place.mkdir()
        link.symlink_to(place)
        answer = enroll(source, place, keys=link / "keys.json")
        refused(answer, USAGE, "inside the table", "keep it elsewhere")
        answer = enroll(source, link, keys=place / "keys.json")
        refused(answer, USAGE, "inside the table", "keep it elsewhere")
        assert not list(place.rglob("*.json"))

    def test_wrapped_by_an_unknown_service(self, tmp_path, source):
        answer = enroll(source, tmp_path / "d", "--kek=vault-of-mine://key")
        refused(answer, ERROR, "vault-of-mine://key", "aws-kms://")
        assert not keys_of(tmp_path / "d").exists()

    def test_a_changed_helper_is_refused_by_verify(self, tmp_path, face_data, model):
        photo = next(photos(face_data))
        tree, dest = tmp_path / "tree", tmp_path / "d"
        (tree / "ann").mkdir(parents=True)
        shutil.copy(photo, tree / "ann")
        assert enroll(tree, dest, model).code == 0

        def flip(content: list[dict[str, bytes]]) -> None:
            helper = bytearray(content[0]["helper"])
            helper[len(helper) // 2] ^= 1
            content[0]["helper"] = bytes(helper)

        rewrite(next((dest / "templates").rglob("part-*.parquet")), flip)
        keys = f"--keys={keys_of(dest)}"
        answer = ironmask("verify", dest, "--subject=ann", keys, model, photo)
        refused(answer, ERROR, "is not what was written", "restore it")


class TestModel:
    @pytest.fixture
    def tree(self, tmp_path, face_data) -> Path:
        shutil.copytree(next(photos(face_data)).parent, tmp_path / "tree" / "ann")
        return tmp_path / "tree"

    def test_not_named(self, tmp_path, tree):
        refused(enroll(tree, tmp_path / "d"), USAGE, "--model", "IRONMASK_MODEL")

    def test_unknown_name(self, tmp_path, tree):
        answer = enroll(tree, tmp_path / "d", "--model=buffalo_xxl")
        refused(answer, ERROR, "'buffalo_xxl'", "ironmask models pull", tmp_path / "models")

    @pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "tree"])
    def test_folder_without_models(self, tmp_path, tree, name):
        refused(enroll(tree, tmp_path / "d", f"--model={name}"), ERROR, name, "ONNX files")

    def test_detector_alone(self, tmp_path, tree, face_data):
        (tmp_path / "half").mkdir()
        shutil.copy(face_data / "models" / "buffalo_sc" / "det_500m.onnx", tmp_path / "half")
        answer = enroll(tree, tmp_path / "d", f"--model={tmp_path / 'half'}")
        refused(answer, ERROR, tmp_path / "half", "no recogniser")

    @pytest.mark.parametrize("name", ["det_500m.onnx", "w600k_mbf.onnx"])
    def test_one_flipped_bit(self, tmp_path, tree, face_data, name):
        pack = tmp_path / "pack"
        shutil.copytree(face_data / "models" / "buffalo_sc", pack)
        pack.chmod(0o700)
        weights = bytearray((pack / name).read_bytes())
        weights[len(weights) // 2] ^= 1
        (pack / name).chmod(0o600)
        (pack / name).write_bytes(weights)
        answer = enroll(tree, tmp_path / "d", f"--model={pack}")
        refused(answer, ERROR, pack / name, "expected sha256", "pull the pack again")
        assert not (tmp_path / "d").exists()

    @pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
    def test_no_such_gpu(self, tmp_path, tree, model, provider):
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            pytest.skip("this machine has a GPU build of onnxruntime")
        place = tmp_path / "d"
        answer = enroll(tree, place, model, f"--provider={provider}")
        refused(answer, ERROR, f"'{provider}'", "ironmask[gpu]", "'cpu'")
        # What the message advises works.
        answer = enroll(tree, place, model, "--provider=cpu")
        assert answer.code == 0, answer.err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["buffalo_xxl"], ["'buffalo_xxl'", "buffalo_sc", "--source"]),
            (["buffalo_sc", "--source=/nowhere"], ["/nowhere", "no such folder"]),
            (["buffalo_l", "--source=pypi"], ["buffalo_l", "pypi", "insightface"]),
            (["../up"], ["'../up'"]),
        ],
    )
    def test_that_cannot_be_pulled(self, tmp_path, arguments, words):
        refused(ironmask("models", "pull", *arguments), ERROR, *words)
        assert not list((tmp_path / "models").glob("*"))


class TestProbes:
    @pytest.fixture
    def ask(self, tmp_path, face_data, model):
        tree, dest = tmp_path / "tree", tmp_path / "d"
        shutil.copytree(next(photos(face_data)).parent, tree / "ann")
        assert enroll(tree, dest, model).code == 0
        keys = f"--keys={keys_of(dest)}"
        return lambda *more: ironmask("verify", dest, keys, *more)

    def test_mistakes(self, ask, model, face_data, tmp_path):
        photo = next(photos(face_data))
        refused(ask("--subject=bob", model, photo), ERROR, "no template of subject 'bob'")
        # No pack is in the models' folder, so none has the fingerprint that the row records.
        digits = find_pack(str(face_data / "models" / "buffalo_sc")).fingerprint[:12]
        answer = ask("--subject=ann", photo)
        refused(answer, ERROR, digits, "ironmask models pull buffalo_sc", "--model")
        absent = tmp_path / "absent.jpg"
        refused(ask("--subject=ann", model, photo, absent), ERROR, absent, "does not exist")
        refused(ask("--subject=ann", model, tmp_path), ERROR, tmp_path)
        answer = ask("--subject=ann", model, photo, f"--keys={tmp_path / 'nokeys'}")
        refused(answer, ERROR, "no keyset file", tmp_path / "nokeys")


class Stopping:
    """An executor whose machine fails after some shards."""

    def __init__(self, inner, shards):
        self._inner, self._left = inner, shards
        self.standing = inner.standing

    def run(self, job, plan, shards):
        for result in self._inner.run(job, plan, shards):
            if not self._left:
                raise RuntimeError("the machine fails here")
            self._left -= 1
            yield result


class TestUnfinished:
    @pytest.fixture
    def dest(self, tmp_path, source, monkeypatch) -> Path:
        """Five subjects in shards of two; the first shard is committed."""
        place = tmp_path / "unfinished"
        monkeypatch.setattr(steps, "WAVE_SHARDS", 1)
        with pytest.raises(RuntimeError, match="fails here"):
            run(request(source, place), executor=lambda inner: Stopping(inner, 1))
        assert len(rows(place, "templates")) == 2
        return place

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--shard-size=5"], ["configuration", "shard_size: 4 then, 5 now"]),
            (["--shard-size=4", "--face-policy=single"], ["dominant", "single"]),
            (["--shard-size=4", "--alpha=14"], ["alpha is 12 there and 14 here"]),
            (["--shard-size=4", "--model=another"], ["model is", "declared:another"]),
        ],
    )
    def test_goes_on_with_its_own_settings_only(self, dest, source, options, words):
        committed = content(dest / "templates", dest / "inputs", dest / "runs")
        refused(enroll(source, dest, *options), ERROR, dest, *words)
        assert content(dest / "templates", dest / "inputs", dest / "runs") == committed
        answer = enroll(source, dest, "--shard-size=4", "--json")
        assert answer.code == 0, answer.err
        summary = json.loads(answer.out)
        assert (summary["resumed_shards"], summary["subjects_enrolled"]) == (1, 5)
        assert_sound(dest, 10)
        verifies(dest, 5)

    def test_refuses_another_source_by_name(self, dest, tmp_path):
        other = several(tmp_path / "other.parquet", 3, seed=5)
        refused(enroll(other, dest, "--shard-size=4"), ERROR, dest, "source", other)


@contextmanager
def small_disk(at: Path, size: str) -> Iterator[Path]:
    """A file system of a fixed size."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("a small disk can be mounted by root alone")
    at.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(at)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """A file that takes all of a disk but some bytes."""
    ballast = disk / "ballast"
    status = os.statvfs(disk)
    size = max(status.f_bavail * status.f_frsize - leave, 0)
    with ballast.open("wb") as handle:
        os.posix_fallocate(handle.fileno(), 0, max(size, 1))
    return ballast


@pytest.fixture
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(delta, "_FIRST_PAUSE_S", 0.001)


@pytest.mark.usefixtures("impatient")
class TestFullDisk:
    @pytest.fixture
    def disk(self, tmp_path) -> Iterator[Path]:
        with small_disk(tmp_path / "disk", "1m") as mounted:
            yield mounted

    @pytest.mark.slow
    def test_what_was_enrolled_stays_and_the_rest_follows(self, tmp_path, source, disk):
        dest = disk / "dest"
        keys = tmp_path / "keys.json"
        assert enroll(source, dest, keys=keys).code == 0
        first = rows(dest, "templates")
        larger = several(tmp_path / "l.parquet", 250)
        again = [larger, dest, "--shard-size=20", "--json"]
        refused(enroll(*again, keys=keys), ERROR, dest, "No space left on device")
        now = rows(dest, "templates")
        assert [row for row in first if row not in now] == []
        assert not list(dest.rglob(".part-*")), "a partial file survives"
        keys_of(dest).symlink_to(keys)
        verifies(dest, 5)
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        answer = enroll(*again, keys=keys)
        assert answer.code == 0, answer.err
        assert_sound(dest)
        assert len(rows(dest, "templates")) == 250
        assert outcomes(dest) == {("used", ""): 500, ("skipped", "already_enrolled"): 10}
        verifies(dest, 30)

    @pytest.mark.parametrize("left", [0, 8, 16, 20, 36, 64])
    def test_wherever_the_space_ends(self, tmp_path, source, disk, left):
        """left: free KiB when the second run starts."""
        dest = disk / "dest"
        assert enroll(source, dest).code == 0
        first = rows(dest, "templates")
        second = several(tmp_path / "s.parquet", 8)
        ballast = fill(disk, left * 1024)
        answer = enroll(second, dest, "--shard-size=4")
        if answer.code:
            refused(answer, ERROR, dest)
        assert [row for row in first if row not in rows(dest, "templates")] == []
        ballast.unlink()
        answer = enroll(second, dest, "--shard-size=4")
        assert answer.code == 0, answer.err
        assert_sound(dest)
        assert len(rows(dest, "templates")) == 8
        verifies(dest, 8)

    @pytest.mark.parametrize("left", [0, 8, 16, 40])
    def test_at_a_new_destination(self, source, disk, left):
        dest = disk / "dest"
        ballast = fill(disk, left * 1024)
        answer = enroll(source, dest)
        if answer.code:
            refused(answer, ERROR, disk)
        ballast.unlink()
        answer = enroll(source, dest)
        assert answer.code == 0, answer.err
        assert_sound(dest)
        verifies(dest, 5)

    def test_a_disk_for_reading_only(self, source, disk):
        dest = disk / "dest"
        assert enroll(source, dest).code == 0
        before = content(dest)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        refused(enroll(source, dest), ERROR, dest, "Read-only file system")
        assert ironmask("inspect", dest).code == 0
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert content(dest) == before
