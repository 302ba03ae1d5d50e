"""A shard whose models are elsewhere: the same rows, and nothing on its way that can be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.enrolling import request, run
from support.faces import photographs
from support.memory_keys import MemoryKeyring
from support.shared import faces_and_model
from support.table import rows, told

from ironmask.errors import ParameterError, TamperedError
from pipelines.run.work import Answer, Standing, Work
from pipelines.setup.hosted import ShardModels
from pipelines.setup.workplace import ShardExecutor
from pipelines.shard.transit import DETECT, EMBED, Channel

PEOPLE, EACH = 12, 3
OWN = {"template_id", "run_id", "enrolled_at", "helper", "digests", "key_id", "details"}
OWN |= {"identities"}


@dataclass
class Elsewhere:
    """An engine whose host answers in threads, and that notes what travels."""

    standing: Standing = field(default_factory=Standing)
    travelled: list[tuple[Any, ...]] = field(default_factory=list)
    open: int = 0
    most: int = 0

    def run(self, work: Work, units: Iterable[int]) -> Iterator[Any]:
        assert work.hosted is not None
        host = work.hosted.host(*work.common)
        host.load()
        with ThreadPoolExecutor(4) as threads:

            def ask(*question: Any) -> Answer:
                self.open += 1
                self.most = max(self.most, self.open)
                future: Future[Any] = threads.submit(host.answer, *question)

                def answer() -> Any:
                    self.open -= 1
                    found = future.result()
                    self.travelled.append((*question, found))
                    return found

                return answer

            for unit in units:
                yield work.hosted.function(*work.common, ask, unit)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, and some that fail."""
    try:
        faces, _ = faces_and_model()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("source")
    for name, paths in list(photographs(faces).items())[:PEOPLE]:
        (folder / name).mkdir()
        for number, path in enumerate(paths[:EACH]):
            (folder / name / f"{number}.jpg").write_bytes(path.read_bytes())
    (folder / name / "cut.jpg").write_bytes(paths[0].read_bytes()[:4000])
    (folder / name / "text.jpg").write_text("no picture")
    return folder


def enrolled(source: Path, dest: Path, engine: Elsewhere | None = None) -> dict[str, Any]:
    """Rows as any two runs share them, with what is encrypted in them."""

    def elsewhere(inner: Any) -> Any:
        return inner if engine is None else replace(inner, engine=engine)

    _, model = faces_and_model()
    chosen = {"model": str(model), "alpha": None, "tolerance": None, "shard_size": 20}
    run(request(source, dest, **chosen), elsewhere)
    facts = {row["uri"]: _facts(told(dest, row)) for row in rows(dest, "inputs")}
    found = {
        name: sorted(
            ({k: v for k, v in row.items() if k not in OWN} for row in rows(dest, name)), key=str
        )
        for name in ("inputs", "templates")
    }
    return {"facts": facts, **found}


def _facts(details: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in details.items() if k != "contents"}


def test_the_rows_are_the_same_and_nothing_travels_in_the_clear(source, tmp_path) -> None:
    engine = Elsewhere()
    there, here = enrolled(source, tmp_path / "a", engine), enrolled(source, tmp_path / "b")
    assert there == here
    assert len(here["templates"]) == PEOPLE
    kinds = Counter(what for _, what, *_ in engine.travelled)
    assert kinds[DETECT] > 2
    assert kinds[EMBED] == 2
    # A shard has no more on its way than the batch that is looked at and the one that waits.
    assert engine.most == 2
    for _, _, _, asked, answered in engine.travelled:
        for sealed in (asked, answered):
            spread = np.bincount(np.frombuffer(sealed, np.uint8), minlength=256) / len(sealed)
            assert len(sealed) < 4096 or spread.max() < 0.01, "it is no noise"


@pytest.fixture
def channel() -> Channel:
    keys = MemoryKeyring("table")
    keys.add_generation(1)
    return Channel(keys.generation(1), "r", 3)


def test_arrays_come_out_as_they_went_in(channel: Channel) -> None:
    given = [np.arange(6, dtype=np.uint8).reshape(1, 2, 3), np.empty((0, 5), np.float32)]
    asked = channel.asked(DETECT, 1, channel.question(DETECT, 1, *given))
    answered = channel.answered(DETECT, 1, channel.answer(DETECT, 1, *given))
    for found in (asked, answered):
        for before, after in zip(given, found, strict=True):
            assert (after.dtype, after.shape, after.tobytes()) == (
                before.dtype, before.shape, before.tobytes(),
            )  # fmt: skip


def test_what_belongs_elsewhere_is_refused(channel: Channel) -> None:
    given = np.arange(4)
    sealed, answer = channel.question(DETECT, 1, given), channel.answer(DETECT, 1, given)
    other_shard, other_run = replace(channel, shard=4), replace(channel, run_id="s")
    for refused in (
        lambda: channel.asked(DETECT, 2, sealed),
        lambda: channel.asked(EMBED, 1, sealed),
        lambda: other_shard.asked(DETECT, 1, sealed),
        lambda: other_run.asked(DETECT, 1, sealed),
        lambda: channel.answered(DETECT, 1, sealed),
        lambda: channel.asked(DETECT, 1, answer),
        lambda: channel.answered(DETECT, 2, answer),
        lambda: channel.asked(DETECT, 1, sealed[:-1] + bytes([sealed[-1] ^ 1])),
    ):
        with pytest.raises(TamperedError):
            refused()


def test_a_host_answers_its_two_questions_alone(source, tmp_path) -> None:
    """Also a question that is sealed as it should be."""
    caught: list[ShardModels] = []

    @dataclass
    class Caught(Elsewhere):
        def run(self, work: Work, units: Iterable[int]) -> Iterator[Any]:
            assert work.hosted is not None
            caught.append(work.hosted.host(*work.common))
            return super().run(work, units)

    enrolled(source, tmp_path / "dest", Caught())
    host = caught[0]
    sealed = host._channel(0).question("export", 0, np.arange(3))
    with pytest.raises(ParameterError, match="no question"):
        host.answer(0, "export", 0, sealed)


def test_executors_say_how_the_engine_stands() -> None:
    engine = Elsewhere()
    assert ShardExecutor(engine, None).standing is engine.standing  # type: ignore[arg-type]
