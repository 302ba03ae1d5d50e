"""A verifier that is kept: what it opens once, what it tells many threads, what it lets go."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from support.command import ironmask
from support.enrolling import captures, enroll, request, run, several, unit_vectors
from support.pictures import photos
from support.table import keys_of, verifier

from infra.keys.keysets import TinkGenerationKeys
from infra.store.objects import FsspecStore
from ironmask.errors import ParameterError, SubjectError, TableError, TemplateError
from pipelines.setup import ports
from pipelines.spec.faces import FaceSettings
from pipelines.table import layout
from pipelines.verification.models import Models
from pipelines.verification.probe import OpenedRow
from pipelines.verification.verifier import Verifier

PEOPLE = 6
NAMES = [f"s{number:03d}" for number in range(PEOPLE)]
PROBES = unit_vectors(PEOPLE)

_events: list[tuple[str, str]] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _events is None:
        return
    if event == "open" and not isinstance(arguments[0], int):
        _events.append((event, os.fsdecode(arguments[0])))
    elif event == "subprocess.Popen":
        _events.append((event, ""))


# An audit hook stays as long as the process; it notes what happens inside of `noted` alone.
sys.addaudithook(_note)


@contextmanager
def noted() -> Iterator[list[tuple[str, str]]]:
    """Files that the interpreter opens, and processes that it starts, meanwhile."""
    global _events
    _events = []
    try:
        yield _events
    finally:
        _events = None


def files_below(events: list[tuple[str, str]], folder: Path) -> list[str]:
    """Which of the opened files lie in a folder, relative to it."""
    base = f"{folder}/"
    return [text.removeprefix(base) for event, text in events if text.startswith(base)]


class Counting(FsspecStore):
    """A real store that counts its requests."""

    def __init__(self) -> None:
        super().__init__()
        self.requests = 0

    def read(self, uri: str, limit: int | None = None) -> bytes:
        self.requests += 1
        return super().read(uri, limit)

    def part(self, uri: str, start: int, end: int) -> bytes:
        self.requests += 1
        return super().part(uri, start, end)

    def after(self, uri: str, name: str) -> list[str]:
        self.requests += 1
        return super().after(uri, name)


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    made = tmp_path / "dest"
    run(request(several(tmp_path / "e.parquet", PEOPLE), made, shard_size=64))
    return made


def rekey(dest: Path) -> None:
    answer = ironmask("rekey", dest, f"--keys={keys_of(dest)}", "--executor=local")
    assert answer.code == 0, answer.err


def erase(dest: Path, subject: str) -> None:
    answer = ironmask("erase", "--yes", dest, f"--subject={subject}", f"--keys={keys_of(dest)}")
    assert answer.code == 0, answer.err


class TestOpensOnce:
    def test_keys_and_seal(self, dest):
        with verifier(dest) as held, noted() as events:
            assert held.verify_embeddings("s000", PROBES[:1]) == [True]
            first = files_below(events, dest.parent)
            events.clear()
            for _ in range(10):
                for name, probe in zip(NAMES, PROBES, strict=True):
                    assert held.verify_embeddings(name, probe[None]) == [True]
            again = files_below(events, dest.parent)
        assert keys_of(dest).name in first
        assert again
        assert {Path(path).parent for path in again} == {Path("dest/templates/generation=1")}

    def test_a_refresh_without_news_opens_the_seal_alone(self, dest):
        with verifier(dest) as held:
            held.verify_embeddings("s000", PROBES[:1])
            with noted() as events:
                assert not held.refresh()
            seal = Path(layout.seal_file(str(dest))).relative_to(dest.parent)
            assert files_below(events, dest.parent) == [str(seal)]

    def test_a_row_is_decrypted_once_for_all_probes(self, dest, monkeypatch):
        calls = []
        decrypt = TinkGenerationKeys.decrypt

        def counted(self: TinkGenerationKeys, ciphertext: bytes, associated: bytes) -> bytes:
            calls.append(len(ciphertext))
            return decrypt(self, ciphertext, associated)

        monkeypatch.setattr(TinkGenerationKeys, "decrypt", counted)
        with verifier(dest) as held:
            held.verify_embeddings("s000", PROBES[:1])
            for_one = list(calls)
            calls.clear()
            held.verify_embeddings("s000", PROBES)
            assert calls == for_one
            calls.clear()
            held.verify_embeddings_many({"s000": PROBES})
            assert calls == for_one

    def test_rows_of_many_people_are_read_together(self, dest, monkeypatch):
        store = Counting()
        with monkeypatch.context() as patched:
            patched.setattr(ports, "open_store", lambda _: store)
            held = verifier(dest)
        held.verify_embeddings("s000", PROBES[:1])
        store.requests = 0
        held.verify_embeddings("s000", PROBES[:1])
        for_one, store.requests = store.requests, 0
        asked = {name: PROBES[[at]] for at, name in enumerate(NAMES)}
        said = held.verify_embeddings_many(asked)
        assert [verdict.accepted for (verdict,) in said.values()] == [True] * PEOPLE
        # Six people lie in one row group.
        assert store.requests == for_one

    def test_models(self, tmp_path, face_data):
        """Without --model, of the pack that the fingerprint names."""
        shutil.copytree(face_data / "models" / "buffalo_sc", tmp_path / "models" / "buffalo_sc")
        photo = next(photos(face_data))
        shutil.copytree(photo.parent, tmp_path / "tree" / "ann")
        dest = tmp_path / "dest"
        assert enroll(tmp_path / "tree", dest, "--model=buffalo_sc").code == 0
        with verifier(dest) as held, noted() as events:
            assert [verdict.accepted for verdict in held.verify("ann", [str(photo)])] == [True]
            models = files_below(events, tmp_path / "models")
            processes = [event for event, _ in events].count("subprocess.Popen")
            assert {Path(path).name for path in models} >= {"det_500m.onnx", "w600k_mbf.onnx"}
            assert processes == 1
            events.clear()
            content = photo.read_bytes()
            with ThreadPoolExecutor(4) as pool:
                asked = [pool.submit(held.verify, "ann", [("mine", content)]) for _ in range(12)]
            answers = [verdict for one in asked for verdict in one.result()]
            assert [(one.probe, one.accepted) for one in answers] == [("mine", True)] * 12
            assert files_below(events, tmp_path / "models") == []
            assert "subprocess.Popen" not in [event for event, _ in events]


def test_a_model_is_not_loaded_once_it_was_let_go(face_data):
    """Nobody would end the process of its decoder."""
    models = Models(str(face_data / "models" / "buffalo_sc"))
    pack = models.pack("")
    models.close()
    with pytest.raises(ParameterError, match="is closed"):
        models.loaded(pack, FaceSettings())


class Paused:
    """`OpenedRow.matches` that waits in its first call, until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go_on = Event(), Event()
        self.calls = 0
        matches = OpenedRow.matches

        def waiting(row: OpenedRow, embeddings: Any) -> list[bool]:
            self.calls += 1
            if self.calls == 1:
                self.reached.set()
                assert self.go_on.wait(120)
            return matches(row, embeddings)

        monkeypatch.setattr(OpenedRow, "matches", waiting)


