"""What a repair would do, and where it refuses before anything is changed."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.destinations import DEST, enrolled, job, vectors

from ironmask.errors import SourceError, TableError
from pipelines.repairing.damage import Damage
from pipelines.repairing.job import foresee, refuse_others, repair
from pipelines.run.template_run import TemplateRun
from pipelines.spec.template_job import Purpose
from pipelines.table.layout import join


class NobodyError(Exception):
    """Raised where an engine is asked for work that there must be none of."""


class NoExecutor:
    def run(self, *_: object):
        raise NobodyError


def put(place, *people: str) -> None:
    """A source with an embedding of each of some people."""
    column = pa.array([list(map(float, one)) for one in vectors(len(people))])
    sink = pa.BufferOutputStream()
    names = pa.array(people, pa.string())
    column = column.cast(pa.list_(pa.float32()))
    pq.write_table(pa.table({"subject_id": names, "embedding": column}), sink)
    place.store.write(job().source, memoryview(sink.getvalue()))


def asked():
    return job(purpose=Purpose.REPAIR)


def broken(place, name: str = "templates") -> str:
    """A run, one of whose files is gone."""
    dest = place.held()
    path = enrolled(dest, ["ann", "bob"]).files[name].path
    place.store.delete([join(DEST, name, path)])
    dest.log_seal.end()
    return path


def test_of_a_sound_table_nothing_is_done(place):
    dest = place.held()
    enrolled(dest, ["ann"])
    put(place, "ann")
    done = repair(TemplateRun(asked(), dest, NoExecutor()))
    assert (done.files, done.lost, done.enrolled, done.without) == (0, 0, 0, 0)
    assert done.summary is None


def test_a_source_with_nobody_of_them_changes_nothing(place):
    path = broken(place)
    put(place, "eve")
    dest = place.held()
    with pytest.raises(SourceError, match="has nothing of the 2 people whose templates are lost"):
        repair(TemplateRun(asked(), dest, NoExecutor()))
    assert place.listed("templates") == {path}
    assert len(place.listed("inputs")) == 1


@pytest.mark.parametrize("name", ["inputs"])
def test_records_that_are_lost_cannot_be_made_anew(place, name):
    path = broken(place, name)
    put(place, "ann", "bob")
    with pytest.raises(TableError, match="cannot be made anew from any source") as caught:
        repair(TemplateRun(asked(), place.held(), NoExecutor()))
    assert path in str(caught.value)


def test_of_many_records_a_few_are_named(place):
    lost = Damage(others=[f"/memory/dest/inputs/{n}" for n in range(9)])
    with pytest.raises(TableError, match=r"inputs/2 and 6 others held"):
        refuse_others(place.tables, lost)
    refuse_others(place.tables, Damage(templates=["x"]))


class TestForesight:
    def test_of_a_loss(self, place):
        path = broken(place)
        put(place, "ann", "eve")
        before = place.data()
        found = foresee(asked(), place.reader(), place.store, place.keyring.generation(1))
        assert (found.files, found.lost, found.listed) == ([path], 2, 1)
        assert place.data() == before

    def test_of_a_sound_table(self, place):
        dest = place.held()
        enrolled(dest, ["ann"])
        put(place, "ann")
        found = foresee(asked(), dest.tables, place.store, dest.keys)
        assert (found.files, found.lost, found.listed) == ([], 0, 0)
