"""Files with the outcomes of many shards say whose, and nobody can make them say more."""

from __future__ import annotations

import hmac
from dataclasses import replace
from hashlib import sha256

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
    job,
    outcomes,
    people,
    written,
)

from ironmask.errors import TableError, TamperedError
from pipelines.plan import from_rows
from pipelines.run import commit as committing
from pipelines.run.commit import Committer
from pipelines.shard.transit import Channel
from pipelines.spec.template_job import Purpose
from pipelines.table import layout, waves
from pipelines.table.orphans import destroy_orphans, orphans
from pipelines.table.schemas import as_parquet


def committed(dest, shards, run_id: str = RUN):
    """A wave of shards of one enrolled and one failed person each, as they were handed over."""
    shared = context(dest, run_id)
    wave = [finished(shared, [f"s{n}", failed(f"f{n}")], n, seed=n) for n in shards]
    committer = Committer(dest, run_id)
    committer.done()
    commit_wave(committer, wave)
    return wave


def only(place) -> str:
    (path,) = place.listed("inputs")
    return f"{DEST}/inputs/{path}"


def test_a_wave_is_one_file_and_its_name_counts_its_shards(place, dest):
    wave = committed(dest, (2, 0, 1))
    name = layout.parse_wave_file(only(place))
    assert (name.run_id, name.shards, layout.shards_in(only(place))) == (RUN, 3, 3)
    assert waves.attempts_in(place.store, only(place)) == [
        (RUN, one.shard, one.attempt) for one in sorted(wave, key=lambda one: one.shard)
    ]


@pytest.mark.parametrize(("name", "most"), [("MOST_SHARDS", 2), ("MOST_BYTES", 1)])
def test_a_wave_of_many_is_several_files(place, dest, monkeypatch, name, most):
    monkeypatch.setattr(committing, name, most)
    committed(dest, range(5))
    sizes = sorted(layout.parse_wave_file(path).shards for path in place.listed("inputs"))
    assert sizes == ([1, 2, 2] if name == "MOST_SHARDS" else [1] * 5)
    assert Committer(dest, RUN).done() == set(range(5))
    assert sum(outcomes(dest).values()) == 10


def test_files_of_each_shard_of_releases_before_count_as_well(place, dest):
    """A run that an earlier release began: its shards have a file each."""
    shared = context(dest)
    old = written(shared, ["ann"], shard=0)
    rows = Channel(shared.keys, RUN, 0).rows(old.rows)
    content = as_parquet(rows)
    file = layout.ShardFile(RUN, 0, old.attempt, sha256(content).hexdigest())
    place.store.write(f"{DEST}/inputs/{file.name}", content)
    described = replace(old.files["inputs"], path=file.name, size=len(content))
    commit(dest, replace(old, files={**old.files, "inputs": described}), 1)
    committed(dest, (1, 2))
    assert Committer(dest, RUN).done() == {0, 1, 2}
    assert people(dest) == ["ann", "s1", "s2"]
    assert len(waves.by_attempt(dest.tables, dest.store)) == 3
    assert len(list(orphans(dest.tables, dest.store))) == 1


def test_a_list_that_was_changed_is_refused(place, dest):
    committed(dest, (0, 1))
    content = place.store.read(only(place))
    line = waves.attempts_in(place.store, only(place))[0][2].encode()
    assert line in content
    place.store.write(only(place), content.replace(line, b"0" * 16))
    with pytest.raises(TamperedError, match="is not what was written"):
        Committer(dest, RUN).done()


def test_a_missing_file_ends_the_run(place, dest):
    """Nobody can tell which shards it had."""
    committed(dest, (0, 1))
    place.store.delete([only(place)])
    with pytest.raises(TableError, match="is missing"):
        Committer(dest, RUN).done()


def test_outcomes_of_another_shard_are_not_taken(dest):
    shared = context(dest)
    first, second = (finished(shared, [name], n) for n, name in enumerate(("ann", "bob")))
    with pytest.raises(TamperedError):
        Committer(dest, RUN).add(replace(first, rows=second.rows))


