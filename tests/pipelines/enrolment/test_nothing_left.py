"""What can be known before anything is written is refused before, and leaves nothing behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tink
from support.command import Answer, ironmask
from support.enrolling import enroll, several
from support.pictures import photos
from support.table import assert_sound, keys_of
from tink import aead

from infra.models import packs


class Service(aead.Aead):
    """A key service that encrypts, and does not permit to decrypt."""

    def __init__(self) -> None:
        handle = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
        self._inner = handle.primitive(aead.Aead)

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        return self._inner.encrypt(plaintext, associated_data)

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        raise tink.TinkError(ConnectionError("not permitted"))


class Client(tink.KmsClient):
    def does_support(self, key_uri: str) -> bool:
        return key_uri.startswith("half-a-service://")

    def get_aead(self, key_uri: str) -> aead.Aead:
        return Service()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with what the refusals need; whatever else is there afterwards was left behind."""
    several(tmp_path / "e.parquet", 4)
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "file").write_text("x")
    (tmp_path / "nobody").mkdir()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    return tmp_path


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


REFUSED = {
    "a key service that is not known": ("e.parquet", "d", "--kek=no-such://x"),
    "a key service that does not answer": ("e.parquet", "d", "--kek=aws-kms://arn:aws:kms:x"),
    "a key service that does not decrypt": ("e.parquet", "d", "--kek=half-a-service://x"),
    "keys of another table": ("e.parquet", "d", "--keys=other.json"),
    "keys below a file": ("e.parquet", "d", "--keys=file/k.json"),
    "keys in a folder of others": ("e.parquet", "d", "--keys=open/k.json"),
    "keys inside the table": ("e.parquet", "d", "--keys=d/k.json"),
    "keys of the vault below a file": ("e.parquet", "d", "--vault", "--vault-keys=file/v.json"),
    "one file for both": ("e.parquet", "d", "--vault", "--keys=k.json", "--vault-keys=k.json"),
    "a destination below a file": ("e.parquet", "file/d"),
    "a model that is not there": ("nobody", "d", "--model=no-such-model"),
    "a cluster that does not answer": ("e.parquet", "d", "--executor=ray", "--ray-address=[::1]:1"),
    "a parameter": ("e.parquet", "d", "--alpha=1000"),
    "a risk": ("e.parquet", "d", "--plaintext-helpers"),
    "a calibration that is not there": ("e.parquet", "d", "--calibration=none.parquet"),
}


@pytest.mark.parametrize("words", REFUSED.values(), ids=REFUSED)
def test_a_refusal_leaves_nothing(place, monkeypatch, words):
    monkeypatch.chdir(place)
    tink.register_kms_client(Client())
    before = everything(place)
    answer = enrol(*words)
    assert answer.code in (1, 2), answer.err
    assert len(answer.errors) == 1
    assert everything(place) == before


def test_nothing_to_retry_leaves_nothing(place, monkeypatch):
    monkeypatch.chdir(place)
    before = everything(place)
    answer = enrol("e.parquet", "d", "--retry-failed")
    assert answer.code == 0, answer.err
    assert "nothing to retry" in answer.err
    assert everything(place) == before


@pytest.mark.parametrize(
    ("source", "option", "said"),
    [
        ("nobody", "--provider=cpu", "lists no input"),
        ("people", "--provider=cuda", "is not active"),
    ],
)
def test_of_photographs(place, monkeypatch, face_data, source, option, said):
    (place / "people" / "ann").mkdir(parents=True)
    shutil.copy(next(photos(face_data)), place / "people" / "ann")
    monkeypatch.chdir(place)
    before = everything(place)
    model = face_data / "models" / "buffalo_sc"
    answer = ironmask("enroll", source, "d", "--executor=local", f"--model={model}", option)
    assert answer.code == 1
    assert said in answer.errors[0]
    assert everything(place) == before


def test_a_recogniser_that_has_gone_since_leaves_nothing(place, monkeypatch, face_data):
    """Found when the run was prepared, and not any more where its workers are."""
    (place / "people" / "ann").mkdir(parents=True)
    shutil.copy(next(photos(face_data)), place / "people" / "ann")
    shutil.copytree(face_data / "models" / "buffalo_sc", place / "model")
    monkeypatch.chdir(place)
    width = packs.embedding_width

    def take_away(pack: packs.ModelPack) -> int:
        found = width(pack)
        pack.recogniser.unlink()
        return found

    monkeypatch.setattr(packs, "embedding_width", take_away)
    before = everything(place)
    answer = ironmask("enroll", "people", "d", "--executor=local", "--model=./model")
    assert answer.code == 1
    assert "not on this machine" in answer.errors[0]
    assert everything(place) == {path for path in before if path.exists()}


def enrol(source: str, dest: str, *more: str) -> Answer:
    return ironmask(
        "enroll", source, dest, "--executor=local", "--alpha=12", "--tolerance=1", *more
    )


def test_a_reprotection_that_finds_no_cluster_changes_neither_keys_nor_table(place):
    dest = place / "d"
    assert enroll(place / "e.parquet", dest).code == 0
    before = {path: path.read_bytes() for path in everything(place) if path.is_file()}
    answer = ironmask(
        "reprotect", dest, f"--keys={keys_of(dest)}", "--ray-address=[::1]:1", "--no-prefect"
    )
    assert answer.code == 1
    assert {path: path.read_bytes() for path in everything(place) if path.is_file()} == before
    assert_sound(dest, 8)


def test_an_evaluation_that_finds_no_cluster_leaves_nothing(place):
    before = everything(place)
    answer = ironmask("evaluate", place / "e.parquet", place / "out", "--ray-address=[::1]:1")
    assert answer.code == 1
    assert everything(place) == before
