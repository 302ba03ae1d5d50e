"""Waves of shards become visible whole, once, and after a kill at any point."""

from __future__ import annotations

import pytest
from support.destinations import (
    DEST,
    OTHER_RUN,
    RUN,
    commit,
    commit_wave,
    context,
    failed,
    finished,
    outcomes,
    people,
    settled,
)
from support.memory_keys import MemoryKeyring

from ironmask.errors import BusyError, TableError
from pipelines.run.commit import Committer
from pipelines.shard.context import Context
from pipelines.table import waves
from pipelines.table.orphans import destroy_orphans, uncommitted_inputs


class PowerCutError(Exception):
    """What ends a process here; nothing of it is handled."""


def begun(dest, run_id: str = RUN) -> tuple[Committer, set[int]]:
    committer = Committer(dest, run_id)
    return committer, committer.done()


def with_vault(dest) -> Context:
    """A context whose shards keep their embeddings."""
    keyring = MemoryKeyring("vault")
    keyring.add_generation(1)
    made = context(dest, vault=True)
    return Context(
        made.job, made.plan, made.table_id, made.store, made.keys, None, None, keyring.generation(1)
    )


def killed_after(dest, committer: Committer, wave, name: str) -> None:
    """A process that dies before it commits to a table."""
    table = dest.tables.stored.table(name)

    def cut(*_: object, **__: object) -> None:
        raise PowerCutError

    committed = table.commit
    table.commit = cut
    with pytest.raises(PowerCutError):
        commit_wave(committer, wave)
    table.commit = committed


def test_nothing_is_done_at_first(dest):
    assert begun(dest)[1] == set()


def test_a_wave_is_seen_whole(place, dest):
    committer, _ = begun(dest)
    wave = [finished(context(dest), [f"s{n}", failed(f"f{n}")], shard=n) for n in (0, 3)]
    commit_wave(committer, wave)
    assert people(dest) == ["s0", "s3"]
    assert sum(outcomes(dest).values()) == 4
    assert begun(place.held())[1] == {0, 3}


def test_an_empty_wave_changes_nothing(place, dest):
    committer, _ = begun(dest)
    before = place.store.read(f"{DEST}/_ironmask/seal.json")
    committer.commit()
    assert place.store.read(f"{DEST}/_ironmask/seal.json") == before


def test_a_shard_in_which_nobody_was_enrolled_is_done_as_well(place, dest):
    committer, _ = begun(dest)
    result = finished(context(dest), [failed("ann"), failed("bob")], shard=5)
    assert "templates" not in result.files
    commit_wave(committer, [result])
    assert people(dest) == []
    assert begun(place.held())[1] == {5}


def test_sequences_go_on_where_the_last_process_stopped(place, dest):
    committer, _ = begun(dest)
    commit_wave(committer, [finished(context(dest), ["ann"])])
    dest.log_seal.end()
    again = place.held()
    committer, done = begun(again)
    commit_wave(committer, [finished(context(again), ["bob"], shard=1)])
    assert done == {0}
    assert people(again) == ["ann", "bob"]
    assert again.sequence("inputs", f"{RUN}/inputs") == 2


def test_runs_do_not_count_each_others_shards(place, dest):
    other = context(dest, OTHER_RUN)
    commit(dest, settled(other, finished(other, ["ann"], shard=7)), 1)
    committer, done = begun(dest)
    assert done == set()
    commit_wave(committer, [finished(context(dest), ["bob"], shard=7)])
    assert begun(dest)[1] == {7}
    assert people(dest) == ["ann", "bob"]


