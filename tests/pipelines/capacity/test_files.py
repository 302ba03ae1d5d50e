"""Figures and prices in files of users: what is read is what was meant, and all else is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support import documents
from support.memory import MemoryStore

from ironmask.errors import SourceError
from pipelines.capacity import figures, prices
from pipelines.capacity.figures import Bytes, Cost, Figures, Gpu
from pipelines.capacity.prices import Node

PLACE = "/given"
FIGURES = Figures(
    "a machine", {"n": 512}, Cost(0.01, 0.02), Cost(0.1, 0.1), 30.0, 5.0, 10.0, Bytes(1e3, 1e2)
)
PRICES = """
currency = "EUR"
[nodes.cpu]
cpus = 16
hour = 0.7
[nodes.gpu]
cpus = 8
gpus = 2
speed = 1.5
[store]
gib_month = 0.02
reads = 0.0004
writes = 0.005
"""


def stored(content: str | bytes) -> MemoryStore:
    store = MemoryStore()
    for place in (PLACE, f"{PLACE}.json"):
        store.write(place, content if isinstance(content, bytes) else content.encode())
    return store


@pytest.mark.parametrize(
    "made", [FIGURES, replace(FIGURES, photo=Cost(0.3, 0.4)), replace(FIGURES, gpu=Gpu(9.0, 0.1))]
)
def test_figures_are_read_as_they_were_written(made):
    assert figures.read(PLACE, stored(made.as_json())) == made


def changed(**changes) -> str:
    return json.dumps({**json.loads(FIGURES.as_json()), **changes})


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "7", b"\xff", "{}", changed(format="ironmask-figures/9"),
        changed(template=None), changed(template={"cpu": 1}),
        changed(template={"cpu": "x", "wall": 1}),
        changed(start="soon"), changed(start=-1.0), changed(start=float("inf")),
        changed(photo={"cpu": -1, "wall": 1}), changed(stored=[1, 2]), changed(end=float("nan")),
    ],
)  # fmt: skip
def test_what_holds_no_figures_is_refused(content):
    with pytest.raises(SourceError, match="holds "):
        figures.read(PLACE, stored(content))


def test_files_that_are_not_there():
    with pytest.raises(SourceError, match="no such file of figures"):
        figures.read(PLACE, MemoryStore())
    with pytest.raises(SourceError, match="no such file of prices"):
        prices.read(PLACE, MemoryStore())


def test_prices_in_either_language():
    found = prices.read(PLACE, stored(PRICES))
    assert found.nodes == (Node("cpu", 16, hour=0.7), Node("gpu", 8, 2, speed=1.5))
    assert (found.currency, found.gib_month) == ("EUR", 0.02)
    assert (found.reads, found.writes) == (0.0004, 0.005)
    same = {
        "currency": "EUR",
        "nodes": {"cpu": {"cpus": 16, "hour": 0.7}, "gpu": {"cpus": 8, "gpus": 2, "speed": 1.5}},
        "store": {"gib_month": 0.02, "reads": 0.0004, "writes": 0.005},
    }
    assert prices.read(f"{PLACE}.json", stored(json.dumps(same))) == found


def test_the_documents_example_is_one():
    (example,) = documents.blocks(documents.texts()["deploy/docs/capacity.md"], "toml")
    found = prices.read(PLACE, stored(example))
    assert [(node.name, node.gpus) for node in found.nodes] == [("cpu", 0), ("gpu", 1)]
    assert found.writes == 0.005


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nodes =", "neither TOML nor JSON"),
        ("", "'nodes' is missing"),
        ("[nodes]", "no kind of node"),
        ("[nodes.a]\nhour = 1", "'cpus' is missing"),
        ("[nodes.a]\ncpus = 0", "nodes.a: cpus is a whole number"),
        ("[nodes.a]\ncpus = 1.5", "nodes.a: cpus is a whole number"),
        ("[nodes.a]\ncpus = true", "nodes.a: cpus is a whole number"),
        ("[nodes.a]\ncpus = 1\ngpus = -1", "nodes.a: gpus is a whole number"),
        ("[nodes.a]\ncpus = 1\nhour = 'x'", "hour is no number"),
        ("[nodes.a]\ncpus = 1\nhour = -1", "hour is a number from 0"),
        ("[nodes.a]\ncpus = 1\nspeed = 0", "speed is more than 0"),
        ("[nodes.a]\ncpus = 1\nhuor = 1", "nothing is known of huor"),
        ("curency = 'x'\n[nodes.a]\ncpus = 1", "nothing is known of curency"),
        ("[nodes.a]\ncpus = 1\n[store]\ngib = 1", "nothing is known of gib"),
        ("nodes = 3", "holds no prices"),
    ],
)
def test_what_holds_no_prices_is_refused(text, named):
    with pytest.raises(SourceError, match=named):
        prices.read(PLACE, stored(text))
