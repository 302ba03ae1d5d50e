"""Rows made from rows: they verify as before, under new keys, and tell nothing of the old ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.destinations import OTHER_RUN, Place, context, enrolled, failed, job, vectors

from ironmask.errors import ProtectionError, TamperedError
from ironmask.template import verify
from pipelines.plan import from_rows, plans
from pipelines.shard.context import Context
from pipelines.shard.rewrite import rewrite
from pipelines.shard.transit import Channel
from pipelines.spec.template_job import Purpose
from pipelines.table import layout
from pipelines.table.data_files import read_data_file
from pipelines.table.identities import Identities
from pipelines.table.row_cipher import open_row, row_key

PEOPLE = [f"s{number}" for number in range(10)]


@pytest.fixture
def place() -> Place:
    made = Place()
    enrolled(made.held(), [*PEOPLE, failed("eve")])
    return made


def renewed(place, purpose: Purpose, *, rekey: bool, rotate_mac: bool) -> Context:
    """A run that makes generation 2 from the rows of generation 1."""
    place.keyring.succeed(2, 1, rekey=rekey, rotate_mac=rotate_mac)
    dest = place.held()
    asked = job(purpose=purpose, renews=1, generation=2)
    rows = from_rows.planned(asked, dest.tables, dest.store)
    uri = layout.plan_folder(asked.dest, OTHER_RUN)
    frozen = plans.write(rows, OTHER_RUN, uri, {}, dest.store)
    new = place.keyring.generation(2)
    return replace(context(dest), job=asked, plan=frozen, keys=new, old_keys=dest.keys)


KINDS = {
    "rekey": (Purpose.REKEY, True, False),
    "rotate-mac": (Purpose.ROTATE_MAC, False, True),
    "both": (Purpose.REKEY, True, True),
}


@pytest.fixture(params=KINDS)
def shared(place, request) -> Context:
    purpose, rekey, rotate_mac = KINDS[request.param]
    return renewed(place, purpose, rekey=rekey, rotate_mac=rotate_mac)


def rows(shared, name: str, path: str) -> list[dict]:
    return read_data_file(shared.job.dest, shared.store, name, path).to_pylist()


def templates(shared, path: str) -> list[dict]:
    number = layout.generation_of(path)
    return [{**one, "generation": number} for one in rows(shared, "templates", path)]


def old_path(place) -> str:
    (path,) = place.listed("templates")
    return path


def test_everybody_is_recognised_as_before(place, shared):
    result = rewrite(shared, 0)
    assert result.enrolled == len(PEOPLE)
    found = {one["subject_id"]: one for one in templates(shared, result.files["templates"].path)}
    assert sorted(found) == PEOPLE
    for number, (name, probe) in enumerate(zip(PEOPLE, vectors(len(PEOPLE)), strict=True)):
        opened = open_row(shared.table_id, found[name], shared.keys)
        key = row_key(shared.table_id, found[name], shared.keys)
        stranger = vectors(len(PEOPLE))[number - 1]
        assert verify(opened, probe, key)
        assert not verify(opened, stranger, key)


def test_the_old_keys_open_none_of_it(shared):
    for one in templates(shared, rewrite(shared, 0).files["templates"].path):
        with pytest.raises(TamperedError):
            open_row(shared.table_id, one, shared.old_keys)


def test_nothing_that_is_new_is_the_old(place, shared):
    before = {one["subject_id"]: one for one in templates(shared, old_path(place))}
    changed = {"helper", "details", "key_id"}
    if shared.job.purpose is Purpose.REKEY:
        changed |= {"template_id", "enrolled_at"}
    else:
        changed |= {"digests"}
    for one in templates(shared, rewrite(shared, 0).files["templates"].path):
        same = {name for name in changed if one[name] == before[one["subject_id"]][name]}
        assert same == set()


def test_outcomes_of_used_inputs_go_with_them(place, shared):
    result = rewrite(shared, 0)
    found = Channel(shared.keys, OTHER_RUN, 0).rows(result.rows).to_pylist()
    assert sorted(one["subject_id"] for one in found) == PEOPLE
    assert {(one["run_id"], one["shard"]) for one in found} == {(OTHER_RUN, 0)}
    named = Identities.of(shared.keys, 2).named
    by_subject = {one["subject_id"]: one["identities"] for one in found}
    assert by_subject["s3"] == [named("sha256:s3")]
    assert result.outcomes == {("used", ""): len(PEOPLE)}


def test_keys_that_do_not_go_on_from_the_old_are_refused(place):
    """A generation of its own keys can make nothing of digests that other keys made."""
    shared = renewed(place, Purpose.REKEY, rekey=True, rotate_mac=False)
    place.keyring.add_generation(7)
    with pytest.raises(ProtectionError, match="do not go on from those of"):
        rewrite(replace(shared, keys=place.keyring.generation(7)), 0)


def test_a_row_that_was_changed_stops_it(place):
    shared = renewed(place, Purpose.REKEY, rekey=True, rotate_mac=False)
    uri = f"{shared.job.dest}/templates/{old_path(place)}"
    content = bytearray(shared.store.read(uri))
    content[len(content) // 3] ^= 1
    shared.store.write(uri, bytes(content))
    with pytest.raises(TamperedError, match="is not what was written"):
        rewrite(shared, 0)


def test_twice_gives_other_rows(shared):
    """A retried task draws afresh; only one of both is committed."""
    first, second = (rewrite(shared, 0).files["templates"] for _ in range(2))
    assert first.path != second.path
    ciphertexts = [{one["helper"] for one in templates(shared, f.path)} for f in (first, second)]
    assert not ciphertexts[0] & ciphertexts[1]
