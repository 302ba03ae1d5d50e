"""A plan from the vault: each living person once, from the newest file that has them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.destinations import RUN, Place, commit, context, job, record, written
from support.memory_keys import MemoryKeyring

from ironmask.errors import TableError
from pipelines.plan import from_vault

OLD, NEW, NEWEST = "ff" * 6, "aa" * 6, "bb" * 6


@pytest.fixture
def dest():
    return Place().held()


@pytest.fixture(scope="module")
def vault_keys():
    keyring = MemoryKeyring("vault")
    keyring.add_generation(1)
    return keyring.generation(1)


def kept(dest, vault_keys, people, run_id=RUN, names=("templates", "vault", "inputs"), **changes):
    """A run that kept its embeddings; `names`: whose files its logs list."""
    shared = replace(context(dest, run_id, vault=True, **changes), vault_keys=vault_keys)
    record(dest, shared.job, run_id)
    result = written(shared, people)
    commit(dest, result, 1, names)
    return result


def planned(dest, **changes):
    asked = job(renews=1, generation=2, **changes)
    return list(from_vault.planned(asked, dest.tables, dest.store))


def taken(tables) -> list[str]:
    return sorted(name for one in tables for name in one["subject_id"].to_pylist())


def test_a_shard_for_each_file_which_its_rows_name(dest, vault_keys):
    first = kept(dest, vault_keys, ["ann", "bob"], OLD)
    second = kept(dest, vault_keys, ["cid"], NEW)
    tables = planned(dest)
    files = {one["detail"][0].as_py() for one in tables}
    assert files == {first.files["vault"].path, second.files["vault"].path}
    assert [one["shard"][0].as_py() for one in tables] == [0, 1]
    assert taken(tables) == ["ann", "bob", "cid"]


def test_a_person_is_taken_once_from_the_newest_run(dest, vault_keys):
    """The names of runs say nothing of their order."""
    kept(dest, vault_keys, ["ann", "bob"], OLD)
    kept(dest, vault_keys, ["ann"], NEW)
    newest = kept(dest, vault_keys, ["bob", "ann"], NEWEST, ["vault"])
    (found,) = planned(dest)
    assert found["detail"][0].as_py() == newest.files["vault"].path
    assert taken([found]) == ["ann", "bob"]


def test_who_has_no_template_is_not_taken(dest, vault_keys):
    kept(dest, vault_keys, ["ann"], OLD)
    kept(dest, vault_keys, ["bob"], NEW, ["vault", "inputs"])
    assert taken(planned(dest)) == ["ann"]


def test_who_has_a_new_template_is_not_taken_again(dest, vault_keys):
    kept(dest, vault_keys, ["ann", "bob"], OLD)
    kept(dest, vault_keys, ["ann"], NEW, ["templates", "inputs"], generation=2)
    assert taken(planned(dest)) == ["bob"]


def test_only_embeddings_of_the_same_model_serve(dest, vault_keys):
    kept(dest, vault_keys, ["ann"], OLD)
    kept(dest, vault_keys, ["bob"], NEW, model="declared:other")
    assert taken(planned(dest)) == ["ann"]
    with pytest.raises(TableError, match="holds no embedding of model declared:thi"):
        planned(dest, model="declared:third")


def test_an_empty_vault_is_said(dest):
    with pytest.raises(TableError, match="only what was enrolled with --vault"):
        planned(dest)


def test_where_everybody_is_done_nothing_is_planned(dest, vault_keys):
    kept(dest, vault_keys, ["ann"], OLD)
    kept(dest, vault_keys, ["ann"], NEW, ["templates", "inputs"], generation=2)
    assert planned(dest) == []
