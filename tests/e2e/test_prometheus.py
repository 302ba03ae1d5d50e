"""A real Prometheus scrapes a run: every metric answers, alerts are understood, nobody is named."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from support import documents
from support.command import clean_environment
from support.enrolling import captures, unit_vectors, write_vectors
from support.prefect import free_port
from support.prometheus import Prometheus, program_or_skipped, scraping

from pipelines.setup.exposed import metrics

pytestmark = pytest.mark.slow

SUBJECTS = [f"Canary-{number:04d}-Person" for number in range(600)]
MONITOR = documents.texts()["deploy/docs/monitor.md"]
NAMES = [f"{m.name}_total" if m.kind == "counter" else m.name for m in metrics()]
_SECONDS = 400


@dataclass(frozen=True)
class Scraped:
    """A server that scrapes a run which is going on."""

    server: Prometheus
    program: Path
    port: int
    folder: Path
    run: subprocess.Popen[str]


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    program, folder, port = program_or_skipped(), tmp_path_factory.mktemp("Secret"), free_port()
    vectors = captures(unit_vectors(len(SUBJECTS)), 2)
    vectors[::100] = np.zeros_like(vectors[0])
    source = write_vectors(folder / "Source.parquet", np.repeat(SUBJECTS, 2).tolist(), vectors)
    words: list[Any] = ["enroll", source, folder / "Dest", "--executor=local", "--alpha=12"]
    words += ["--tolerance=1", "--shard-size=4", f"--keys={folder / 'k.json'}", "--json"]
    words += [f"--metrics-port={port}", "--max-failures=100"]
    with scraping(program, folder, port) as server:
        run = subprocess.Popen(
            [Path(sys.executable).with_name("ironmask"), *map(str, words)],
            env=clean_environment(folder),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            _until(server, "ironmask_commits_total > 2", run)
            yield Scraped(server, program, port, folder, run)
        finally:
            run.kill()
            run.wait()


def _until(server: Prometheus, expression: str, run: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not server.values(expression):
        assert run.poll() is None, "the run has ended too soon"
        assert time.monotonic() < deadline, expression
        time.sleep(0.1)


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_answers(scraped: Scraped, name: str) -> None:
    assert scraped.server.values(name)


def test_every_metric_is_documented_and_no_other() -> None:
    table = MONITOR.partition("## Metrics")[2].partition("\n## ")[0]
    told = re.findall(r"`(ironmask_\w+)(?:\{[\w,]+\})?`", table.partition("```")[0])
    assert sorted(set(told) - {"ironmask_run_"}) == sorted(NAMES)


def test_the_expressions_of_the_document_are_understood(scraped: Scraped) -> None:
    (block,) = [b for b in documents.blocks(MONITOR, "text") if "ironmask_" in b]
    lines = [line.partition("#")[0].rstrip() for line in block.splitlines()]
    expressions = re.split(r"\n(?=\S)", "\n".join(lines))
    assert len(expressions) == 5
    for expression in expressions:
        scraped.server.ask("query", query=expression)
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        scraped.server.ask("query", query=expressions[0].replace(">", ">>"))


def test_names_keep_to_the_conventions(scraped: Scraped) -> None:
    tool = scraped.program.with_name("promtool")
    if not tool.exists():
        pytest.skip("no promtool beside prometheus")
    done = subprocess.run(
        [tool, "check", "metrics"],
        input=_page(scraped),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def _page(scraped: Scraped) -> str:
    answer = httpx.get(f"http://127.0.0.1:{scraped.port}/metrics", timeout=10)
    return answer.raise_for_status().text


def test_nobody_is_named_and_the_counts_are_those_of_the_run(scraped: Scraped) -> None:
    """Of all that was ever scraped; in the end it is what the command says."""
    text = _page(scraped)
    said, _ = scraped.run.communicate(timeout=_SECONDS)
    summary = json.loads(said)
    series = scraped.server.ask("series", **{"match[]": '{__name__=~"ironmask_.+"}'})
    assert len(series) > len(NAMES)
    for word in ("Canary", "Person", "Secret", "Source", "Dest", str(scraped.folder)):
        assert word not in text + json.dumps(series)
    assert not [s for s in SUBJECTS if s in text]
    assert platform.node() not in text
    labels = {name for one in series for name in one} - {"__name__", "instance", "job"}
    assert labels == {"outcome", "reason", "stage", "table", "run", "purpose"}
    used = scraped.server.values('last_over_time(ironmask_inputs_total{outcome="used"}[5m])')
    # The last scrape is a fifth of a second before the end, or more.
    assert 0.8 * summary["used"] <= used[0] <= summary["used"]
