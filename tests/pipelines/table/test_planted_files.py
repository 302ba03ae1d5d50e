"""What lies beside the tables and was torn, or put there by others, is said in one line."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
from support.command import Answer, ironmask
from support.enrolling import PowerCutError, enroll, request, run, several
from support.marks import few
from support.table import copied, data_files, generation_keys, keys_of

from pipelines.table import destroyed_list, layout
from pipelines.table.destroy_generation import _take_out

PLANTED = {
    "text": b"garbage here\n",
    "another list": b"1 aa bb\n",
    "binary": b"\xff\xfe\0",
    "a wrong mac": b"mac " + b"0" * 64 + b"\n",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    run(request(several(folder / "e.parquet", 4), folder / "dest"))
    return folder / "dest"


@pytest.fixture
def dest(made: Path, tmp_path: Path) -> Path:
    shutil.copy(made.with_name("e.parquet"), tmp_path)
    return copied(made, tmp_path / "dest")


def command(name: str, dest: Path, *more: object) -> Answer:
    return ironmask(name, dest, f"--keys={keys_of(dest)}", *more)


def rekey(dest: Path) -> Answer:
    return command("rekey", dest, "--executor=local")


class TestListOfDestroyedFiles:
    def path(self, dest: Path) -> Path:
        found = Path(layout.destroyed_file(str(dest), 1))
        found.parent.mkdir(exist_ok=True)
        return found

    def listed(self, dest: Path) -> bytes:
        files = data_files(dest, "templates")
        return destroyed_list.of_files(
            {str(f.relative_to(dest / "templates")): f.stat().st_size for f in files}
        )

    def prove(self, dest: Path) -> Answer:
        return command("prove", dest, "--generation=1", "--json")

    @pytest.fixture
    def taken_out(self, dest: Path, monkeypatch) -> Path:
        """A destruction that was cut when the log listed none of the files any more."""

        def cut(held: object, number: int) -> None:
            _take_out(held, number)  # type: ignore[arg-type]
            raise PowerCutError

        self.own = self.listed(dest)
        with monkeypatch.context() as broken:
            broken.setattr("pipelines.table.destroy_generation._take_out", cut)
            with pytest.raises(PowerCutError):
                rekey(dest)
        return dest

    @pytest.mark.parametrize("planted", few([b"", *PLANTED.values()], b""))
    def test_one_that_was_planted_before_is_written_anew(self, dest, planted):
        own = self.listed(dest)
        self.path(dest).write_bytes(planted)
        assert rekey(dest).code == 0
        self.assert_proved(dest, own)

    def assert_proved(self, dest: Path, own: bytes) -> None:
        stored = self.path(dest).read_bytes()
        assert destroyed_list.without_mac(stored) == own
        assert destroyed_list.is_authentic(stored, 1, generation_keys(dest, 2).table)
        assert not destroyed_list.is_authentic(stored, 2, generation_keys(dest, 2).table)
        answer = self.prove(dest)
        assert answer.code == 0, answer.out
        assert answer.json()["record"]["their list"] == f"SHA-256 {sha256(own).hexdigest()}"

    def test_a_destruction_goes_on_with_its_list(self, taken_out):
        assert rekey(taken_out).code == 0
        self.assert_proved(taken_out, self.own)

    @pytest.mark.parametrize(
        "planted", few(PLANTED.values(), PLANTED["another list"]), ids=list(PLANTED)
    )
    def test_one_that_was_changed_meanwhile_is_refused(self, taken_out, planted):
        path = self.path(taken_out)
        before = path.read_bytes()
        path.write_bytes(planted)
        for _ in range(2):
            answer = rekey(taken_out)
            assert answer.code == 1
            (error,) = answer.errors
            assert "the list of the files of generation 1, was changed" in error
        path.write_bytes(before)
        assert rekey(taken_out).code == 0
        self.assert_proved(taken_out, self.own)

    def test_one_of_a_release_before_is_said_not_to_be_certain(self, taken_out):
        self.path(taken_out).write_bytes(self.own)
        assert rekey(taken_out).code == 0
        answer = self.prove(taken_out)
        assert answer.code == 0, answer.out
        assert (
            "not authenticated: a release before wrote it" in answer.json()["record"]["their list"]
        )

    def test_prove_finds_a_mac_that_is_gone_or_wrong(self, dest):
        assert rekey(dest).code == 0
        path = self.path(dest)
        stored = path.read_bytes()
        last = destroyed_list.without_mac(stored)
        for changed in (last, last + b"mac " + b"0" * 64 + b"\n", stored + b"\n", b""):
            path.write_bytes(changed)
            answer = self.prove(dest)
            assert answer.code == 1
            assert len(answer.json()["failures"]) == 1


NOTE = {
    "run_id": "0" * 12,
    "pseudonym": layout.PSEUDONYM + "0" * 32,
    "templates": 1,
    "outcomes": 1,
    "embeddings": 0,
}
NOTES = {
    "torn": b"{",
    "empty": b"",
    "binary": b"\xff\0",
    "a list": b"[]",
    "a number": b"7",
    "deep": b"[" * 100_000,
    "nothing in it": b"{}",
    "more in it": json.dumps({**NOTE, "more": 1}).encode(),
    "no texts": json.dumps({**NOTE, "run_id": 7}).encode(),
    "another text": json.dumps({**NOTE, "pseudonym": "s001"}).encode(),
    "no counts": json.dumps({**NOTE, "templates": "many"}).encode(),
    "less than nothing": json.dumps({**NOTE, "outcomes": -1}).encode(),
}


class TestNoteOfAnErasure:
    def all_of(self, dest: Path) -> list[Answer]:
        return [
            enroll(dest.with_name("e.parquet"), dest, "--shard-size=4"),
            command("reprotect", dest, "--executor=local"),
            command("erase", dest, "--subject=s001", "--yes"),
        ]

    @pytest.mark.slow
    def test_what_is_none(self, dest):
        path = Path(layout.erasure_file(str(dest)))
        for name, content in NOTES.items():
            path.write_bytes(content)
            for answer in self.all_of(dest):
                (error,) = answer.errors
                assert answer.code == 1, name
                assert "erasing.json is no note of an erasure" in error, name
        path.unlink()
        assert command("erase", dest, "--subject=s001", "--yes").code == 0

    def test_one_of_somebody_else(self, dest):
        Path(layout.erasure_file(str(dest))).write_text(json.dumps(NOTE))
        for answer in self.all_of(dest):
            (error,) = answer.errors
            assert "was broken off" in error