def test_outcomes_do_not_travel_in_the_clear(dest):
    result = finished(context(dest), ["a-name-of-somebody"])
    assert b"a-name-of-somebody" not in result.rows


class TestAnInterruptedWave:
    """Its templates are committed, and its outcomes are not."""

    @pytest.fixture
    def wave(self, dest):
        shared = context(dest)
        made = [finished(shared, [f"s{n}"], n, seed=n) for n in range(2)]
        for number, one in enumerate(made):
            commit(dest, replace(one, files={**one.files}), number + 1, ["templates"])
        return made

    def planted(self, dest, attempts, rows, key: bytes) -> str:
        return waves.write(DEST, dest.store, attempts, rows, key).path

    def rows(self, dest, result):
        return Channel(dest.keys, RUN, result.shard).rows(result.rows)

    def test_a_list_of_others_marks_no_shard_as_done(self, dest, wave):
        """Whoever writes to the bucket adds a shard that was never done."""
        attempts = [(RUN, one.shard, one.attempt) for one in wave]
        others = [*attempts, (RUN, 7, "ab" * 8)]
        self.planted(dest, others, self.rows(dest, wave[0]), b"guessed" * 4)
        with pytest.raises(TableError, match="the inputs of 2 committed shards"):
            Committer(dest, RUN).done()

    def test_two_files_of_one_attempt_are_refused(self, dest, wave):
        attempts = [(RUN, one.shard, one.attempt) for one in wave]
        key = dest.keys.log_seal_key()
        for one in wave:
            self.planted(dest, attempts, self.rows(dest, one), key)
        with pytest.raises(TableError, match="two files are of one attempt"):
            Committer(dest, RUN).done()

    def test_what_waits_is_no_orphan_and_a_damaged_one_stays(self, dest, wave):
        attempts = [(RUN, one.shard, one.attempt) for one in wave]
        rows = self.rows(dest, wave[0])
        path = self.planted(dest, attempts, rows, dest.keys.log_seal_key())
        stray = self.planted(dest, [(RUN, 5, "cd" * 8)], rows, dest.keys.log_seal_key())
        assert list(orphans(dest.tables, dest.store)) == [f"{DEST}/inputs/{stray}"]
        dest.store.write(f"{DEST}/inputs/{path}", b"no Parquet")
        assert destroy_orphans(dest.tables, dest.store, dest.check) == 1
        assert dest.store.exists(f"{DEST}/inputs/{path}")


def test_rows_of_one_shard_are_found_for_a_new_generation(place, dest):
    """One file of inputs, three of templates: each shard's own inputs go with it."""
    committed(dest, range(3))
    asked = job(purpose=Purpose.REKEY, renews=1, generation=2)
    planned = [one.to_pylist() for one in from_rows.planned(asked, dest.tables, dest.store)]
    found = {rows[0]["detail"]: [row["subject_id"] for row in rows] for rows in planned}
    assert sorted(found.values()) == [["s0"], ["s1"], ["s2"]]
    for path, names in found.items():
        file = layout.parse_shard_file(path)
        assert names == [f"s{file.shard}"]
    assert {row["content"] for rows in planned for row in rows} == place.listed("inputs")


def test_the_tag_is_of_the_run_and_the_lines(place, dest):
    committed(dest, (0,))
    key = dest.keys.log_seal_key()
    assert waves.attempts_in(place.store, only(place), key)
    with pytest.raises(TamperedError):
        waves.attempts_in(place.store, only(place), hmac.digest(key, b"other", "sha256"))


def test_of_two_runs_only_the_asked_ones_files_are_read(place, dest):
    committed(dest, (0,))
    committed(dest, (1,), OTHER_RUN)
    found = list(waves.listed(dest.tables, dest.store, [OTHER_RUN]))
    assert [own[0][:2] for _, own in found] == [(OTHER_RUN, 1)]