class TestAKillBetweenTheCommitsOfAWave:
    def test_the_inputs_of_committed_templates_are_committed_by_the_next(self, place, dest):
        committer, _ = begun(dest)
        wave = [finished(context(dest), [f"s{n}", failed(f"f{n}")], shard=n) for n in range(3)]
        killed_after(dest, committer, wave, "inputs")
        again = place.held()
        assert people(again) == ["s0", "s1", "s2"]
        assert outcomes(again) == {}
        committer, done = begun(again)
        assert done == {0, 1, 2}
        assert uncommitted_inputs(again.tables, again.store) == set()
        assert sum(outcomes(again).values()) == 6
        assert destroy_orphans(again.tables, again.store, again.check) == 0

    def test_what_was_not_committed_at_all_is_not_done(self, place, dest):
        committer, _ = begun(dest)
        killed_after(dest, committer, [finished(context(dest), ["ann"])], "templates")
        again = place.held()
        assert begun(again)[1] == set()
        assert people(again) == []
        assert destroy_orphans(again.tables, again.store, again.check) == 2

    @pytest.mark.parametrize("name", ["vault", "inputs"])
    def test_the_vault_goes_with_them(self, place, dest, name):
        committer, _ = begun(dest)
        killed_after(dest, committer, [finished(with_vault(dest), ["ann"])], name)
        again = place.held()
        assert begun(again)[1] == {0}
        kept = again.tables.table("vault").rows(["subject_id"])["subject_id"].to_pylist()
        assert kept == ["ann"]
        assert destroy_orphans(again.tables, again.store, again.check) == 0

    def test_it_may_be_killed_again(self, place, dest):
        committer, _ = begun(dest)
        killed_after(dest, committer, [finished(with_vault(dest), ["ann"])], "vault")
        again = place.held()
        stored = again.tables.stored.table("inputs")
        commits = stored.commit

        def cut(*_: object, **__: object) -> None:
            raise PowerCutError

        stored.commit = cut
        with pytest.raises(PowerCutError):
            begun(again)
        stored.commit = commits
        last = place.held()
        assert begun(last)[1] == {0}
        assert outcomes(last) == {("ann", "used", ""): 1}
        assert len(place.listed("vault")) == 1

    def test_only_the_attempt_that_was_committed_counts(self, place, dest):
        """A task that was retried wrote the shard twice, with other randomness."""
        committer, _ = begun(dest)
        first, second = (finished(context(dest), ["ann"], seed=seed) for seed in (1, 2))
        killed_after(dest, committer, [second], "inputs")
        again = place.held()
        assert begun(again)[1] == {0}
        covered = waves.listed(again.tables, again.store)
        assert [own for _, own in covered] == [[(RUN, 0, second.attempt)]]
        assert destroy_orphans(again.tables, again.store, again.check) == 1
        assert f"{DEST}/templates/{first.files['templates'].path}" not in place.data()

    def test_another_run_leaves_it_alone(self, place, dest):
        committer, _ = begun(dest)
        killed_after(dest, committer, [finished(context(dest), ["ann"])], "inputs")
        again = place.held()
        assert begun(again, OTHER_RUN)[1] == set()
        assert outcomes(again) == {}

    def test_inputs_that_are_missing_are_said(self, place, dest):
        """Whose templates these are is known by their inputs alone."""
        committer, _ = begun(dest)
        result = finished(context(dest), ["ann"])
        killed_after(dest, committer, [result], "inputs")
        place.store.delete([uri for uri in place.data() if uri.startswith(f"{DEST}/inputs/")])
        with pytest.raises(TableError, match=f"the inputs of 1 committed shards of run {RUN}"):
            begun(place.held())


def test_a_lost_answer_commits_nothing_twice(place, dest):
    committer, _ = begun(dest)
    result = finished(context(dest), ["ann"])
    commit_wave(committer, [result])
    commit(dest, settled(context(dest), result), 1)
    assert people(dest) == ["ann"]
    assert outcomes(dest) == {("ann", "used", ""): 1}


def test_who_was_ousted_commits_nothing(place, dest):
    result = finished(context(dest), ["ann"])
    taken: list[bool] = []

    def check() -> None:
        if taken:
            raise BusyError("taken over")

    held = place.held(check=check)
    committer, _ = begun(held)
    taken.append(True)
    with pytest.raises(BusyError):
        commit_wave(committer, [result])
    assert not place.listed("templates")
