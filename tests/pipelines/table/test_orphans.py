"""Data files that no commit lists: all of them are found, and nothing else is destroyed."""

from __future__ import annotations

import pytest
from support.destinations import DEST, RUN, Place, commit, context, enrolled, written
from support.memory import MemoryStore

from ironmask.errors import BusyError
from pipelines.table.layout import rows_file
from pipelines.table.orphans import destroy_orphans, orphans, uncommitted_inputs


def found(dest) -> set[str]:
    return set(orphans(dest.tables, dest.store))


def addresses(result, *names: str) -> set[str]:
    return {f"{DEST}/{name}/{result.files[name].path}" for name in names}


def test_a_new_destination_has_none(place):
    dest = place.held()
    assert found(dest) == set()
    assert destroy_orphans(dest.tables, dest.store, dest.check) == 0


def test_what_is_listed_is_none(place):
    dest = place.held()
    enrolled(dest, ["ann", "bob"])
    assert found(dest) == set()


def test_all_that_a_shard_wrote_before_its_commit_are_some(place):
    dest = place.held()
    result = written(context(dest), ["ann"])
    assert found(dest) == addresses(result, "templates", "inputs")


def test_inputs_that_wait_for_their_commit_are_none(place):
    """A kill came between the commits of a wave's templates and of its inputs."""
    dest = place.held()
    result = written(context(dest), ["ann"])
    commit(dest, result, 1, ["templates"])
    assert found(dest) == set()
    assert uncommitted_inputs(dest.tables, dest.store) == {(RUN, 0, result.attempt)}


def test_inputs_of_another_attempt_of_that_shard_are_some(place):
    """A retried task wrote the same shard again: only one attempt's templates were committed."""
    dest = place.held()
    first, second = (written(context(dest), ["ann"], seed=seed) for seed in (1, 2))
    commit(dest, second, 1, ["templates"])
    assert found(dest) == addresses(first, "templates", "inputs")


def test_templates_of_the_waiting_attempt_itself_are_not_waited_for(place):
    """Only what follows templates in the order of commits can wait."""
    dest = place.held()
    result = written(context(dest), ["ann"])
    commit(dest, result, 1, ["inputs"])
    assert found(dest) == addresses(result, "templates")
    assert uncommitted_inputs(dest.tables, dest.store) == set()


def test_other_templates_of_the_waiting_attempt_do_not_wait(place):
    """Rows that were written anew keep the attempt in their name, and have another digest."""
    dest = place.held()
    result = written(context(dest), ["ann"])
    commit(dest, result, 1, ["templates"])
    path = result.files["templates"].path
    digest = path.rpartition("-g")[2]
    stray = f"{DEST}/templates/{path.replace(digest, '0' * 64 + '.parquet')}"
    dest.store.write(stray, b"other rows")
    assert found(dest) == {stray}


def test_what_a_log_lists_no_more_is_one(place):
    dest = place.held()
    result = enrolled(dest, ["ann"])
    path = result.files["templates"].path
    dest.log_seal.tables.stored.table("templates").commit([], "somebody", 1, [path])
    assert set(orphans(place.tables, place.store)) == addresses(result, "templates")


def test_small_files_of_rows_are_some_as_well(place):
    dest = place.held()
    enrolled(dest, ["ann"])
    stray = f"{DEST}/runs/{rows_file('ab' * 8, 'cd' * 32)}"
    dest.store.write(stray, b"rows")
    assert found(dest) == {stray}


def test_what_a_broken_off_writing_left_is_one(place):
    dest = place.held()
    partial = [f"{DEST}/{folder}/.part-{'0a' * 8}" for folder in ("inputs", "_ironmask")]
    for uri in partial:
        dest.store.write(uri, b"half")
    assert found(dest) == set(partial)


@pytest.mark.parametrize(
    "path",
    [
        "templates/README.md",
        "templates/part-short.parquet",
        "inputs/part-0123456789ab-000000-abababababababab-xyz.parquet",
        "inputs/.part-shorter",
        "_ironmask/seal.json",
        "_ironmask/notes.parquet",
        "elsewhere/part-0.parquet",
    ],
)
def test_what_is_not_ours_is_never_one(place, path):
    dest = place.held()
    dest.store.write(f"{DEST}/{path}", b"kept")
    assert found(dest) == set()
    destroy_orphans(dest.tables, dest.store, dest.check)
    assert dest.store.exists(f"{DEST}/{path}")


def test_what_only_older_versions_hold_is_one():
    place = Place(MemoryStore(versioned=True))
    dest = place.held()
    result = written(context(dest), ["ann"])
    for uri in addresses(result, "templates", "inputs"):
        place.store.hide(uri)
    assert found(dest) == addresses(result, "templates", "inputs")
    assert destroy_orphans(dest.tables, dest.store, dest.check) == 2
    assert place.data() == set()


def test_they_are_destroyed_and_counted_and_nothing_else_is(place):
    dest = place.held()
    enrolled(dest, ["ann"])
    before = place.data()
    written(context(dest), ["bob"], shard=1)
    assert len(place.data() - before) == 2
    assert destroy_orphans(dest.tables, dest.store, dest.check) == 2
    assert place.data() == before
    assert destroy_orphans(dest.tables, dest.store, dest.check) == 0


def test_who_does_not_hold_the_destination_destroys_nothing(place):
    def taken_over() -> None:
        raise BusyError("another run has taken over")

    dest = place.held()
    written(context(dest), ["ann"])
    before = place.data()
    with pytest.raises(BusyError):
        destroy_orphans(dest.tables, dest.store, taken_over)
    assert place.data() == before