class TestManyThreads:
    def change_meanwhile(self, held: Verifier, paused: Paused, change: Callable[[], object]) -> Any:
        """Ask for s000, change the table and refresh while the answer is under way."""
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(held.verify_embeddings, "s000", PROBES[:1])
            assert paused.reached.wait(120)
            try:
                change()
            finally:
                paused.go_on.set()
            return asked.result()

    def test_no_answer_of_a_generation_that_a_refresh_dropped(self, dest, monkeypatch):
        paused = Paused(monkeypatch)

        def change() -> None:
            rekey(dest)
            assert held.refresh()

        with verifier(dest) as held:
            assert self.change_meanwhile(held, paused, change) == [True]
            assert paused.calls == 2
            assert held.generation("s000") == 2

    def test_nobody_is_accepted_after_a_refresh_that_tells_of_the_erasure(self, dest, monkeypatch):
        paused = Paused(monkeypatch)

        def change() -> None:
            erase(dest, "s000")
            assert held.refresh()

        with verifier(dest) as held, pytest.raises(SubjectError, match="holds no template"):
            self.change_meanwhile(held, paused, change)

    def test_no_answer_once_it_is_closed(self, dest, monkeypatch):
        paused = Paused(monkeypatch)
        held = verifier(dest)
        with pytest.raises(ParameterError, match="is closed"):
            self.change_meanwhile(held, paused, held.close)

    def test_an_answer_without_news_is_given_once(self, dest, monkeypatch):
        paused = Paused(monkeypatch)
        with verifier(dest) as held:
            assert self.change_meanwhile(held, paused, held.refresh) == [True]
        assert paused.calls == 1

    @pytest.mark.slow
    def test_all_are_right_while_the_table_changes(self, dest, tmp_path):
        """Readers go on while people join and generations change, each told by a refresh."""
        done = Event()
        with verifier(dest) as held:

            def ask(seed: int) -> list[tuple[bool, bool]]:
                rng = np.random.default_rng(seed)
                seen = []
                while not done.is_set() or not seen:
                    whose, probe = (int(one) for one in rng.integers(PEOPLE, size=2))
                    if seed % 2:
                        (said,) = held.verify_embeddings(NAMES[whose], PROBES[[probe]])
                    else:
                        many = held.verify_embeddings_many({NAMES[whose]: PROBES[[probe]]})
                        said = bool(many[NAMES[whose]][0].accepted)
                    seen.append((said, whose == probe))
                return seen

            with ThreadPoolExecutor(6) as pool:
                readers = [pool.submit(ask, seed) for seed in range(6)]
                try:
                    more = several(tmp_path / "more.parquet", PEOPLE + 2)
                    assert enroll(more, dest).code == 0
                    assert held.refresh()
                    rekey(dest)
                    assert held.refresh()
                    rekey(dest)
                    assert held.refresh()
                finally:
                    done.set()
            for reader in readers:
                seen = reader.result()
                assert all(said == right for said, right in seen)
            assert held.generation("s000") == 3
            new = unit_vectors(PEOPLE + 2)[[PEOPLE]]
            assert held.verify_embeddings(f"s{PEOPLE:03d}", new) == [True]


