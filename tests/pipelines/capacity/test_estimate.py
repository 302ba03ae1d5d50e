"""From figures to hours, nodes, bytes, requests and money: arithmetic, and nothing measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ironmask.errors import ParameterError
from pipelines.capacity.estimate import Load, cpu_seconds, estimate, requests, seconds
from pipelines.capacity.figures import Bytes, Cost, Figures, Gpu
from pipelines.capacity.prices import Node, Prices

FIGURES = Figures(
    machine="a machine",
    settings={},
    template=Cost(cpu=0.01, wall=0.02),
    shard=Cost(cpu=0.1, wall=0.1),
    start=30.0,
    worker=5.0,
    end=10.0,
    stored=Bytes(template=1000.0, rest=100.0),
    photo=Cost(cpu=0.03, wall=0.04),
)
EMBEDDINGS = Load(inputs=1200, todo=1000, subjects=1000, shards=10, photos=False, planning=20.0)
PHOTOS = replace(EMBEDDINGS, photos=True)
NODE = Node("small", cpus=2, hour=3.0)


def test_processors_are_those_of_workers_and_of_the_driving_process():
    load = replace(EMBEDDINGS, planning_cpu=7.0)
    assert cpu_seconds(load, FIGURES, 3) == pytest.approx(1000 * 0.01 + 10 * 0.1 + 7 + 3 * 5)
    photos = replace(PHOTOS, planning_cpu=7.0)
    assert cpu_seconds(photos, FIGURES, 0) == pytest.approx(1000 * 0.04 + 10 * 0.1 + 7)


@pytest.mark.parametrize(("workers", "rounds"), [(1, 10), (2, 5), (3, 4), (10, 1), (99, 1)])
def test_workers_end_in_rounds(workers, rounds):
    """A shard takes two seconds here."""
    found, bound = seconds(EMBEDDINGS, FIGURES, Node("x", workers), 1)
    assert found == pytest.approx(30 + 20 + 10 + rounds * 2)
    assert bound == "workers"


def test_a_fast_processor_is_faster_and_the_driving_process_is_not():
    found, _ = seconds(EMBEDDINGS, FIGURES, Node("x", 1, speed=2.0), 1)
    assert found == pytest.approx(60 + 10)
    slow = replace(FIGURES, shard=Cost(5.0, 5.0))
    found, bound = seconds(EMBEDDINGS, slow, Node("x", 10), 1)
    assert (found, bound) == (pytest.approx(60 + 50), "the driving process")


def test_gpus_embed_and_processors_do_the_rest():
    figures = replace(FIGURES, gpu=Gpu(rate=10.0, cpu=0.005))
    node = Node("gpu", cpus=2, gpus=1)
    found, bound = seconds(PHOTOS, figures, node, 1)
    assert (found, bound) == (pytest.approx(60 + 100), "GPUs")
    found, bound = seconds(PHOTOS, replace(figures, gpu=Gpu(1e6, 0.005)), node, 1)
    assert (found, bound) == (pytest.approx(60 + 5 * 2.5), "workers")
    assert seconds(EMBEDDINGS, figures, node, 1) == seconds(EMBEDDINGS, figures, NODE, 1)


def test_prices_of_nodes_requests_and_a_month_of_storage():
    prices = Prices((NODE,), "EUR", gib_month=2.0, reads=0.5, writes=5.0)
    found = estimate(EMBEDDINGS, FIGURES, prices, counts=(1, 5))
    one, five = found.outlooks
    assert one.hours == pytest.approx(70 / 3600)
    assert one.price == pytest.approx(3.0 * 70 / 3600)
    assert (five.workers, five.hours) == (10, pytest.approx(62 / 3600))
    assert five.price == pytest.approx(5 * 3.0 * 62 / 3600)
    assert found.stored == 1000 * 1000 + 1200 * 100
    assert found.month == pytest.approx(found.stored / (1 << 30) * 2)
    asked = found.requests
    assert found.requests_price == pytest.approx(asked.reads * 0.0005 + asked.writes * 0.005)


def test_what_has_no_price_is_not_priced():
    found = estimate(EMBEDDINGS, FIGURES, Prices((Node("x", 2),)))
    assert [one.price for one in found.outlooks] == [None, None, None]
    assert [one.count for one in found.outlooks] == [1, 10, 100]
    assert (found.month, found.requests_price) == (None, None)


@pytest.mark.parametrize(("wanted", "count"), [(81, 1), (70.1, 1), (69.9, 2), (62.1, 5)])
def test_the_fewest_nodes_that_end_in_time(wanted, count):
    found = estimate(EMBEDDINGS, FIGURES, Prices((NODE,)), hours=wanted / 3600)
    assert [one.count for one in found.outlooks] == [count]


def test_hours_that_nothing_keeps_to():
    with pytest.raises(ParameterError, match="no number of small nodes ends within"):
        estimate(EMBEDDINGS, FIGURES, Prices((NODE,)), hours=61 / 3600)


def test_photos_need_figures_of_photos_and_gpus_figures_of_a_gpu():
    with pytest.raises(ParameterError, match="the figures hold none of photos"):
        estimate(PHOTOS, replace(FIGURES, photo=None), Prices((NODE,)))
    both = Prices((NODE, Node("gpu", 2, 1)))
    found = estimate(PHOTOS, FIGURES, both)
    assert {one.node.name for one in found.outlooks} == {"small"}
    assert found.left_out == ("gpu",)
    assert estimate(EMBEDDINGS, replace(FIGURES, photo=None), both).left_out == ()


def test_photos_are_read_to_plan_and_to_work():
    more = requests(PHOTOS).reads - requests(EMBEDDINGS).reads
    assert more == PHOTOS.inputs + PHOTOS.todo


def test_nothing_to_do_takes_the_time_to_find_that_out():
    load = Load(100, 0, 0, 0, photos=True, planning=20.0)
    (found,) = estimate(load, FIGURES, Prices((NODE,)), counts=(1,)).outlooks
    assert found.hours == pytest.approx(60 / 3600)
