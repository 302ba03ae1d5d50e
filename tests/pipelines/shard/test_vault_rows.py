"""The vault's rows: sealed, bound to their person, and read again as they were."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.destinations import Place, commit, context, job, record, row, vectors, written
from support.memory_keys import MemoryKeyring

from ironmask.errors import TableError, TamperedError
from pipelines.plan import from_vault, plans
from pipelines.shard import vault
from pipelines.shard.context import Context
from pipelines.table import layout
from pipelines.table.schemas import VAULT


@pytest.fixture
def dest():
    return Place().held()


@pytest.fixture
def keys():
    keyring = MemoryKeyring("vault")
    keyring.add_generation(1)
    return keyring.generation(1)


def keeping(dest, keys, **changes) -> Context:
    return replace(context(dest, vault=True, **changes), vault_keys=keys)


def kept(dest, keys, people) -> str:
    """A run that kept its embeddings; returns the vault's file."""
    shared = keeping(dest, keys)
    record(dest, shared.job)
    result = written(shared, people, seed=3)
    commit(dest, result, 1)
    return result.files["vault"].path


def renewing(dest, keys, shared=None) -> Context:
    """A context that makes templates anew from the vault."""
    asked = job(renews=1, generation=2)
    rows = from_vault.planned(asked, dest.tables, dest.store)
    folder = layout.plan_folder(asked.dest, "cc" * 6)
    frozen = plans.write(rows, "cc" * 6, folder, {}, dest.store)
    return replace(shared or keeping(dest, keys), job=asked, plan=frozen)


def test_embeddings_come_back_with_the_names_of_their_contents(dest, keys):
    kept(dest, keys, ["ann", "bob"])
    rows, found = vault.load(renewing(dest, keys), 0)
    assert [one.subject_id for one in rows.rows] == ["ann", "bob"]
    assert [one.contents for one in rows.rows] == [["sha256:ann"], ["sha256:bob"]]
    assert rows.indices == [0, 1]
    assert np.array_equal(found, vectors(2, 3))


def test_labels_come_back_with_them(dest, keys):
    shared = keeping(dest, keys)
    (one,) = vault.rows(shared, [(row("p-1", labels=("ann", "photos/1.jpg")), vectors(1)[0])])[
        "embedding"
    ].to_pylist()
    told = {"subject_id": "p-1", "uri": "p-1/0.jpg", "model": shared.job.model, "embedding": one}
    vector, facts = vault._opened(shared, told)
    assert vault._labels(facts) == ("ann", "photos/1.jpg")
    assert np.array_equal(vector, vectors(1)[0])


def test_nothing_of_an_embedding_lies_in_the_clear(dest, keys):
    path = kept(dest, keys, ["ann"])
    content = dest.store.read(f"{dest.tables.dest}/vault/{path}")
    assert vectors(1, 3)[0].tobytes()[:16] not in content
    assert b"sha256:ann" not in content


def test_of_nothing_no_rows(dest, keys):
    assert vault.rows(keeping(dest, keys), []).equals(VAULT.empty_table())


@pytest.mark.parametrize(
    "change",
    [{"subject_id": "bob"}, {"uri": "ann/1.jpg"}, {"model": "declared:other"}, {"embedding": b""}],
    ids=lambda change: next(iter(change)),
)
def test_one_that_belongs_elsewhere_does_not_open(dest, keys, change):
    shared = keeping(dest, keys)
    (made,) = vault.rows(shared, [(row("ann"), vectors(1)[0])]).to_pylist()
    with pytest.raises(TamperedError, match="does not authenticate"):
        vault._opened(shared, {**made, **change})


def test_nor_in_another_table_or_under_other_keys(dest, keys):
    shared = keeping(dest, keys)
    (made,) = vault.rows(shared, [(row("ann"), vectors(1)[0])]).to_pylist()
    other = MemoryKeyring("vault")
    other.add_generation(1)
    for wrong in (
        replace(shared, table_id="other"),
        replace(shared, vault_keys=other.generation(1)),
        replace(shared, vault_keys=shared.keys),
    ):
        with pytest.raises(TamperedError):
            vault._opened(wrong, made)


def test_one_of_another_width_is_refused(dest, keys):
    shared = keeping(dest, keys)
    (made,) = vault.rows(shared, [(row("ann", contents=[]), vectors(1)[0][:3])]).to_pylist()
    plain = keys.decrypt(made["embedding"], vault._bound(shared.table_id, *_names(made)))
    short = keys.encrypt(plain[:12], vault._bound(shared.table_id, *_names(made)))
    with pytest.raises(TamperedError, match="has 3 values, not 64"):
        vault._opened(shared, {**made, "embedding": short})


def _names(made) -> tuple[str, str, str]:
    return made["subject_id"], made["uri"], made["model"]


def test_a_file_that_is_gone_or_changed_is_named(dest, keys):
    path = kept(dest, keys, ["ann"])
    shared = renewing(dest, keys)
    uri = f"{dest.tables.dest}/vault/{path}"
    whole = dest.store.read(uri)
    dest.store.write(uri, whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(TamperedError, match="is not what was written"):
        vault.load(shared, 0)
    dest.store.delete([uri])
    with pytest.raises(TableError, match="is missing"):
        vault.load(shared, 0)
