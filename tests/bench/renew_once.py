"""An enrolment and what may follow it, in one process: rows a second of each, as JSON.

Arguments: a `pipelines.start.Request` as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from pipelines import enrol, reprotect, reprotect_request, start
from pipelines.plan import Plan
from pipelines.summary import Tally

SKIPPED = 2
FOLLOWING = ("reprotect", "rekey", "rotate-mac")


def steady(work: Callable[[enrol.Progress], object]) -> float:
    """Templates a second, from when a few shards were done to the end."""
    seen: list[tuple[float, int]] = []

    def note(_plan: Plan, tally: Tally) -> None:
        seen.append((time.monotonic(), tally.enrolled))

    work(note)
    (begun, first), (ended, last) = seen[SKIPPED], seen[-1]
    return (last - first) / (ended - begun)


def enrolled(request: start.Request) -> float:
    with start.opened(request, start.prepare(request)) as held:
        return steady(lambda note: enrol.enrol(held.job, held.dest, held.executor, note))


def renewed(purpose: str, first: start.Request) -> float:
    request = reprotect_request.Request(
        first.dest, purpose, keys=first.keys, executor=first.executor
    )
    prepared = reprotect_request.prepare(request)
    with reprotect_request.opened(request, prepared) as held:
        return steady(lambda note: reprotect.reprotect(held, note))


def main() -> None:
    request = start.Request(**json.loads(sys.argv[1]))
    rates = {"enroll": enrolled(request)}
    rates |= {purpose: renewed(purpose, request) for purpose in FOLLOWING}
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
