"""One enrolment in a process of its own: when each shard was done, as JSON on standard output.

Arguments: the options of `pipelines.enroll` as JSON.
"""

from __future__ import annotations

import json
import sys
import time

from pipelines.api import enrolment
from pipelines.enrolment import request as enrolment_request
from pipelines.enrolment.request import EnrolRequest
from pipelines.plan.plans import Plan
from pipelines.run.course import Watch
from pipelines.run.summary import Tally
from pipelines.spec.options import assembled


def main() -> None:
    request = assembled(EnrolRequest, json.loads(sys.argv[1]))
    prepared = enrolment_request.prepare(request)
    seen: list[tuple[float, int, int]] = []

    def note(_plan: Plan, tally: Tally) -> None:
        seen.append((time.monotonic(), tally.inputs, tally.enrolled))

    summary = enrolment.carry_out(request, prepared, Watch(note))
    print(json.dumps({"seen": seen, "stages": summary.stage_seconds, "failed": summary.failed}))


if __name__ == "__main__":
    main()
