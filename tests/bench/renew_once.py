"""An enrolment and what may follow it, in one process: rows a second of each, as JSON.

Arguments: a `pipelines.enrolment.request.EnrolRequest` as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from pipelines.enrolment import hold, job
from pipelines.enrolment import request as enrolment_request
from pipelines.enrolment.request import EnrolRequest
from pipelines.plan.plans import Plan
from pipelines.reprotection import job as reprotection_job
from pipelines.reprotection import request as reprotection_request
from pipelines.reprotection.request import ReprotectRequest
from pipelines.run import steps
from pipelines.run.summary import Tally

SKIPPED = 2
FOLLOWING = ("reprotect", "rekey", "rotate-mac")


def steady(work: Callable[[steps.Progress], object]) -> float:
    """Templates a second, from when a few shards were done to the end."""
    seen: list[tuple[float, int]] = []

    def note(_plan: Plan, tally: Tally) -> None:
        seen.append((time.monotonic(), tally.enrolled))

    work(note)
    (begun, first), (ended, last) = seen[SKIPPED], seen[-1]
    return (last - first) / (ended - begun)


def enrolled(request: EnrolRequest) -> float:
    with hold.opened(request, enrolment_request.prepare(request)) as held:
        return steady(lambda note: job.enrol(held.job, held.dest, held.executor, note))


def renewed(purpose: str, first: EnrolRequest) -> float:
    request = ReprotectRequest(first.dest, purpose, keys=first.keys, executor=first.executor)
    prepared = reprotection_request.prepare(request)
    with reprotection_request.opened(request, prepared) as held:
        return steady(lambda note: reprotection_job.reprotect(held, note))


def main() -> None:
    request = EnrolRequest(**json.loads(sys.argv[1]))
    rates = {"enroll": enrolled(request)}
    rates |= {purpose: renewed(purpose, request) for purpose in FOLLOWING}
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
