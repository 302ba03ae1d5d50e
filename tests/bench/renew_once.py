"""An enrolment and what may follow it, in one process: rows a second of each, as JSON.

Arguments: the options of `pipelines.enroll` as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from pipelines.api import enrolment, reprotection
from pipelines.enrolment import request as enrolment_request
from pipelines.enrolment.request import EnrolRequest
from pipelines.plan.plans import Plan
from pipelines.reprotection import request as reprotection_request
from pipelines.reprotection.request import ReprotectRequest
from pipelines.run.course import Progress, Watch
from pipelines.run.summary import Tally
from pipelines.spec.options import assembled

SKIPPED = 2
FOLLOWING = ("reprotect", "rekey", "rotate-mac")


def steady(work: Callable[[Progress], object]) -> float:
    """Templates a second, from when a few shards were done to the end."""
    seen: list[tuple[float, int]] = []

    def note(_plan: Plan, tally: Tally) -> None:
        seen.append((time.monotonic(), tally.enrolled))

    work(note)
    (begun, first), (ended, last) = seen[SKIPPED], seen[-1]
    return (last - first) / (ended - begun)


def enrolled(request: EnrolRequest) -> float:
    prepared = enrolment_request.prepare(request)
    return steady(lambda note: enrolment.carry_out(request, prepared, Watch(note)))


def renewed(purpose: str, first: EnrolRequest) -> float:
    request = ReprotectRequest(
        first.dest, purpose, key_files=first.key_files, workplace=first.workplace
    )
    prepared = reprotection_request.prepare(request)
    return steady(lambda note: reprotection.carry_out(request, prepared, Watch(note)))


def main() -> None:
    request = assembled(EnrolRequest, json.loads(sys.argv[1]))
    rates = {"enroll": enrolled(request)}
    rates |= {purpose: renewed(purpose, request) for purpose in FOLLOWING}
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
