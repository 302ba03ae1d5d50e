"""Waves grow with what is committed, by number and by seconds."""

from __future__ import annotations

from collections import Counter

import pytest

from pipelines.run import steps
from pipelines.run.steps import MOST_SECONDS, WAVE_SECONDS, WAVE_SHARDS, seconds_to_wait
from pipelines.run.summary import Tally
from pipelines.shard.context import ShardResult


class Commits:
    """Takes waves, and notes how many shards each has."""

    run_id = "0" * 12

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.waiting = 0

    def add(self, _result: ShardResult) -> None:
        self.waiting += 1

    def commit(self) -> None:
        self.sizes.append(self.waiting)
        self.waiting = 0


def waves(shards: int, there: int = 0) -> list[int]:
    commits = Commits()
    found = steps._Waves(commits, Tally(), there)  # type: ignore[arg-type]
    for shard in range(shards):
        found.add(ShardResult(shard, {}, Counter(), 0, {}))
    found.commit()
    return commits.sizes


def test_small_tables_are_committed_as_ever():
    assert waves(100) == [WAVE_SHARDS] * 6 + [4]


def test_each_wave_is_a_share_of_what_is_there():
    assert waves(2_000, 16_000) == [1_000, 1_000]


def test_all_waves_together_write_a_multiple_of_the_shards():
    """What a commit costs follows the table, and the sum of these costs follows the shards."""

    def cost(shards: int) -> float:
        there, spent = 0, 0
        for size in waves(shards):
            there += size
            spent += there
        return spent / shards

    assert cost(64_000) < 1.2 * cost(16_000) < 25


@pytest.mark.parametrize(
    ("commit", "wait"), [(0.0, WAVE_SECONDS), (2.0, 100.0), (60.0, MOST_SECONDS)]
)
def test_commits_take_a_fiftieth_of_the_time(commit, wait):
    assert seconds_to_wait(commit) == wait
