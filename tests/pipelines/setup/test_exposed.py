"""The figures of a run, scraped while it works: all of them, and nothing that names anybody."""

from __future__ import annotations

import platform
import socket
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from support.enrolling import (
    after_first,
    captures,
    enroll,
    request,
    run,
    unit_vectors,
    write_embeddings,
)
from support.prefect import free_port

from infra.exposition import _Asked
from pipelines.setup import exposed
from pipelines.spec.outcomes import Outcome, Reason
from pipelines.table.schemas import TABLES

SUBJECTS = [f"Canary-{number}-Person" for number in range(12)]
LISTS = {
    "outcome": {outcome.value for outcome in Outcome},
    "reason": {reason.value for reason in Reason},
    "stage": {*exposed.STAGES, "other"},
    "table": {*TABLES, "other"},
    "purpose": {"enrol"},
}


def canaries(path: Path) -> Path:
    """Two embeddings of each subject, one of them zero for the last subject."""
    names = [name for name in SUBJECTS for _ in range(2)]
    vectors = captures(unit_vectors(len(SUBJECTS)), 2)
    vectors[-1] = np.zeros_like(vectors[-1])
    return write_embeddings(path / "Secret-Source.parquet", names, vectors)


def scraped(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def values(text: str) -> dict[tuple[str, ...], float]:
    """Samples by their names and the values of their labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def exposition() -> str:
    """What a scrape would give now."""
    registry = CollectorRegistry()
    registry.register(_Asked(exposed.metrics))
    return generate_latest(registry).decode()


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    found = free_port()
    monkeypatch.setenv("IRONMASK_METRICS_PORT", str(found))
    return found


def test_a_scrape_counts_and_names_nobody(tmp_path: Path, port: int) -> None:
    """It is taken once the first of six shards is finished and the next was not begun."""
    source, dest = canaries(tmp_path), tmp_path / "Secret-Dest"
    before, texts = values(exposition()), []
    done = run(request(source, dest), after_first(lambda: texts.append(scraped(port))))
    (text,) = texts
    for word in [*SUBJECTS, "Canary", "Secret", str(tmp_path), tmp_path.name, platform.node()]:
        assert word not in text
    first, last = values(text), values(exposition())

    def grown(name: str, *labels: str) -> tuple[float, float]:
        key = (name, *labels)
        start = before.get(key, 0.0)
        return first.get(key, 0.0) - start, last.get(key, 0.0) - start

    assert grown("ironmask_inputs_total", "used", "") == (4, 23)
    assert grown("ironmask_inputs_total", "failed", "zero_norm") == (0, 1)
    assert grown("ironmask_subjects_total", "used", "") == (2, 12)
    assert grown("ironmask_shards_finished_total") == (1, 6)
    assert grown("ironmask_commits_total") == (0, 1)
    assert grown("ironmask_written_bytes_total", "templates")[1] > 12 * 1024
    assert grown("ironmask_stage_seconds_total", "protect")[1] > 0
    assert grown("ironmask_commit_seconds_total")[1] > 0
    assert (first["ironmask_run_shards",], first["ironmask_run_inputs",]) == (6, 24)
    assert first["ironmask_run_info", "enrol", done.run_id] == 1
    assert first["ironmask_shards_waiting",] == 1
    assert last["ironmask_shards_waiting",] == last["ironmask_shards_in_flight",] == 0
    assert last["ironmask_run_shards_committed",] == 6
    assert last["ironmask_run_inputs_committed",] == 24
    assert first["ironmask_driver_resident_memory_bytes",] > 1 << 20
    assert first["ironmask_driver_cpu_seconds_total",] > 0


def test_labels_are_words_of_closed_lists(tmp_path: Path, port: int) -> None:
    texts: list[str] = []
    done = run(
        request(canaries(tmp_path), tmp_path / "d"),
        after_first(lambda: texts.append(scraped(port))),
    )
    samples = [s for f in text_string_to_metric_families(texts[0]) for s in f.samples]
    assert len(samples) > 20
    for sample in samples:
        assert sample.name.startswith("ironmask_")
        for name, value in sample.labels.items():
            assert value in {**LISTS, "run": {done.run_id}}[name]


def test_the_port_is_closed_with_the_run_and_serves_the_next_one(tmp_path: Path, port: int) -> None:
    for number in range(2):
        run(request(canaries(tmp_path), tmp_path / f"d{number}"))
        with pytest.raises(OSError, match="refused"):
            scraped(port)


def test_a_port_that_is_taken_is_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    dest = tmp_path / "d"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        answer = enroll(canaries(tmp_path), dest, "--metrics-port", number)
    assert (answer.code, len(answer.errors)) == (2, 1)
    assert f"metrics port {number}: it cannot be listened on" in answer.errors[0]
    assert not dest.exists()


@pytest.mark.parametrize("given", ["0", "65536", "nine", "a:b", "http://h:1", ":9464", "-1"])
def test_what_is_no_port_is_refused(tmp_path: Path, given: str) -> None:
    answer = enroll(canaries(tmp_path), tmp_path / "d", f"--metrics-port={given}")
    assert (answer.code, len(answer.errors)) == (2, 1)
    assert "metrics port: give a port from 1 to 65535" in answer.errors[0]