class TestAnswers:
    def test_many_people_at_once(self, dest):
        strange = np.array([[np.nan] * 64, [0.0] * 64], np.float32)
        with verifier(dest) as held:
            said = held.verify_embeddings_many(
                {
                    "s001": PROBES[:2],
                    "nobody": PROBES[:2],
                    "s000": [PROBES[0], PROBES[0, :32], *strange],
                    "s002": PROBES[:0],
                }
            )
        assert list(said) == ["s001", "nobody", "s000", "s002"]
        assert [one.accepted for one in said["s001"]] == [False, True]
        assert [(one.accepted, one.reason) for one in said["nobody"]] == [(None, "no_template")] * 2
        assert "'nobody'" in said["nobody"][0].detail
        assert [(one.accepted, one.reason) for one in said["s000"]] == [
            (True, ""), (None, "wrong_width"), (None, "not_finite"), (None, "zero_norm"),
        ]  # fmt: skip
        assert said["s002"] == []

    def test_more_people_than_are_held_at_once(self, dest, monkeypatch):
        monkeypatch.setattr("pipelines.verification.verifier._TOGETHER", 2)
        with verifier(dest) as held:
            asked = dict.fromkeys([*NAMES, "nobody"], PROBES)
            said = held.verify_embeddings_many(asked)
        for at, name in enumerate(NAMES):
            assert [one.accepted for one in said[name]] == [one == at for one in range(PEOPLE)]
        assert {one.accepted for one in said["nobody"]} == {None}

    def test_images_of_somebody_without_a_template_need_no_model(self, dest):
        with verifier(dest) as held:
            said = held.verify_many({"nobody": ["a.jpg", ("b", b"")]})
        assert [(one.probe, one.accepted, one.reason) for one in said["nobody"]] == [
            ("a.jpg", None, "no_template"), ("b", None, "no_template"),
        ]  # fmt: skip

    def test_one_alone_raises(self, dest):
        with verifier(dest) as held:
            with pytest.raises(SubjectError, match="no template of subject 'nobody'") as found:
                held.verify("nobody", ["a.jpg"])
            assert found.value.reason == "no_template"
            with pytest.raises(TemplateError):
                held.verify_embeddings("s000", PROBES[:, :32])
            with pytest.raises(ParameterError, match="a list of addresses"):
                held.verify("s000", "a.jpg")
            with pytest.raises(ParameterError, match="not UTF-8"):
                held.verify_embeddings("\udcff", PROBES)

    def test_what_is_no_embedding(self, dest):
        odd: Any = [PROBES[0].tolist(), "x", None, object(), {}, [1.0, [2.0]]]
        with verifier(dest) as held:
            said = held.verify_embeddings_many({"s000": odd})["s000"]
            assert [one.accepted for one in said] == [True, *[None] * 5]
            assert {one.reason for one in said[1:]} == {"wrong_width"}
            for wrong in odd[1:]:
                with pytest.raises(TemplateError):
                    held.verify_embeddings("s000", wrong)

    @pytest.mark.parametrize("subject", [None, 3, b"s000", ("s000",)], ids=repr)
    def test_what_is_no_id(self, dest, subject):
        with verifier(dest) as held, pytest.raises(ParameterError, match="no subject's id"):
            held.verify_embeddings(subject, PROBES)

    def test_it_tells_no_secret_of_itself(self, dest):
        with verifier(dest) as held:
            held.verify_embeddings("s000", PROBES[:1])
            assert repr(held) == f"Verifier({str(dest)!r})"

    def test_closed(self, dest):
        with verifier(dest) as held:
            pass
        for ask in (held.refresh, lambda: held.verify_embeddings("s000", PROBES)):
            with pytest.raises(ParameterError, match="is closed"):
                ask()


def test_a_seal_that_was_changed_is_refused_each_time(dest):
    with verifier(dest) as held:
        path = Path(layout.seal_file(str(dest)))
        sound = path.read_bytes()
        path.write_bytes(sound.replace(b"templates", b"temqlates", 1))
        assert path.read_bytes() != sound
        for _ in range(2):
            with pytest.raises(TableError):
                held.refresh()
        path.write_bytes(sound)
        assert not held.refresh()
        assert held.verify_embeddings("s000", captures(PROBES[:1], 1)) == [True]
