"""What a table holds, counted."""

from __future__ import annotations

from support.destinations import OTHER_RUN, RUN, enrolled, failed, row

from pipelines.operations.inventory import inventory
from pipelines.spec.outcomes import Outcome, Reason
from pipelines.spec.template_job import Purpose
from pipelines.table import generations


def lost(subject: str):
    made = row(subject)
    made.settle(Outcome.USED, Reason.LOST)
    return made


def test_of_a_new_table_nothing(place):
    found = inventory(place.tables)
    assert (found.generations, found.runs, found.outcomes) == ([], [], {})
    assert found.data_bytes == {"templates": 0, "inputs": 0, "vault": 0}
    assert found.seal == "not checked against the seal"
    assert found.table_id == place.tables.table_id


def test_templates_outcomes_and_bytes(place):
    dest = place.held()
    result = enrolled(dest, ["ann", "bob", failed("cid"), failed("dan", Reason.OTHER_FACE)])
    found = inventory(dest.tables)
    (one,) = found.generations
    assert (one.generation, one.state, one.templates) == (1, "live", 2)
    assert (one.sealed, one.key_id, one.model) == (True, dest.keys.key_id, "declared:m")
    assert "alpha 12, tolerance 1" in one.settings
    assert found.outcomes == {"used": 2, "failed": 2}
    assert found.reasons == {"no_face": 1, "other_face": 1}
    assert found.disagreement == {"other_face": 1}
    sizes = {name: result.files[name].size for name in ("templates", "inputs")}
    assert found.data_bytes == {**sizes, "vault": 0}
    assert [(run["run_id"], run["kind"], run["state"]) for run in found.runs] == [
        (RUN, "enrol", "complete")
    ]


def test_people_that_were_lost_and_enrolled_again(place):
    dest = place.held()
    enrolled(dest, ["ann", lost("bob"), lost("cid")])
    enrolled(dest, ["bob"], OTHER_RUN)
    found = inventory(dest.tables)
    assert (found.lost, found.two_issues) == (1, 1)


def test_generations_in_each_state(place):
    first = place.held()
    enrolled(first, ["ann"])
    place.keyring.succeed(2, 1, rekey=True, rotate_mac=False)
    first.log_seal.rekey(place.keyring.generation(2))
    second = place.held(2)
    generations.prepare(second, 2, 1, Purpose.REPROTECT)
    enrolled(second, ["ann", "bob"], OTHER_RUN, generation=2)
    found = inventory(second.tables)
    assert {one.generation: (one.state, one.templates) for one in found.generations} == {
        1: ("live", 1),
        2: ("preparing", 2),
    }
    generations.switch(second, 2, {})
    generations.destroyed(second, 1, {})
    found = inventory(second.tables)
    assert set(found.destroyed) == {1}
    assert {one.generation: one.state for one in found.generations}[2] == "live"
