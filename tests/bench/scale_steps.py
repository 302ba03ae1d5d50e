"""What a driver does with a table of many shards, step by step."""

from __future__ import annotations

from functools import partial
from typing import Final

from pipelines.operations import inventory
from pipelines.operations import job as operations
from pipelines.reprotection import hold as reprotection_hold
from pipelines.reprotection import request as reprotection_request
from pipelines.reprotection.request import ReprotectRequest
from pipelines.spec.options import assembled

from .scale_table import LATER, Made, Place, Step, make_files, opened, write_sources


def plan(place: Place, name: str) -> None:
    """Plan an enrolment."""
    with opened(place, name) as run:
        run.plan()


def run(place: Place, name: str, share: float) -> None:
    """Commit what is not committed yet of the first part of a planned enrolment's shards."""
    with opened(place, name) as found:
        found.plan()
        found.executor = Made(place, name, share)
        found.run()


def report(place: Place, name: str) -> None:
    """End an enrolment whose shards are all committed."""
    with opened(place, name) as found:
        found.plan()
        found.run()
        found.report()


def status(place: Place) -> None:
    operations.status(place.dest)


def inspect(place: Place) -> None:
    inventory.inspect(place.dest)


def check(place: Place) -> None:
    found = operations.check(place.dest, place.keys, deep=False, workers=2)
    assert found.sound, found.findings[:3]


def foresee_reprotection(place: Place) -> None:
    """Plan what a re-protection would do."""
    source = (str(place.source("all")),)
    flat = {"dest": place.dest, "source": source, "keys": place.keys, "executor": "local"}
    asked = assembled(ReprotectRequest, flat)
    found = reprotection_hold.foresee(asked, reprotection_request.prepare(asked))
    assert found.subjects == place.size + LATER


def erase(place: Place) -> None:
    found = operations.erase(place.dest, [place.people("first")[place.size // 2]], place.keys)
    assert len(found) == 1


STEPS: Final = {
    "write sources": Step(write_sources, measured=False),
    "plan": Step(partial(plan, name="first")),
    "make files": Step(partial(make_files, name="first"), measured=False),
    "run and commit, first half": Step(partial(run, name="first", share=0.5)),
    "resume, run and commit the rest": Step(partial(run, name="first", share=1.0)),
    "closing report": Step(partial(report, name="first")),
    "status": Step(status),
    "inspect": Step(inspect),
    "check": Step(check),
    "plan 1,000 people more": Step(partial(plan, name="later")),
    "make their files": Step(partial(make_files, name="later"), measured=False),
    "run and commit them": Step(partial(run, name="later", share=1.0)),
    "their closing report": Step(partial(report, name="later")),
    "plan a re-protection": Step(foresee_reprotection),
    "erase one person": Step(erase),
}
"""In the order in which they build on each other."""
